"""The permutation test: it finds what changed, and of what it finds hardly anything is chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.tables.changes import p_values, q_values

Q = 0.05
SIZES = st.tuples(st.integers(4, 18), st.integers(4, 18))


def rounds(draws: np.random.Generator, count: int, level_ms: float = 1.0) -> list[float]:
    """As a shared machine has them: noise of a per cent, and a slow spell now and then."""
    noise = 1 + np.abs(draws.normal(0, 0.01, count))
    return list(level_ms * noise * np.where(draws.random(count) < 0.15, 1.3, 1.0))


@settings(max_examples=25)
@given(st.integers(0, 10**6), SIZES, st.integers(1, 120))
def test_where_nothing_changed_small_p_values_are_as_rare_as_they_say(seed: int, sizes: tuple[int, int], layers: int) -> None:
    draws = np.random.default_rng(seed)
    levels = draws.uniform(0.01, 10, layers)
    p = p_values([(rounds(draws, sizes[0], level), rounds(draws, sizes[1], level)) for level in levels])
    # a binomial count, which is within five of its standard deviations but for one time in a million
    assert (p <= Q).sum() <= layers * Q + 5 * np.sqrt(layers * Q) + 1


def test_where_nothing_changed_hardly_ever_anything_is_called_changed() -> None:
    draws = np.random.default_rng(1)
    found = [(q_values(p_values([(rounds(draws, 6), rounds(draws, 9)) for _ in range(60)])) <= Q).any() for _ in range(100)]
    assert sum(found) <= 13  # expected are 5, three standard deviations more are 12


@pytest.mark.parametrize("changed", [1, 20, 150])
def test_layers_that_changed_are_found_however_few_or_many(changed: int) -> None:
    draws = np.random.default_rng(2)
    pairs = [(rounds(draws, 6), rounds(draws, 6, 1.5 if place < changed else 1.0)) for place in range(200)]
    found = q_values(p_values(pairs)) <= Q
    assert found[:changed].mean() >= 0.8
    assert found[changed:].sum() <= max(3, 0.1 * changed)


def test_layers_seen_in_too_few_rounds_are_not_judged() -> None:
    assert p_values([([1.0, 1.0], [2.0, 2.0])]).tolist() == [1.0]
    assert p_values([]).tolist() == []


def test_equal_rounds_are_no_change() -> None:
    assert p_values([([1.0] * 6, [1.0] * 6)] * 3).tolist() == [1.0] * 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_keep_the_order_and_are_never_below_p(p: list[float]) -> None:
    q = q_values(np.array(p))
    assert (q >= np.array(p) - 1e-12).all()
    assert (np.diff(q[np.argsort(p, kind="stable")]) >= -1e-12).all()


def test_benjamini_and_hochbergs_rule_by_hand() -> None:
    assert q_values(np.array([0.04, 0.01, 0.02, 0.9])).tolist() == pytest.approx([0.16 / 3, 0.04, 0.04, 0.9])
