"""Decisions about freshness, as pure functions of facts: whether a table is stale, why, and which layers to measure again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from profiler.console import age_text
from profiler.latency.staircase import kind_of
from profiler.layers.layer import LayerSpec
from profiler.tables.check import WIDE_PERCENT
from profiler.tables.table import Table

DRIFT_PERCENT, DRIFT_MS = 3.0, 0.001
"""Smaller shifts are not drift: a device varies by this much from day to day, and no network is sensitive to a microsecond."""
AHEAD_DAYS = 1.0
"""A table that is dated further in the future was made under a wrong clock, and would not become too old for years."""
GENERAL_PART = 0.5
"""If this part of the checked layers, or of the audit, has changed, the whole table has."""
AUDIT_PART, AUDIT_LEAST = 0.05, 3
"""The part of the rows, and their least number, that a refresh draws at random and measures again."""
MOST_PART, MOST_LEAST = 0.4, 24
"""A refresh measures at most this part of the rows, or this number. Beyond that a new build takes hardly longer."""


@dataclass(frozen=True, slots=True)
class SpotCheckItem:
    """A layer or network that was measured again to check whether the device still matches the table."""

    name: str
    kind: str | None
    """The kind of layers it stands for; None for a whole network."""
    before_ms: float
    before_half_ms: float
    """Half the width of the table's 95 % interval."""
    now_ms: float
    now_half_ms: float
    """Half the width of the new measurement's 95 % interval."""

    @property
    def percent(self) -> float:
        """The change against the table, in per cent."""
        return (self.now_ms / self.before_ms - 1) * 100

    @property
    def drifted(self) -> bool:
        """True if the two intervals do not overlap and the shift is large enough to matter."""
        shift_ms = abs(self.now_ms - self.before_ms)
        return shift_ms > max(self.before_half_ms + self.now_half_ms, DRIFT_MS, DRIFT_PERCENT / 100 * self.before_ms)


@dataclass(frozen=True, slots=True)
class FreshnessFacts:
    """Facts about a table and its device that decide whether the table is fresh."""

    unusable: str | None = None
    """The reason why the table cannot be read; then no other fact is known."""
    age_days: float = 0.0
    max_age_days: float = 30.0
    changed_settings: tuple[str, ...] = ()
    """Settings of profile.toml that differ from the table's."""
    device_changes: tuple[str, ...] = ()
    """Differences between the device now and when the table was measured."""
    missing_layers: tuple[LayerSpec, ...] = ()
    """Layers of the table's networks that it cannot predict."""
    spot_check: tuple[SpotCheckItem, ...] = ()

    @property
    def drifted(self) -> tuple[SpotCheckItem, ...]:
        """The items of the spot check that have drifted."""
        return tuple(item for item in self.spot_check if item.drifted)


ReasonKind = Literal["unusable", "settings", "device", "missing layers", "drift", "age"]


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why a table is stale."""

    kind: ReasonKind
    text: str
    whole: bool = False
    """True if no row of the table can be kept."""


@dataclass(frozen=True, slots=True)
class RefreshScope:
    """The layers that a refresh measures again."""

    whole: bool
    """True if all layers are measured again; then `layers` is empty."""
    layers: tuple[LayerSpec, ...] = ()
    """The most urgent layer first."""
    audit: tuple[LayerSpec, ...] = ()
    """Those of `layers` that were drawn at random although nothing suggests that they have changed."""


def staleness_reasons(facts: FreshnessFacts) -> tuple[Reason, ...]:
    """Return every reason why a table is stale; none for a fresh table."""
    if facts.unusable is not None:
        return (Reason("unusable", facts.unusable, whole=True),)
    found = [Reason("settings", f"its {name} setting differs from profile.toml", whole=True) for name in facts.changed_settings]
    found += [Reason("device", f"the device has changed: {change}", whole=True) for change in facts.device_changes]
    if facts.missing_layers:
        count = len(facts.missing_layers)
        found.append(Reason("missing layers", f"{count} layer{'' if count == 1 else 's'} of its networks cannot be predicted"))
    if facts.drifted:
        shifts = ", ".join(f"{item.name} {item.percent:+.1f} %" for item in facts.drifted)
        # Each layer stands for its kind. One kind may drift alone, for example after an update of the runtime;
        # if half of the kinds have, the device as a whole is a different one.
        layers = [item for item in facts.spot_check if item.kind is not None]
        drifted = sum(item.drifted for item in layers)
        general = drifted >= 2 and drifted >= GENERAL_PART * len(layers)
        found.append(Reason("drift", f"latencies have drifted: {shifts}", whole=general))
    if facts.age_days < -AHEAD_DAYS:
        found.append(Reason("age", f"its date is {-facts.age_days:.0f} days ahead of this machine's clock"))
    if facts.age_days > facts.max_age_days:
        found.append(Reason("age", f"it is {age_text(facts.age_days)} old, more than the {age_text(facts.max_age_days)} allowed"))
    return tuple(found)


def choose_scope(table: Table, facts: FreshnessFacts, why: Sequence[Reason], draws: Random) -> RefreshScope:
    """Choose what to measure again of a stale table: missing layers, drifted kinds, uncertain rows, and a random audit.

    The scope is the whole table if a reason demands it, or if most rows would be measured again anyway.
    """
    drifted_kinds = {item.kind for item in facts.drifted} - {None}
    drifted = [layer for layer in table.rows if kind_of(layer) in drifted_kinds]
    most = max(MOST_LEAST, round(MOST_PART * len(table.rows)))
    if any(reason.whole for reason in why) or len({*facts.missing_layers, *drifted}) > most:
        return RefreshScope(whole=True)

    relative_width = {layer: row.latency_ms.half_width / max(row.latency_ms.value, 1e-9) for layer, row in table.rows.items()}
    uncertain = [layer for layer, row in table.rows.items() if row.disturbed or relative_width[layer] > WIDE_PERCENT / 100]
    uncertain.sort(key=lambda layer: -relative_width[layer])
    urgent = dict.fromkeys([*facts.missing_layers, *drifted, *uncertain])

    # The audit tests the assumption that the rows that are kept have not changed.
    others = [layer for layer in table.rows if layer not in urgent]
    audit = draws.sample(others, min(len(others), max(AUDIT_LEAST, round(AUDIT_PART * len(table.rows)))))
    chosen = [*list(urgent)[: max(0, most - len(audit))], *audit]
    return RefreshScope(False, tuple(chosen), tuple(audit))


def audit_failed(scope: RefreshScope, changed: Sequence[LayerSpec]) -> bool:
    """True if most of the audit turned out to have changed: then the rows that were kept cannot be trusted either."""
    found = sum(layer in changed for layer in scope.audit)
    return found >= 2 and found > GENERAL_PART * len(scope.audit)
