"""Multiply-accumulates (MACs) of one inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from netadapt.resources.base import COUNTS, prefixed_text
from profiler.layers.graph import Graph


class Macs:
    """The MACs of the whole network, whatever the device. Layers whose MACs are unknown count as 0."""

    name = "macs"
    unit = "MACs"
    scales: ClassVar[Mapping[str, float]] = COUNTS
    example = "300M"
    needs_table = False
    measurable = False
    named_by_table = False

    @staticmethod
    def amount_text(amount: float) -> str:
        return prefixed_text(amount, " MACs")

    @classmethod
    def of(cls, table: Any) -> Self:
        """The resource; no table is needed."""
        return cls()

    def price(self, graph: Graph) -> float:
        """The network's MACs."""
        return float(graph.macs)
