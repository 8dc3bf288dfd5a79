"""Budgets as people type them: `latency=60%`, `macs=300M`, `memory=2MB`, and of named devices `pixel=40ms`, `pixel.energy=70%`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netadapt.errors import BudgetError
from netadapt.resources.base import Resource
from netadapt.resources.registry import RESOURCES, known_resource, open_resource


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a resource a network may spend: a fraction of what it spends now, or an amount in the resource's unit."""

    resource: str
    fraction: float | None = None
    absolute: float | None = None
    table: str = ""
    """The name of the table that tells, where tables have names."""

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.absolute is None):
            raise BudgetError(f"a budget for {self.name} is either a fraction or an amount")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise BudgetError(f"a budget of {self.fraction:.6g} of the present {self.name} makes no sense; give 1 to 100 %")
        if self.absolute is not None and not 0 < self.absolute < float("inf"):
            raise BudgetError(f"a budget of {self.absolute:.6g} for {self.name} makes no sense; it must be more than nothing")

    @property
    def name(self) -> str:
        """What tells it from other budgets: latency, macs, pixel, pixel.energy."""
        if not self.table:
            return self.resource
        return self.table if known_resource(self.resource).named_by_table else f"{self.table}.{self.resource}"

    @property
    def unit(self) -> str:
        return known_resource(self.resource).unit

    @property
    def measurable(self) -> bool:
        """Whether a network can be measured for this budget on the device of its table."""
        return known_resource(self.resource).measurable

    def amount_text(self, amount: float) -> str:
        """An amount of the resource as it is printed, with its unit."""
        return known_resource(self.resource).amount_text(amount)

    def amount(self, initial: float) -> float:
        """In the resource's unit, for a network that spends `initial` now."""
        return self.absolute if self.absolute is not None else (self.fraction or 0.0) * initial


@dataclass(frozen=True, slots=True)
class Goal:
    """A budget and what prices it."""

    resource: Resource
    budget: Budget

    @property
    def name(self) -> str:
        return self.budget.name

    @property
    def unit(self) -> str:
        return self.resource.unit


BUDGET = re.compile(r"(?P<resource>[^=]*)=\s*(?P<number>[+-]?\d+(?:\.\d*)?(?:e\d{1,2})?)\s*(?P<unit>%|[a-zµ]*)\s*", re.IGNORECASE)


def parse_budget(text: str, tables: Collection[str] = ()) -> Budget:
    """`latency=60%`, `latency=12ms`, `macs=300M`; with `tables` of these names, `pixel=40ms` is the latency by that one.

    `BudgetError` says what cannot be understood and how to write it.
    """
    what, equals, _ = text.partition("=")
    if not equals:
        raise BudgetError(f"{text!r} is not a budget; write latency=60%, latency=12ms or macs=300M")
    said = what.strip()
    resource, table = _meant(said, tables)
    kind = known_resource(resource, tables)
    match = BUDGET.fullmatch(text)
    if match is None:
        raise BudgetError(f"{text!r} has no number that can be understood; write {said}=60% or {said}={kind.example}")
    number, unit = float(match["number"]), match["unit"].lower()
    if unit == "%":
        if not 0 < number <= 100:
            raise BudgetError(
                f"a budget of {number:g} % of the present {said} makes no sense; give more than 0 % and at most 100 %"
            )
        return Budget(resource, fraction=number / 100, table=table)
    if unit not in kind.scales:
        raise BudgetError(f"{text!r} has no unit that {said} is counted in; write {said}=60% or {said}={kind.example}")
    return Budget(resource, absolute=number * kind.scales[unit], table=table)


def named_tables(texts: Sequence[str]) -> dict[str, Path]:
    """`t.parquet`, or `pixel=pixel.parquet` once or more, as tables by name; a lone one may have the name ''."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = "", text
        if name in found:
            raise BudgetError(
                f"there are two tables{f' called {name}' if name else ''}; write --table NAME=TABLE, each another name"
            )
        if name in RESOURCES or "." in name:
            raise BudgetError(f"a table cannot be called {name!r}: budgets could not tell it apart; choose a name without dots")
        found[name] = Path(path)
    if "" in found and len(found) > 1:
        raise BudgetError(f"of several tables each needs a name, {found['']} has none; write --table NAME={found['']}")
    return found


def _meant(said: str, tables: Collection[str]) -> tuple[str, str]:
    """The resource, and the name of the table whose it is."""
    if said in tables and said:
        return next(name for name in RESOURCES if known_resource(name).named_by_table), said
    table, dot, resource = said.rpartition(".")
    return (resource.lower(), table) if dot and table in tables else (said.lower(), "")


def parse_budgets(texts: Iterable[str], tables: Collection[str] = ()) -> tuple[Budget, ...]:
    """Several at once. `BudgetError` also where two are for the same, or it is open whose device one is for."""
    budgets = tuple(parse_budget(text, tables) for text in texts)
    if not budgets:
        raise BudgetError("there is no budget; give one with --budget, such as latency=60%")
    names = [budget.name for budget in budgets]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BudgetError(f"there are two budgets for {twice[0]}; give one")
    for budget in budgets:
        if known_resource(budget.resource).needs_table and not budget.table and any(tables):
            first = next(iter(tables))
            said = first if known_resource(budget.resource).named_by_table else f"{first}.{budget.resource}"
            raise BudgetError(f"the tables have names, so say whose {budget.resource} is meant, as in {said}=60%")
    return budgets


def open_goals(budgets: Sequence[Budget], tables: Mapping[str, Any]) -> tuple[Goal, ...]:
    """Each budget with its resource, priced by the table of its name; a lone table has the name ''."""
    return tuple(Goal(open_resource(budget.resource, tables.get(budget.table)), budget) for budget in budgets)
