from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.estimate import Estimate, Visit, estimate
from profiler.settings import TimingSettings


def visits(*latencies_ms: float, samples: int = 20) -> list[Visit]:
    return [Visit(number, 2, (round(latency * 2e6),) * samples) for number, latency in enumerate(latencies_ms)]


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=30))
def test_the_interval_always_holds_the_latency(latencies_ms: list[float]) -> None:
    found = estimate(visits(*latencies_ms))
    assert found.latency_ms_low <= found.latency_ms <= found.latency_ms_high


def test_slow_spells_do_not_move_the_latency() -> None:
    assert estimate(visits(1.0, 1.3, 1.0, 1.31, 1.0, 1.3)).latency_ms == pytest.approx(1.0)


def test_a_minimum_that_other_rounds_confirm_is_settled() -> None:
    assert estimate(visits(1.0, 1.3, 1.005, 1.3, 1.01, 1.3)).settled(TimingSettings())


def test_a_minimum_that_stands_alone_is_not_settled() -> None:
    assert not estimate(visits(1.0, 1.3, 1.3, 1.3, 1.3, 1.3)).settled(TimingSettings())


def test_one_visit_says_nothing_by_its_agreement_with_itself() -> None:
    visit = Visit(0, 1, (1_000_000, 1_500_000))
    assert estimate([visit]).latency_ms_high == pytest.approx(1.5)


def test_a_slow_tail_within_a_visit_does_not_move_the_latency() -> None:
    samples = [1_000_000] * 18 + [9_000_000] * 2
    assert Visit(0, 1, tuple(samples)).quiet_ms == pytest.approx(1.0)


def test_the_interval_covers_the_quiet_latency_of_a_noisy_machine() -> None:
    """A machine that flips to 30 % slower half of the time, with 0.5 % of jitter on top, around a true 1 ms."""
    draws = random.Random(3)
    covered = 0
    for _ in range(300):
        rounds = [draws.choice((1.0, 1.3)) + abs(draws.gauss(0, 0.005)) for _ in range(9)]
        found = estimate(visits(*rounds))
        covered += found.latency_ms_low <= 1.0 <= found.latency_ms_high
    assert covered >= 0.9 * 300


@pytest.mark.parametrize("samples", [(), (0,), (-5, 10)])
def test_samples_that_cannot_be_are_refused(samples: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="positive samples"):
        Visit(0, 1, samples)


def test_an_interval_that_does_not_hold_its_latency_is_refused() -> None:
    with pytest.raises(ValueError, match="not an interval"):
        Estimate(2.0, 1.0, 1.5, 3, 60)
