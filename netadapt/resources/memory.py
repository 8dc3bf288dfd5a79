"""Peak activation memory: the bytes of all tensors that are alive at once while the network runs, weights not among them.

Layers run one after the other in the graph's order. While a layer runs, its inputs and its output are alive, and so is every
tensor that a later layer still reads, or that is an output of the network. A runtime may do better (computing in place, another
order) or worse (packed copies, scratch space, alignment): this is the figure that the network itself asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from netadapt.resources.base import prefixed_text
from profiler.layers.graph import Graph
from profiler.layers.layer import ITEM_BYTES


class Memory:
    """The largest sum of live tensors."""

    name = "memory"
    unit = "B"
    scales: ClassVar[Mapping[str, float]] = {
        "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
    }  # fmt: skip
    example = "2MB"
    needs_table = False
    measurable = False
    named_by_table = False

    @staticmethod
    def amount_text(amount: float) -> str:
        return prefixed_text(amount, "B")

    @classmethod
    def of(cls, table: Any) -> Self:
        return cls()

    def price(self, graph: Graph) -> float:
        return float(peak_bytes(graph))


def peak_bytes(graph: Graph) -> int:
    """Of activations, for the batch that the graph is made for."""
    last = {name: place for place, node in enumerate(graph.nodes) for name in (*node.inputs, node.name)}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))  # kept until somebody has fetched them
    alive = _input_bytes(graph)
    peak = sum(alive.values())
    for place, node in enumerate(graph.nodes):
        alive[node.name] = math.prod(node.layer.output) * ITEM_BYTES.get(node.layer.dtype, 4)
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > place}
    return peak


def _input_bytes(graph: Graph) -> dict[str, int]:
    """Of the network's inputs, in the data type of who reads them."""
    item = {name: ITEM_BYTES.get(node.layer.dtype, 4) for node in reversed(graph.nodes) for name in node.inputs}
    return {name: math.prod(shape) * item.get(name, 4) for name, shape in graph.inputs}
