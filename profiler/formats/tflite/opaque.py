"""Extracts an operator of a .tflite file, with its real weights, as a file of its own that any TFLite runtime can run."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.errors import ModelError
from profiler.formats.tflite.schema import AlignedBuffer, Bytes, Contents, Operator, numbers, pack
from profiler.layers.layer import OpaqueSubgraph

# LiteRT registers these itself; any other custom operator needs code that our runtimes do not contain
KNOWN_CUSTOM_OPERATORS = ("TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram", "NumericVerify")
_CONTROL_FLOW = ("IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_CASE", "STABLEHLO_WHILE")
_HANDLE_TYPES = ("resource", "variant", "string")


def extract(contents: Contents, operator: Operator) -> tuple[OpaqueSubgraph, bytes]:
    """The extracted operator, and its file. Equal operators with equal weights give equal bytes, whatever their names are.

    Raises `ModelError` if the operator cannot run outside its network.
    """
    _check_stands_alone(contents, operator)
    piece = _Extraction(contents)
    subgraph = piece.subgraph(operator)
    options = (operator.table.builtinOptions, operator.table.builtinOptions2)
    refers_to_subgraphs = any("subgraph" in field.lower() for found in options if found is not None for field in vars(found))
    others = [piece.copied(other) for other in contents.other_subgraphs] if refers_to_subgraphs else []
    # the other subgraphs (the body of a REDUCE_WINDOW, for example) keep their numbers, and so do all operator codes
    codes = contents.codes if others else [operator.code]
    subgraph.operators[0].opcodeIndex = operator.table.opcodeIndex if others else 0
    data = pack(codes, [subgraph, *others], piece.buffers)
    return OpaqueSubgraph(hashlib.sha256(data).hexdigest(), piece.constant_bytes, "tflite"), data


def _check_stands_alone(contents: Contents, operator: Operator) -> None:
    where = f"{contents.label}: operator {operator.index}, {operator.name},"
    if operator.is_custom and operator.name not in KNOWN_CUSTOM_OPERATORS:
        raise ModelError(f"{where} is a custom one that LiteRT does not know; convert the model to built-in operators only")
    if operator.name in _CONTROL_FLOW:
        raise ModelError(
            f"{where} runs other subgraphs, and what that costs depends on the data; unroll it when you convert the model"
        )
    for tensor in (*operator.inputs, *operator.outputs):
        if tensor >= 0 and contents.dtype(tensor) in _HANDLE_TYPES:
            raise ModelError(f"{where} uses a {contents.dtype(tensor)} tensor, which it cannot receive alone; convert it without")


class _Extraction:
    """Collects the tensors and buffers that one operator needs, with new numbers."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.buffers = [AlignedBuffer()]
        self.constant_bytes = 0
        self._tensors: list[Any] = []

    def subgraph(self, operator: Operator) -> Any:
        """The subgraph of the operator alone."""
        table = operator.table
        used = [*operator.inputs, *numbers(table.intermediates), *operator.outputs]
        numbering = {old: new for new, old in enumerate(dict.fromkeys(old for old in used if old >= 0))} | {-1: -1}
        tensors = [self._tensor(old) for old in numbering if old >= 0]
        lone = copy.copy(table)
        lone.inputs = _renumbered(operator.inputs, numbering)
        lone.outputs = _renumbered(operator.outputs, numbering)
        if table.intermediates is not None:
            lone.intermediates = _renumbered(numbers(table.intermediates), numbering)
        lone.debugMetadataIndex = -1
        fed = dict.fromkeys(self.contents.activations(operator))
        return schema.SubGraphT(
            name="main", tensors=tensors, operators=[lone],
            inputs=_renumbered(fed, numbering), outputs=_renumbered(dict.fromkeys(operator.outputs), numbering),
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
