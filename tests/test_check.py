"""The findings about a table, each from a table that has just this to find."""

from __future__ import annotations

import pytest
from test_plot import table

from profiler.interval import Interval
from profiler.latency.validation import HeldOutError, HeldOutLayer, HeldOutNetwork
from profiler.tables.check import check_table


def held_out(*errors_percent: float) -> HeldOutError:
    """One network whose layers of 1 ms are predicted with these errors."""
    layers = tuple(HeldOutLayer(f"n{place}", "conv2d", f"conv {place}", 1 + e / 100, 1.0) for place, e in enumerate(errors_percent))
    return HeldOutError.of([HeldOutNetwork("network", Interval(1.0, 0.9, 1.1), 1.0, 1.0, layers)])


@pytest.mark.parametrize(("errors_percent", "severity"), [((20.0, 30.0, 5.0), "warning"), ((20.0, *[1.0] * 19), "note")])
def test_the_layers_that_disagree_most_are_named(errors_percent: tuple[float, ...], severity: str) -> None:
    found = [finding for finding in check_table(table(held_out=held_out(*errors_percent))) if "inside a held-out" in finding.what]
    assert [finding.severity for finding in found] == [severity]
    worst = max(range(len(errors_percent)), key=lambda place: abs(errors_percent[place]))
    assert f"most: conv {worst} ({errors_percent[worst]:+.0f} % of 1 ms)" in found[0].what


def test_layers_that_agree_are_no_finding() -> None:
    assert not [finding for finding in check_table(table(held_out=held_out(5.0, -9.0))) if "inside a held-out" in finding.what]
