"""Two tables side by side: which layers differ by more than their intervals allow."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.estimate import Estimate
from profiler.layers import LayerSpec
from profiler.table import LatencyTable


@dataclass(frozen=True, slots=True)
class Change:
    layer: LayerSpec
    before: Estimate
    after: Estimate

    @property
    def percent(self) -> float:
        return (self.after.latency_ms / self.before.latency_ms - 1) * 100

    @property
    def beyond_intervals(self) -> bool:
        """The two 95 % intervals do not touch."""
        return self.before.latency_ms_high < self.after.latency_ms_low or self.after.latency_ms_high < self.before.latency_ms_low


@dataclass(frozen=True, slots=True)
class Comparison:
    changes: tuple[Change, ...]
    """Every layer that both tables hold, the largest relative difference first."""
    only_before: tuple[LayerSpec, ...]
    only_after: tuple[LayerSpec, ...]
    differing_conditions: tuple[str, ...]
    """What was not the same when they were measured."""

    @property
    def median_percent(self) -> float | None:
        """Median absolute difference over the shared layers; None if there are none."""
        sizes = sorted(abs(change.percent) for change in self.changes)
        return sizes[len(sizes) // 2] if sizes else None


def compare(before: LatencyTable, after: LatencyTable) -> Comparison:
    shared = [Change(layer, before.rows[layer], after.rows[layer]) for layer in before.rows if layer in after.rows]
    return Comparison(
        tuple(sorted(shared, key=lambda change: -abs(change.percent))),
        tuple(layer for layer in before.rows if layer not in after.rows),
        tuple(layer for layer in after.rows if layer not in before.rows),
        tuple(_conditions(before, after)),
    )


def _conditions(before: LatencyTable, after: LatencyTable) -> list[str]:
    one, two = _facts(before), _facts(after)
    return [f"{name}: {one.get(name)} and {two.get(name)}" for name in sorted(one | two) if one.get(name) != two.get(name)]


def _facts(table: LatencyTable) -> dict[str, object]:
    target = table.info.target
    facts = {"runtime": target.runtime, "threads": target.threads, "runtime version": table.info.device.get("version")}
    return facts | dict(table.info.device.get("device", {}))
