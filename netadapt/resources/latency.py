"""Latency: milliseconds of one inference on one device with one runtime, as its table predicts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

from netadapt.errors import BudgetError
from netadapt.resources.base import WidthPricer
from profiler.interval import Interval
from profiler.layers.graph import Graph
from profiler.tables.predictor import Prediction, Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.table import Table


class Predicted(Protocol):
    """A predicted latency with its 95 % interval."""

    @property
    def latency_ms(self) -> Interval: ...


class LatencyModel(Protocol):
    """Latencies of networks in ms, such as those of a `GrowingTable`, which measures the layers it lacks."""

    def predict(self, graph: Graph) -> Predicted: ...

    def pricer(self, graph: Graph) -> WidthPricer: ...


class FixedTable:
    """The latencies that a table predicts as it is: a missing layer is an error, and nothing is measured."""

    def __init__(self, table: Table) -> None:
        self.predictor = Predictor(table)

    def predict(self, graph: Graph) -> Prediction:
        """The network's latency. `LayerNotMeasured` if one of its layers is missing."""
        return self.predictor.predict(graph)

    def pricer(self, graph: Graph) -> Pricer:
        """Prices of the network with a block at other widths, NaN where a layer is missing."""
        return Pricer(self.predictor, graph)


class Latency:
    """The predicted latency of a whole network."""

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
    def of(cls, table: Table | LatencyModel | None) -> Self:
        """The latency by a table, or by a model such as a `GrowingTable`. `BudgetError` if there is none."""
        if table is None:
            raise BudgetError("a latency budget needs a latency table; build one with `profile build` and name it with --table")
        return cls(FixedTable(table) if isinstance(table, Table) else table)

    def price(self, graph: Graph) -> float:
        """The predicted latency in ms. `LayerNotMeasured` if a layer is missing from the table and cannot be measured."""
        return self.table.predict(graph).latency_ms.value

    def pricer(self, graph: Graph) -> WidthPricer:
        """Predicted latencies in ms with a block at other widths, NaN where a layer is missing."""
        return self.table.pricer(graph)
