"""Peak activation memory: the largest sum of the bytes of tensors that are alive at the same time, without weights.

Layers run one after the other in the graph's order. While a layer runs, its inputs and its output are alive, and so is every
tensor that a later layer still reads or that is an output of the network. A runtime may need less (computing in place, another
order) or more (packed copies, scratch space, alignment): the figure is a property of the network alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from netadapt.resources.base import prefixed_text
from profiler.layers.graph import Graph
from profiler.layers.layer import ITEM_BYTES


class Memory:
    """The peak activation memory of the whole network in bytes."""

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
        """The resource; no table is needed."""
        return cls()

    def price(self, graph: Graph) -> float:
        """The network's peak activation memory in bytes."""
        return float(peak_bytes(graph))


def peak_bytes(graph: Graph) -> int:
    """Peak activation memory in bytes, for the batch size of the graph."""
    # the place of the layer that reads each tensor last, or makes it if none does
    last = {name: place for place, node in enumerate(graph.nodes) for name in (*node.inputs, node.name)}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))  # kept until the caller has read them
    # the network's inputs, in the data type of the first layer that reads them
    item_bytes = {name: ITEM_BYTES.get(node.layer.dtype, 4) for node in reversed(graph.nodes) for name in node.inputs}
    alive = {name: math.prod(shape) * item_bytes.get(name, 4) for name, shape in graph.inputs}
    peak = sum(alive.values())
    for place, node in enumerate(graph.nodes):
        alive[node.name] = math.prod(node.layer.output) * ITEM_BYTES.get(node.layer.dtype, 4)
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > place}
    return peak
