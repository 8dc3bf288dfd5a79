"""Comparison of two tables: the layers that changed by more than chance explains, and the effect on networks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiler.devices.identity import Identity
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate, trusted
from profiler.measure.state import MeasurementState
from profiler.protocol.events import Measurement
from profiler.protocol.journal import journal_path, read_journal
from profiler.tables.changes import p_values, q_values
from profiler.tables.table import Table, load_table

Q = 0.05
"""The expected part of false ones among the layers that are reported as changed."""
LEAST_PERCENT, LEAST_MS = 2.0, 0.001
"""Smaller changes are not reported, even real ones: a layer is measured until its interval is about this wide."""
Rounds = Mapping[LayerSpec, Sequence[float]]
"""Milliseconds of each trusted round of each layer."""


@dataclass(frozen=True, slots=True)
class Change:
    """A layer of both tables."""

    layer: LayerSpec
    before: Estimate
    after: Estimate
    q: float | None = None
    """The rate of false discoveries at which it would count as changed; None where the rounds are not known."""

    @property
    def percent(self) -> float:
        return (self.after.latency_ms.value / self.before.latency_ms.value - 1) * 100

    @property
    def beyond_intervals(self) -> bool:
        """True if both 95 % intervals are known and do not touch."""
        before, after = self.before.latency_ms, self.after.latency_ms
        return before.known and after.known and not before.overlaps(after)

    @property
    def changed(self) -> bool:
        """True for a change beyond chance that is large enough to matter. Without rounds, the intervals decide."""
        beyond = self.beyond_intervals if self.q is None else self.q <= Q
        return (
            beyond
            and abs(self.percent) >= LEAST_PERCENT
            and abs(self.after.latency_ms.value - self.before.latency_ms.value) >= LEAST_MS
        )


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """The predictions of both tables for a network on which both were checked."""

    name: str
    before_ms: float
    after_ms: float

    @property
    def percent(self) -> float:
        return (self.after_ms / self.before_ms - 1) * 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two tables."""

    changes: tuple[Change, ...]
    """Every layer that both tables hold, the largest relative difference first."""
    only_before: tuple[LayerSpec, ...]
    only_after: tuple[LayerSpec, ...]
    differing_conditions: tuple[str, ...]
    """Conditions that differed between the measurements; with any of these, the tables are not of one device that changed."""
    networks: tuple[NetworkChange, ...] = ()
    tested: bool = False
    """Whether the rounds were known and tested."""

    @property
    def changed(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.changed)

    @property
    def median_percent(self) -> float | None:
        """Median absolute difference over the shared layers; None if there are none."""
        sizes = sorted(abs(change.percent) for change in self.changes)
        return sizes[len(sizes) // 2] if sizes else None

    @property
    def median_ratio(self) -> float | None:
        """The median ratio of the latency after to that before; None without shared layers."""
        ratios = [change.after.latency_ms.value / change.before.latency_ms.value for change in self.changes]
        return statistics.median(ratios) if ratios else None

    @property
    def networks_percent(self) -> float | None:
        """The mean change of the predictions; None without shared networks."""
        return statistics.fmean(network.percent for network in self.networks) if self.networks else None

    def sentence(self) -> str:
        """The comparison in one line."""
        if not self.changes:
            return "no layer in common"
        said = f"{len(self.changed)} of {len(self.changes)} layers changed beyond noise"
        if self.median_ratio is not None:
            said += f", median ratio {self.median_ratio:.3f}"
        if self.networks_percent is not None:
            said += f", predictions {self.networks_percent:+.1f} %"
        return f"{said}; measured differently: {'; '.join(self.differing_conditions)}" if self.differing_conditions else said


def compare_files(before: Path, after: Path) -> Comparison:
    """Compare two table files, with the rounds from the journals beside them if both have one."""
    one, two = load_table(before), load_table(after)
    rounds = (rounds_of(before), rounds_of(after)) if journal_path(before).exists() and journal_path(after).exists() else None
    return compare(one, two, rounds)


def rounds_of(path: Path) -> Rounds:
    """The rounds of a table, from its journal. Raises `JournalError` if that is damaged."""
    state = MeasurementState.of(read_journal(journal_path(path)))
    return {layer: _quiet_ms(state.measurements[key]) for key, layer in state.layers.items() if key in state.measurements}


def _quiet_ms(measurements: Sequence[Measurement]) -> list[float]:
    return [measurement.quiet_ms for measurement in trusted(measurements)]


def compare(before: Table, after: Table, rounds: tuple[Rounds, Rounds] | None = None) -> Comparison:
    layers = [layer for layer in before.rows if layer in after.rows]
    found = _tested(layers, rounds) if rounds else [None] * len(layers)
    shared = [Change(layer, before.rows[layer], after.rows[layer], q) for layer, q in zip(layers, found, strict=True)]
    return Comparison(
        tuple(sorted(shared, key=lambda change: -abs(change.percent))),
        tuple(layer for layer in before.rows if layer not in after.rows),
        tuple(layer for layer in after.rows if layer not in before.rows),
        tuple(_conditions(before, after)),
        tuple(_networks(before, after)),
        rounds is not None,
    )


def _tested(layers: Sequence[LayerSpec], rounds: tuple[Rounds, Rounds]) -> list[float | None]:
    """The false discovery rate of each layer; 1 for rows that were carried over, because their rounds are the same."""
    pairs = [(rounds[0].get(layer, ()), rounds[1].get(layer, ())) for layer in layers]
    anew = np.array([list(one) != list(two) for one, two in pairs], dtype=bool)
    q = np.ones(len(pairs))
    q[anew] = q_values(p_values([pair for pair, new in zip(pairs, anew, strict=True) if new]))
    return [float(value) for value in q]


def _networks(before: Table, after: Table) -> list[NetworkChange]:
    earlier = {checked.name: checked.predicted_ms.value for checked in before.info.held_out.checked}
    pairs = [(checked.name, earlier.get(checked.name), checked.predicted_ms.value) for checked in after.info.held_out.checked]
    return [NetworkChange(name, one, two) for name, one, two in pairs if one and two and math.isfinite(one)]


def _conditions(before: Table, after: Table) -> list[str]:
    one, two = before.info.target, after.info.target
    asked = [("runtime", one.runtime, two.runtime), ("threads", one.threads, two.threads)]
    told = [f"{name}: {a} and {b}" for name, a, b in asked if a != b]
    return told + Identity.of_fingerprint(before.info.device).differences(Identity.of_fingerprint(after.info.device))
