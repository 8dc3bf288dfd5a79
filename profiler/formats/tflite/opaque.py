"""Cuts operators out of a .tflite file, with their real weights, as a file of their own that any TFLite runtime can run."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.formats.tflite.inputs import joined, split
from profiler.formats.tflite.schema import AlignedBuffer, Bytes, Contents, Operator, numbers, pack, refers_to_subgraphs
from profiler.layers.layer import OpaqueSubgraph


def extract(contents: Contents, operators: Sequence[Operator]) -> tuple[OpaqueSubgraph, bytes]:
    """Operators that are one layer, and their file. Equal operators with equal weights are equal layers, whatever their names are,
    and whatever the values are that they are fed.

    Whether it runs alone is found out on the device: a custom operator may be unknown there, and a loop may wait for other data.
    """
    data, constant_bytes = cut(contents, operators, operators[-1].outputs)
    return OpaqueSubgraph(hashlib.sha256(split(data)[0]).hexdigest(), constant_bytes, "tflite"), data


def cut(contents: Contents, operators: Sequence[Operator], outputs: Iterable[int]) -> tuple[bytes, int]:
    """A file of these operators, in an order in which they can run, and the size of its constants in bytes.

    Its inputs are what the operators read and do not make, in the order of reading, with their values if these are known; its
    outputs are the tensors `outputs`.
    """
    piece = _Extraction(contents)
    codes = list(dict.fromkeys(operator.table.opcodeIndex for operator in operators))
    subgraph = piece.subgraph(operators, outputs, codes)
    others = [piece.copied(other) for other in contents.other_subgraphs] if any(map(refers_to_subgraphs, operators)) else []
    if others:
        # the other subgraphs (the body of a REDUCE_WINDOW, for example) keep their numbers, and so do all operator codes
        for table, operator in zip(subgraph.operators, operators, strict=True):
            table.opcodeIndex = operator.table.opcodeIndex
        codes = list(range(len(contents.codes)))
    data = pack([contents.codes[code] for code in codes], [subgraph, *others], piece.buffers)
    read = enumerate(contents.read_from_outside(operators))
    fed = {place: contents.fed[tensor] for place, tensor in read if tensor in contents.fed}
    return joined(data, fed), piece.constant_bytes


class _Extraction:
    """Collects the tensors and buffers that some operators need, with new numbers."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.buffers = [AlignedBuffer()]
        self.constant_bytes = 0
        self._tensors: list[Any] = []

    def subgraph(self, operators: Sequence[Operator], outputs: Iterable[int], codes: Sequence[int]) -> Any:
        """The subgraph of these operators alone; `codes` are the numbers of the operator codes that it keeps."""
        used = [
            tensor
            for operator in operators
            for tensor in (*operator.inputs, *numbers(operator.table.intermediates), *operator.outputs)
        ]
        numbering = {old: new for new, old in enumerate(dict.fromkeys(old for old in used if old >= 0))} | {-1: -1}
        tensors = [self._tensor(old) for old in numbering if old >= 0]
        tables = []
        for operator in operators:
            table = copy.copy(operator.table)
            table.inputs = _renumbered(operator.inputs, numbering)
            table.outputs = _renumbered(operator.outputs, numbering)
            if table.intermediates is not None:
                table.intermediates = _renumbered(numbers(table.intermediates), numbering)
            table.debugMetadataIndex = -1
            table.opcodeIndex = codes.index(operator.table.opcodeIndex)
            tables.append(table)
        return schema.SubGraphT(
            name="main", tensors=tensors, operators=tables,
            inputs=_renumbered(self.contents.read_from_outside(operators), numbering),
            outputs=_renumbered(dict.fromkeys(outputs), numbering),
        )  # fmt: skip

    def copied(self, subgraph: Any) -> Any:
        """Another subgraph unchanged, except that its constants are in our buffers."""
        body = copy.copy(subgraph)
        body.tensors = [copy.copy(tensor) for tensor in subgraph.tensors or []]
        for tensor in body.tensors:
            tensor.buffer = self._buffer(self.contents.buffers[tensor.buffer].data)
        return body

    def _tensor(self, old: int) -> Any:
        """A copy of a tensor of the file."""
        tensor = copy.copy(self.contents.tensors[old])
        # the digest must not depend on the rest of the network, and so neither may the name
        tensor.name = f"tensor_{len(self._tensors)}"
        tensor.shapeSignature = None
        tensor.buffer = self._buffer(self.contents.constants.get(old))
        self._tensors.append(tensor)
        return tensor

    def _buffer(self, data: Bytes | None) -> int:
        """The number of a buffer with this data; 0 for no data."""
        if data is None or not data.size:
            return 0
        self.buffers.append(AlignedBuffer(data))
        self.constant_bytes += data.size
        return len(self.buffers) - 1


def _renumbered(old: Iterable[int], numbering: dict[int, int]) -> Any:
    return np.array([numbering[number] for number in old], np.int32)
