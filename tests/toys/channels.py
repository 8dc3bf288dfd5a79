"""A resource: the channels of all blocks together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from netadapt.resources.base import COUNTS
from profiler.layers.graph import Graph


class Channels:
    name = "toy"
    unit = "channels"
    scales: ClassVar[Mapping[str, float]] = COUNTS
    example = "1k"
    needs_table = False
    measurable = False
    named_by_table = False

    @staticmethod
    def amount_text(amount: float) -> str:
        return f"{amount:.0f} channels"

    @classmethod
    def of(cls, table: Any) -> Self:
        return cls()

    def price(self, graph: Graph) -> float:
        return float(sum(graph.widths.values()))
