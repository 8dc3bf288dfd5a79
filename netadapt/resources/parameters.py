"""Parameters: weights and biases after batch normalisation is folded in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from netadapt.resources.base import COUNTS, prefixed_text
from profiler.layers.graph import Graph


class Parameters:
    """The parameters of the whole network, whatever the device."""

    name = "parameters"
    unit = "parameters"
    scales: ClassVar[Mapping[str, float]] = COUNTS
    example = "1.2M"
    needs_table = False
    measurable = False
    named_by_table = False

    @staticmethod
    def amount_text(amount: float) -> str:
        return prefixed_text(amount, " parameters")

    @classmethod
    def of(cls, table: Any) -> Self:
        """The resource; no table is needed."""
        return cls()

    def price(self, graph: Graph) -> float:
        """The number of the network's parameters."""
        return float(graph.parameters)
