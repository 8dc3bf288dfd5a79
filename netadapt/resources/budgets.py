"""Budgets and their text form: `latency=60%`, `macs=300M`, `memory=2MB`, and `pixel=40ms`, `pixel.energy=70%` for named tables."""

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
    """The most of a resource that a network may use: a fraction of what the original uses, or an amount in the resource's unit."""

    resource: str
    fraction: float | None = None
    """Above 0 and at most 1."""
    absolute: float | None = None
    """In the resource's unit, above 0."""
    table: str = ""
    """The name of the table that prices it; '' for a single table without a name."""

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.absolute is None):
            raise BudgetError(f"a budget for {self.name} must be a fraction or an amount, and not both")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise BudgetError(
                f"a budget of {100 * self.fraction:.6g} % of the present {self.name} is impossible; "
                "give more than 0 % and at most 100 %"
            )
        if self.absolute is not None and not 0 < self.absolute < float("inf"):
            raise BudgetError(f"a budget of {self.absolute:.6g} {self.unit} for {self.name} is impossible; give an amount above 0")

    @property
    def name(self) -> str:
        """The name that budgets, targets and prices are kept by: latency, macs, pixel, pixel.energy."""
        if not self.table:
            return self.resource
        return self.table if known_resource(self.resource).named_by_table else f"{self.table}.{self.resource}"

    @property
    def unit(self) -> str:
        """The unit of the resource, such as ms."""
        return known_resource(self.resource).unit

    @property
    def measurable(self) -> bool:
        """True if this budget's price of a whole network can be measured on the device of its table."""
        return known_resource(self.resource).measurable

    def amount_text(self, amount: float) -> str:
        """An amount of the resource as text with its unit, such as 5.913 ms."""
        return known_resource(self.resource).amount_text(amount)

    def amount(self, initial: float) -> float:
        """The budget in the resource's unit, for an original network that uses `initial` of it."""
        return self.absolute if self.absolute is not None else (self.fraction or 0.0) * initial


@dataclass(frozen=True, slots=True)
class Goal:
    """A budget, and the resource that prices networks for it."""

    resource: Resource
    budget: Budget

    @property
    def name(self) -> str:
        """The budget's name."""
        return self.budget.name

    @property
    def unit(self) -> str:
        """The unit of the resource, such as ms."""
        return self.resource.unit


# a budget's text: a resource or a table, an amount, and a unit that may be left out
_BUDGET = re.compile(r"(?P<resource>[^=]*)=\s*(?P<number>[+-]?\d+(?:\.\d*)?(?:e\d{1,2})?)\s*(?P<unit>%|[a-zµ]*)\s*", re.IGNORECASE)


_EQUALS = re.compile("==|<=|[=<≤:]")
"""The signs by which people say that a resource is to be within an amount."""


def parse_budget(text: str, tables: Collection[str] = ()) -> Budget:
    """The budget in a text such as `latency=60%`, `latency=12ms` or `macs=300M`.

    `tables` are the names of latency tables: `pixel=40ms` is then a budget for the latency by the table `pixel`.
    `BudgetError` if the text is no budget.
    """
    parts = _EQUALS.split(text, maxsplit=1)
    if len(parts) < 2:
        raise BudgetError(f"{text!r} is not a budget; write latency=60%, latency=12ms or macs=300M")
    said = parts[0].strip()
    text = f"{said}={parts[1]}"
    resource, table = said.lower(), ""
    if said and said in tables:
        resource, table = next(name for name in RESOURCES if known_resource(name).named_by_table), said
    elif said.rpartition(".")[0] in tables:  # pixel.energy
        resource, table = said.rpartition(".")[2].lower(), said.rpartition(".")[0]
    kind = known_resource(resource, tables)
    match = _BUDGET.fullmatch(text)
    if match is None:
        comma = re.fullmatch(r"[^=]*=\s*(\d+),(\d+)\s*(%|[a-zµ]*)\s*", text, re.IGNORECASE)
        way = f"{said}={comma[1]}.{comma[2]}{comma[3]}" if comma else f"{said}=60% or {said}={kind.example}"
        way += ", and --budget for each of several" if text.count("=") > 1 else ""
        raise BudgetError(f"{text!r} has no number that can be read; write {way}")
    number, unit = float(match["number"]), match["unit"].lower()
    if unit == "%":
        return Budget(resource, fraction=number / 100, table=table)
    if unit not in kind.scales:
        amount, own = match["number"], kind.example.lstrip("0123456789.")
        share = f"{100 * number:g}%" if 0 < number < 1 else "60%"
        way = f"{said}={share} or {said}={amount}{own}" if not unit else f"{said}=60% or {said}={kind.example}"
        raise BudgetError(f"{text!r} has no unit of {said}; write {way}")
    return Budget(resource, absolute=number * kind.scales[unit], table=table)


def named_tables(texts: Sequence[str]) -> dict[str, Path]:
    """The paths of tables by name, from texts such as `pixel=pixel.parquet`; a single `t.parquet` gets the name ''.

    `BudgetError` for names that are missing, used twice, or would be ambiguous in a budget.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():  # a file's name may have an equals sign
            name, path = "", text
        if name in found:
            raise BudgetError(
                f"there are two tables{f' called {name}' if name else ''}; give each another name with --table NAME=TABLE"
            )
        if name in RESOURCES or "." in name:
            raise BudgetError(
                f"a table cannot be called {name!r}, which is ambiguous in budgets; choose a name without dots that is no resource"
            )
        found[name] = Path(path)
    if "" in found and len(found) > 1:
        raise BudgetError(f"each of several tables needs a name, and {found['']} has none; write --table NAME={found['']}")
    return found


def parse_budgets(texts: Iterable[str], tables: Collection[str] = ()) -> tuple[Budget, ...]:
    """The budgets in these texts, as `parse_budget` reads each.

    `BudgetError` also for no budget, for two with the same name, and for one that needs a table but does not name one of several.
    """
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
            raise BudgetError(f"the tables have names, so name the one of the {budget.resource} budget, as in {said}=60%")
    return budgets


def open_goals(budgets: Sequence[Budget], tables: Mapping[str, Any]) -> tuple[Goal, ...]:
    """Each budget with its resource. `tables` are the `Table`s or `GrowingTable`s that price them, by the names in budgets.

    `BudgetError` if a table is missing or has not the figures that a resource needs.
    """
    return tuple(Goal(open_resource(budget.resource, tables.get(budget.table)), budget) for budget in budgets)
