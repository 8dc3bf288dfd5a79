"""Parts of a network that run or not by the value of an input, such as a sampling rate, which is made up when it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto

from profiler.formats.onnx.library_errors import library_errors_as_ours

DECIDING = {"If": 1, "Loop": 2}
"""The number of first inputs of an operator that decide what of its subgraphs runs."""


def decided_by_inputs(path: Path) -> list[tuple[str, str]]:
    """The names of such operators, each with that of the input of the model that decides.

    The file is one that `read_onnx` has taken; its weights in other files are not read. `ModelError` if it has gone since.
    """
    with library_errors_as_ours(path):
        graph = onnx.load(path, format="protobuf", load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return list(_decided(graph, {value.name: {value.name} for value in graph.input if value.name not in weights}))


def _decided(graph: GraphProto, known: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """The operators in this graph and its subgraphs. `known` has the inputs of the model that each tensor around it depends on."""
    depends = dict(known)
    for node in graph.node:
        deciding = node.input[: DECIDING.get(node.op_type, 0)]
        yield from ((node.name or node.op_type, name) for key in deciding for name in sorted(depends.get(key, ())))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _decided(attribute.g, depends)
        # shapes are fixed, and so is all that is computed from them alone
        found = set() if node.op_type in ("Shape", "Size") else set().union(*(depends.get(key, set()) for key in node.input))
        depends |= dict.fromkeys(node.output, found)
