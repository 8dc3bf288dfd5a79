"""Whether a table is stale, why, and what has to be measured again for it: pure functions over facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from profiler.console import age_text
from profiler.latency.staircase import kind_of
from profiler.layers.layer import LayerSpec
from profiler.tables.check import WIDE_PERCENT
from profiler.tables.table import LatencyTable

DRIFT_PERCENT, DRIFT_MS = 3.0, 0.001
"""A device is never steadier than this from one day to the next, and a microsecond matters to no network."""
AHEAD_DAYS = 1.0
"""A table of the future was made by a clock that was wrong; it would hardly ever become too old."""
GENERAL_PART = 0.5
"""When so many of the items have drifted, or the kinds they stand for make up so much of the table, all of it has."""
AUDIT_PART, AUDIT_LEAST = 0.05, 3
MOST_PART, MOST_LEAST = 0.4, 24
"""A refresh measures so many rows at most: with more of them, building anew is hardly longer and cleaner."""


@dataclass(frozen=True, slots=True)
class SpotCheckItem:
    """A layer or network that was measured again to see whether the device is still the one it was."""

    name: str
    kind: str | None
    """The kind of layers it stands for; None for a whole network."""
    before_ms: float
    before_half_ms: float
    """Half of the interval the table gives it."""
    now_ms: float
    now_half_ms: float

    @property
    def percent(self) -> float:
        return (self.now_ms / self.before_ms - 1) * 100

    @property
    def drifted(self) -> bool:
        """The intervals do not touch, and by enough to matter."""
        shift_ms = abs(self.now_ms - self.before_ms)
        return shift_ms > max(self.before_half_ms + self.now_half_ms, DRIFT_MS, DRIFT_PERCENT / 100 * self.before_ms)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a table and its device."""

    unusable: str | None = None
    """Why it cannot be read; nothing else is known then."""
    age_days: float = 0.0
    max_age_days: float = 30.0
    asked_otherwise: tuple[str, ...] = ()
    """Conditions that are asked for now and were not the table's."""
    fingerprint: tuple[str, ...] = ()
    """What of the device has changed."""
    lacking: tuple[LayerSpec, ...] = ()
    """Layers of the networks it is for that it cannot tell."""
    items: tuple[SpotCheckItem, ...] = ()

    @property
    def drifted(self) -> tuple[SpotCheckItem, ...]:
        return tuple(item for item in self.items if item.drifted)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a table is stale."""

    kind: str
    """missing, asked, fingerprint, lacking, drifted or old."""
    text: str
    whole: bool = False
    """Whether no row of it can be kept."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What to measure again: all, or these layers, the most urgent first."""

    whole: bool
    layers: tuple[LayerSpec, ...] = ()
    audit: tuple[LayerSpec, ...] = ()
    """Those of them that were drawn by chance and nothing was known against."""


def reasons(facts: Facts) -> tuple[Reason, ...]:
    """None at all for a fresh table."""
    if facts.unusable is not None:
        return (Reason("missing", facts.unusable, whole=True),)
    found = [Reason("asked", f"it is asked for with other {what}", whole=True) for what in facts.asked_otherwise]
    found += [Reason("fingerprint", f"the device has changed: {what}", whole=True) for what in facts.fingerprint]
    if facts.lacking:
        found.append(Reason("lacking", f"{len(facts.lacking)} layers it is for are not in it"))
    if facts.drifted:
        said = ", ".join(f"{item.name} {item.percent:+.1f} %" for item in facts.drifted)
        found.append(Reason("drifted", f"measured again, it is off: {said}", whole=_general(facts.items)))
    if facts.age_days < -AHEAD_DAYS:
        found.append(Reason("old", f"its date is {-facts.age_days:.0f} days ahead of this machine's clock"))
    if facts.age_days > facts.max_age_days:
        found.append(Reason("old", f"it is {age_text(facts.age_days)} old, {age_text(facts.max_age_days)} are allowed"))
    return tuple(found)


def _general(items: Sequence[SpotCheckItem]) -> bool:
    layers = [item for item in items if item.kind is not None]
    drifted = sum(item.drifted for item in layers)
    return drifted >= 2 and drifted >= GENERAL_PART * len(layers)


def needed(table: LatencyTable, facts: Facts, why: Sequence[Reason], draws: Random) -> Needed:
    """Of a stale table: what is missing, then what has drifted, then what is least certain, then a few by chance.

    The whole table if the device is another one, drift is general, or most of the rows would be measured anyway.
    """
    kinds = {item.kind for item in facts.drifted} - {None}
    drifted = [layer for layer in table.rows if kind_of(layer) in kinds]
    most = max(MOST_LEAST, round(MOST_PART * len(table.rows)))
    if any(reason.whole for reason in why) or len({*facts.lacking, *drifted}) > most:
        return Needed(True)
    urgent = dict.fromkeys([*facts.lacking, *drifted, *_widest(table)])
    calm = [layer for layer in table.rows if layer not in urgent]
    audit = draws.sample(calm, min(len(calm), max(AUDIT_LEAST, round(AUDIT_PART * len(table.rows)))))
    chosen = [*list(urgent)[: max(0, most - len(audit))], *audit]
    return Needed(False, tuple(chosen), tuple(audit))


def _widest(table: LatencyTable) -> list[LayerSpec]:
    """Rows that were disturbed or are uncertain, the most uncertain first."""
    width = {layer: row.half_width_ms / max(row.latency_ms, 1e-9) for layer, row in table.rows.items()}
    wide = [layer for layer, row in table.rows.items() if row.disturbed or width[layer] > WIDE_PERCENT / 100]
    return sorted(wide, key=lambda layer: -width[layer])


def audit_failed(needed: Needed, changed: Sequence[LayerSpec]) -> bool:
    """Whether rows that nothing was known against turned out to have changed: then nothing is known of the others either."""
    found = sum(layer in changed for layer in needed.audit)
    return found >= 2 and found > GENERAL_PART * len(needed.audit)
