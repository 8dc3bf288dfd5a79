"""A value with its interval."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.interval import Interval

finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(st.tuples(finite, finite, finite).map(sorted))
def test_every_value_between_its_ends_makes_an_interval_that_contains_all_three(ends: list[float]) -> None:
    low, value, high = ends
    found = Interval(value, low, high)
    assert found.known and all(map(found.contains, ends))
    assert found.half_width == max(high - value, value - low)


@pytest.mark.parametrize(
    "figures", [(1.0, 2.0, 3.0), (3.0, 1.0, 2.0), (1.0, 0.0, math.inf), (math.nan, 0.0, 1.0), (1.0, math.nan, 2.0)]
)
def test_ends_that_do_not_enclose_the_value_are_refused(figures: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="not an interval"):
        Interval(*figures)


def test_an_unknown_interval_keeps_its_value_and_contains_nothing() -> None:
    found = Interval.unknown(2.0)
    assert not found.known and math.isnan(found.half_width)
    assert not found.contains(2.0) and not found.overlaps(Interval(2.0, 1.0, 3.0))
    assert found.to_dict("latency_ms") == {"latency_ms": 2.0, "latency_ms_low": None, "latency_ms_high": None}


def test_intervals_that_touch_overlap() -> None:
    assert Interval(1.0, 0.0, 2.0).overlaps(Interval(3.0, 2.0, 4.0))
    assert not Interval(1.0, 0.0, 2.0).overlaps(Interval(3.0, 2.5, 4.0))


def test_a_factor_scales_value_and_ends() -> None:
    assert Interval(2.0, 1.0, 4.0).scaled(1000) == Interval(2000.0, 1000.0, 4000.0)


@pytest.mark.parametrize("found", [Interval(2.0, 1.5, 3.0), Interval.unknown(2.0)])
def test_a_flat_row_is_read_as_it_was_written(found: Interval) -> None:
    assert repr(Interval.from_dict(found.to_dict("latency_ms"), "latency_ms")) == repr(found)


@pytest.mark.parametrize("plain", [{"ms": "2", "ms_low": 1.0, "ms_high": 3.0}, {"ms": 2.0, "ms_low": None, "ms_high": 3.0}])
def test_a_flat_row_that_is_no_interval_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Interval.from_dict(plain, "ms")
