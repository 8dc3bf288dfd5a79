"""Comparison of two tables: layers whose latency changed beyond chance, and the effect on predicted networks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiler.devices.identity import Identity
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate, trusted
from profiler.measure.state import MeasurementState
from profiler.protocol.journal import journal_path, read_journal
from profiler.tables.changes import p_values, q_values
from profiler.tables.table import Table, load_table

Q = 0.05
"""The accepted rate of false discoveries."""
LEAST_PERCENT, LEAST_MS = 2.0, 0.001
"""Smaller changes do not count: a layer is measured only until its interval is about so wide."""
Rounds = Mapping[LayerSpec, Sequence[float]]
"""The latency in ms of each trusted round, by layer."""


@dataclass(frozen=True, slots=True)
class Change:
    """A layer that both tables hold."""

    layer: LayerSpec
    before: Estimate
    after: Estimate
    q: float | None = None
    """The smallest rate of false discoveries at which it counts as changed; None if the rounds are not known."""

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
        """True if the change is beyond chance and large enough. Without rounds, the intervals decide."""
        beyond = self.beyond_intervals if self.q is None else self.q <= Q
        return (
            beyond
            and abs(self.percent) >= LEAST_PERCENT
            and abs(self.after.latency_ms.value - self.before.latency_ms.value) >= LEAST_MS
        )


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """The predictions of both tables for a network that both were checked on."""

    name: str
    before_ms: float
    after_ms: float

    @property
    def percent(self) -> float:
        return (self.after_ms / self.before_ms - 1) * 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of `compare`."""

    changes: tuple[Change, ...]
    """All layers that both tables hold, the largest relative difference first."""
    only_before: tuple[LayerSpec, ...]
    only_after: tuple[LayerSpec, ...]
    differing_conditions: tuple[str, ...]
    """Differences in runtime, threads or device, as text. With any of them, other causes than a changed device are possible."""
    networks: tuple[NetworkChange, ...] = ()
    tested: bool = False
    """True if the rounds of both tables were known and tested."""

    @property
    def changed(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.changed)

    @property
    def median_percent(self) -> float | None:
        """Median absolute difference of the shared layers; None if there are none."""
        sizes = sorted(abs(change.percent) for change in self.changes)
        return sizes[len(sizes) // 2] if sizes else None

    @property
    def median_ratio(self) -> float | None:
        """Median ratio of the latency after to the latency before; None without shared layers."""
        ratios = [change.after.latency_ms.value / change.before.latency_ms.value for change in self.changes]
        return statistics.median(ratios) if ratios else None

    @property
    def networks_percent(self) -> float | None:
        """Mean change of the predictions; None without shared networks."""
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
    """Compare two files. The rounds are read from the journals beside them if both exist."""
    one, two = load_table(before), load_table(after)
    rounds = (rounds_of(before), rounds_of(after)) if journal_path(before).exists() and journal_path(after).exists() else None
    return compare(one, two, rounds)


def rounds_of(path: Path) -> Rounds:
    """The rounds in the journal of a table. `JournalError` if it is damaged."""
    state = MeasurementState.of(read_journal(journal_path(path)))
    return {
        layer: [measurement.quiet_ms for measurement in trusted(state.measurements[key])]
        for key, layer in state.layers.items()
        if key in state.measurements
    }


def compare(before: Table, after: Table, rounds: tuple[Rounds, Rounds] | None = None) -> Comparison:
    """Compare two tables. `rounds` are those before and those after; without them the intervals decide what changed."""
    layers = [layer for layer in before.rows if layer in after.rows]
    q = _rates(layers, rounds) if rounds else [None] * len(layers)
    changes = [Change(layer, before.rows[layer], after.rows[layer], rate) for layer, rate in zip(layers, q, strict=True)]
    target, new = before.info.target, after.info.target
    conditions = [
        f"{name}: {one} and {two}"
        for name, one, two in (("runtime", target.runtime, new.runtime), ("threads", target.threads, new.threads))
        if one != two
    ]
    if before.info.model != after.info.model:
        one, two = (
            "measured" if info.model is None else f"modelled, {info.model.sentence()}" for info in (before.info, after.info)
        )
        conditions.append(f"origin: {one} and {two}")
    conditions += Identity.of_fingerprint(before.info.device).differences(Identity.of_fingerprint(after.info.device))
    earlier_ms = {network.name: network.predicted_ms.value for network in before.info.held_out.checked}
    predicted = [
        (network.name, earlier_ms.get(network.name), network.predicted_ms.value) for network in after.info.held_out.checked
    ]
    return Comparison(
        tuple(sorted(changes, key=lambda change: -abs(change.percent))),
        tuple(layer for layer in before.rows if layer not in after.rows),
        tuple(layer for layer in after.rows if layer not in before.rows),
        tuple(conditions),
        tuple(NetworkChange(name, one_ms, two_ms) for name, one_ms, two_ms in predicted if one_ms and two_ms),
        rounds is not None,
    )


def _rates(layers: Sequence[LayerSpec], rounds: tuple[Rounds, Rounds]) -> list[float | None]:
    """The rate of false discoveries of each layer; 1 for rows that were carried over and have the same rounds in both tables."""
    pairs = [(rounds[0].get(layer, ()), rounds[1].get(layer, ())) for layer in layers]
    measured_again = np.array([list(one) != list(two) for one, two in pairs], dtype=bool)
    q = np.ones(len(pairs))
    q[measured_again] = q_values(p_values([pair for pair, again in zip(pairs, measured_again, strict=True) if again]))
    return [float(rate) for rate in q]
