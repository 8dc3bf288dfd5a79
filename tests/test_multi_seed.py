"""Figures over seeds."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netadapt.reporting.charts import PERCENT
from netadapt.runs.multi_seed import Spread, of_each


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_mean_and_spread_are_those_of_a_sample(values: list[float]) -> None:
    found = Spread.of(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.deviation == pytest.approx(statistics.stdev(values), abs=1e-9)
    assert found.low <= found.mean <= found.high


def test_one_seed_has_no_spread() -> None:
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    assert Spread.of([0.5]).text(PERCENT) == "50.0 %"


def test_several_seeds_are_told_with_their_spread() -> None:
    assert Spread.of([0.96, 0.97, 0.98]).text(PERCENT) == "97.0 ± 1.0 %"


def test_no_seed_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])


def test_figures_that_a_seed_lacks_are_left_out() -> None:
    assert list(of_each([{"rmse_m": 0.6, "rel": 0.1}, {"rmse_m": 0.7}])) == ["rmse_m"]
    assert of_each([]) == {}
