"""Latency: milliseconds on one device with one runtime, by its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

from netadapt.errors import BudgetError
from netadapt.resources.base import WidthPricer
from profiler.interval import Interval
from profiler.layers.graph import Graph


class Predicted(Protocol):
    @property
    def latency_ms(self) -> Interval: ...


class LatencyModel(Protocol):
    """What a latency table can do, whether it measures what it lacks or not."""

    def predict(self, graph: Graph) -> Predicted: ...

    def pricer(self, graph: Graph) -> WidthPricer: ...


class Latency:
    """What the table predicts for the whole network."""

    name = "latency"
    unit = "ms"
    scales: ClassVar[Mapping[str, float]] = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
    example = "12ms"
    needs_table = True
    measurable = True
    named_by_table = True

    def __init__(self, table: LatencyModel) -> None:
        self.table = table

    @staticmethod
    def amount_text(amount: float) -> str:
        return f"{amount:.4g} ms"

    @classmethod
    def of(cls, table: LatencyModel | None) -> Self:
        if table is None:
            raise BudgetError("a latency budget needs a latency table; name one with --table, `profile build` makes it")
        return cls(table)

    def price(self, graph: Graph) -> float:
        return self.table.predict(graph).latency_ms.value

    def pricer(self, graph: Graph) -> WidthPricer:
        return self.table.pricer(graph)
