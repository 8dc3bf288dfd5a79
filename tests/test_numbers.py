"""What counts as a number when it comes from outside."""

from __future__ import annotations

import math

import pytest

from device_agents.support.numbers import is_number, is_whole


@pytest.mark.parametrize("value", [0, -3, 10**400])
def test_whole_numbers_of_any_size(value: object) -> None:
    assert is_whole(value)


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, [1], math.nan])
def test_neither_truth_nor_text_nor_floats_are_whole_numbers(value: object) -> None:
    assert not is_whole(value)


def test_limits_of_a_whole_number_belong_to_it() -> None:
    assert [value for value in range(5) if is_whole(value, 1, 3)] == [1, 2, 3]


@pytest.mark.parametrize("value", [0, -3, 1.5, 2**64])
def test_whole_numbers_and_floats_are_numbers(value: object) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", [True, "1.5", None, math.nan, math.inf, -math.inf, 10**400])
def test_what_no_finite_float_holds_is_no_number(value: object) -> None:
    assert not is_number(value)


def test_limits_of_a_number_belong_to_it() -> None:
    assert [value for value in (0.5, 1.0, 2, 2.5) if is_number(value, 1, 2)] == [1.0, 2]
