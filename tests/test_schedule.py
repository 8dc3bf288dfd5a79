"""The reduction schedule: it decays, its sum is known, and one that cannot reach the budget is told beforehand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netadapt.errors import BudgetError
from netadapt.search.schedule import check_reachable, iterations_needed, planned_fraction, reduction, smallest_step


def test_the_first_reduction_is_the_step_itself() -> None:
    assert reduction(1, initial=50.0, step=0.04, decay=0.96) == pytest.approx(2.0)


def test_later_reductions_decay() -> None:
    assert reduction(3, initial=50.0, step=0.04, decay=0.96) == pytest.approx(2.0 * 0.96**2)


def test_the_planned_fraction_is_the_sum_of_the_reductions() -> None:
    summed = sum(reduction(i, 1.0, 0.025, 0.96) for i in range(1, 31))
    assert planned_fraction(30, 0.025, 0.96) == pytest.approx(summed)


def test_a_decay_of_one_takes_away_the_same_each_time() -> None:
    assert planned_fraction(10, 0.05, 1.0) == pytest.approx(0.5)


def test_the_reference_codes_own_defaults_are_found_to_be_out_of_reach() -> None:
    with pytest.raises(
        BudgetError, match=r"by 44\.1 % in 30 iterations, the budget asks for 75\.0 %; raise --step to at least 0\.043"
    ):
        check_reachable(initial=100.0, budget=25.0, step=0.025, decay=0.96, max_iterations=30)


def test_more_iterations_are_only_suggested_where_they_would_help() -> None:
    with pytest.raises(BudgetError) as short:
        check_reachable(initial=100.0, budget=60.0, step=0.04, decay=0.96, max_iterations=5)
    with pytest.raises(BudgetError) as hopeless:
        check_reachable(initial=100.0, budget=25.0, step=0.025, decay=0.96, max_iterations=30)
    assert "--max-iterations to at least 13" in str(short.value)
    assert "--max-iterations" not in str(hopeless.value)


def test_a_budget_that_is_met_exactly_is_reachable() -> None:
    check_reachable(initial=10.0, budget=9.0, step=0.1, decay=0.96, max_iterations=1)


def test_a_budget_that_is_met_already_asks_for_nothing() -> None:
    check_reachable(initial=10.0, budget=12.0, step=0.01, decay=0.5, max_iterations=1)


def test_the_message_names_the_budget() -> None:
    with pytest.raises(BudgetError, match="the budget for jetson asks for"):
        check_reachable(1.0, 0.1, 0.01, 0.9, 3, "the budget for jetson")


budgets = st.floats(0.05, 0.95)
decays = st.floats(0.5, 1.0)
iterations = st.integers(1, 60)


@given(budgets, decays, iterations)
def test_the_smallest_step_reaches_the_budget_and_no_smaller_one_does(budget: float, decay: float, count: int) -> None:
    step = smallest_step(1 - budget, decay, count)
    check_reachable(1.0, budget, step, decay, count)
    with pytest.raises(BudgetError):
        check_reachable(1.0, budget, step * 0.99, decay, count)


@given(budgets, decays, iterations)
def test_the_step_that_the_message_names_is_enough(budget: float, decay: float, count: int) -> None:
    with pytest.raises(BudgetError) as error:
        check_reachable(1.0, budget, smallest_step(1 - budget, decay, count) / 2, decay, count)
    named = re.search(r"--step to at least (\S+?)(?:,|$)", str(error.value))
    assert named is not None
    check_reachable(1.0, budget, float(named[1]), decay, count)


@given(budgets, decays, st.floats(0.001, 0.2))
def test_the_iterations_needed_are_enough_and_one_less_is_not(budget: float, decay: float, step: float) -> None:
    needed = iterations_needed(1 - budget, step, decay)
    if needed is None:
        assert planned_fraction(10_000, step, decay) <= (1 - budget) * (1 + 1e-9)
    else:
        assert planned_fraction(needed, step, decay) >= (1 - budget) * (1 - 1e-6)
        assert planned_fraction(needed - 1, step, decay) <= (1 - budget) * (1 + 1e-6)
