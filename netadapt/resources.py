"""Resources a network spends, and budgets for them.

A resource is anything that puts a price on a graph. A new one is a class here and its line in RESOURCES.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from netadapt.errors import BudgetError
from profiler.graph import Graph


class Resource(Protocol):
    """Puts a price on a network; the lower the better."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def price(self, graph: Graph) -> float: ...


@runtime_checkable
class PricesMany(Protocol):
    """A resource that prices every width of a block at once."""

    def prices(self, graph: Graph, block: str, widths: Sequence[int]) -> Sequence[float]:
        """One for each width; NaN where only `price` can tell."""
        ...


class Predicted(Protocol):
    @property
    def latency_ms(self) -> float: ...


class Predictor(Protocol):
    """What a latency table can do, whether it measures what it lacks or not."""

    def predict(self, graph: Graph) -> Predicted: ...

    def prices(self, graph: Graph, block: str, widths: Sequence[int]) -> Sequence[float]: ...


class Latency:
    """Milliseconds on one device with one runtime, by its table."""

    name = "latency"
    unit = "ms"
    scales: Mapping[str, float] = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}

    def __init__(self, table: Predictor) -> None:
        self.table = table

    @classmethod
    def of(cls, table: Predictor | None) -> Self:
        if table is None:
            raise BudgetError("a latency budget needs a latency table; name one with --table, `profile build` makes it")
        return cls(table)

    def price(self, graph: Graph) -> float:
        return self.table.predict(graph).latency_ms

    def prices(self, graph: Graph, block: str, widths: Sequence[int]) -> Sequence[float]:
        return self.table.prices(graph, block, widths)


class _Count:
    """A resource counted on the graph alone, whatever the device."""

    scales: Mapping[str, float] = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}

    @classmethod
    def of(cls, table: Predictor | None) -> Self:
        return cls()


class Macs(_Count):
    """Multiply-accumulates of one inference."""

    name = "macs"
    unit = "MACs"

    def price(self, graph: Graph) -> float:
        return float(graph.macs)


class Parameters(_Count):
    """Weights and biases, batch normalisation folded in."""

    name = "parameters"
    unit = "parameters"

    def price(self, graph: Graph) -> float:
        return float(graph.parameters)


RESOURCES: Mapping[str, type[Latency] | type[Macs] | type[Parameters]] = {
    "latency": Latency,
    "macs": Macs,
    "parameters": Parameters,
}


def open_resource(name: str, table: Predictor | None = None) -> Resource:
    """The resource of this name, priced by the table if it needs one. `BudgetError` for an unknown name or a missing table."""
    return _known(name).of(table)


def _known(name: str) -> type[Latency] | type[Macs] | type[Parameters]:
    if name not in RESOURCES:
        near = difflib.get_close_matches(name, RESOURCES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(RESOURCES)}"
        raise BudgetError(f"there is no resource {name!r}; {hint}")
    return RESOURCES[name]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a resource a network may spend: a fraction of what it spends now, or an amount in the resource's unit."""

    resource: str
    fraction: float | None = None
    absolute: float | None = None

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.absolute is None):
            raise BudgetError(f"a budget for {self.resource} is either a fraction or an amount")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise BudgetError(f"a budget of {self.fraction:.6g} of the present {self.resource} makes no sense; give 1 to 100 %")
        if self.absolute is not None and not 0 < self.absolute < float("inf"):
            raise BudgetError(f"a budget of {self.absolute:.6g} for {self.resource} makes no sense; it must be more than nothing")

    def amount(self, initial: float) -> float:
        """In the resource's unit, for a network that spends `initial` now."""
        return self.absolute if self.absolute is not None else (self.fraction or 0.0) * initial


BUDGET = re.compile(r"(?P<resource>[^=]*)=\s*(?P<number>[+-]?\d+(?:\.\d*)?(?:e\d{1,2})?)\s*(?P<unit>%|[a-zµ]*)\s*", re.IGNORECASE)


def parse_budget(text: str) -> Budget:
    """`latency=60%`, `latency=12ms`, `macs=300M`. `BudgetError` says what cannot be understood and how to write it."""
    resource, equals, _ = text.partition("=")
    if not equals:
        raise BudgetError(f"{text!r} is not a budget; write latency=60%, latency=12ms or macs=300M")
    name = resource.strip().lower()
    kind = _known(name)
    match = BUDGET.fullmatch(text)
    if match is None:
        raise BudgetError(f"{text!r} has no number that can be understood; write {name}=60% or {_example(name)}")
    number, unit = float(match["number"]), match["unit"].lower()
    if unit == "%":
        return _percentage(name, number)
    if unit not in kind.scales:
        raise BudgetError(f"{text!r} has no unit that {name} is counted in; write {name}=60% or {_example(name)}")
    return Budget(name, absolute=number * kind.scales[unit])


def _percentage(name: str, number: float) -> Budget:
    if not 0 < number <= 100:
        raise BudgetError(f"a budget of {number:g} % of the present {name} makes no sense; give more than 0 % and at most 100 %")
    return Budget(name, fraction=number / 100)


def _example(name: str) -> str:
    return f"{name}=12ms" if RESOURCES[name].unit == "ms" else f"{name}=1.2M"


def amount_text(amount: float, unit: str) -> str:
    """For people: 5.913 ms, 41.2 M MACs."""
    if unit == "ms":
        return f"{amount:.4g} ms"
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= scale:
            return f"{amount / scale:.4g} {letter} {unit}"
    return f"{amount:.4g} {unit}"
