from __future__ import annotations

import random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.interval import Interval
from profiler.measure.estimate import Estimate, estimate
from profiler.protocol.events import Measurement
from profiler.protocol.settings import TimingSettings


def measurements(*latencies_ms: float, samples: int = 20) -> list[Measurement]:
    return [Measurement("a", number, 2, (round(latency * 2e6),) * samples) for number, latency in enumerate(latencies_ms)]


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=30))
def test_the_interval_always_holds_the_latency(latencies_ms: list[float]) -> None:
    found = estimate(measurements(*latencies_ms))
    assert found.latency_ms.low <= found.latency_ms.value <= found.latency_ms.high


def test_slow_spells_do_not_move_the_latency() -> None:
    assert estimate(measurements(1.0, 1.3, 1.0, 1.31, 1.0, 1.3)).latency_ms.value == pytest.approx(1.0)


def test_rounds_that_agree_are_settled() -> None:
    assert estimate(measurements(1.0, 1.02, 1.005, 1.01, 1.01, 1.3)).settled(TimingSettings())


def test_one_fast_round_against_many_slow_ones_is_not_settled() -> None:
    assert not estimate(measurements(1.0, 1.3, 1.25, 1.35, 1.3, 1.3)).settled(TimingSettings())


@given(st.floats(1.0, 8.0), st.integers(3, 40))
def test_an_interval_that_is_too_wide_by_a_factor_needs_its_square_in_rounds(factor: float, rounds: int) -> None:
    half_ms = factor * TimingSettings().settle_percent / 100
    found = Estimate(Interval(1.0, 1 - half_ms, 1 + half_ms), rounds, 100, rounds)
    assert found.rounds_to_settle(TimingSettings()) == pytest.approx(rounds * factor**2, abs=1.01)


def test_disturbed_measurements_are_left_out_where_enough_others_remain() -> None:
    disturbed = [Measurement("a", 9 + number, 1, (2_000_000,), tags=("drift",)) for number in range(9)]
    found = estimate([*measurements(1.0, 1.0, 1.0), *disturbed])
    assert (found.latency_ms.value, found.rounds, found.quiet_rounds) == (pytest.approx(1.0), 12, 3)


def test_a_latency_of_disturbed_measurements_says_so_and_is_not_settled() -> None:
    found = estimate([Measurement("a", number, 1, (1_000_000,), tags=("drift",)) for number in range(9)])
    assert found.disturbed
    assert not found.settled(TimingSettings())


def test_samples_in_which_the_kernel_took_the_core_away_do_not_count() -> None:
    assert Measurement("a", 0, 1, (1_000_000, 9_000_000, 8_000_000), switched=(1, 2)).quiet_ms == pytest.approx(1.0)


def test_more_rounds_do_not_make_a_model_faster() -> None:
    """As a minimum would: that of many rounds is lower than that of few."""
    draws = random.Random(7)
    few, many = (
        sum(estimate(measurements(*(1 + abs(draws.gauss(0, 0.03)) for _ in range(rounds)))).latency_ms.value for _ in range(200))
        / 200
        for rounds in (6, 24)
    )
    assert many == pytest.approx(few, abs=0.004)


def test_one_measurement_says_nothing_by_its_agreement_with_itself() -> None:
    measurement = Measurement("a", 0, 1, (1_000_000, 1_500_000))
    assert estimate([measurement]).latency_ms.high == pytest.approx(1.5)


def test_a_slow_tail_within_a_measurement_does_not_move_the_latency() -> None:
    samples = [1_000_000] * 18 + [9_000_000] * 2
    assert Measurement("a", 0, 1, tuple(samples)).quiet_ms == pytest.approx(1.0)


def test_the_interval_covers_the_lower_quartile_of_a_noisy_machine() -> None:
    """A machine with 2 % of jitter, always to the slower side."""
    draws = random.Random(3)
    truth = 1 + 0.02 * NormalDist().inv_cdf(0.625)  # the lower quartile of the folded normal distribution
    covered = 0
    for _ in range(300):
        found = estimate(measurements(*(1 + abs(draws.gauss(0, 0.02)) for _ in range(18))))
        covered += found.latency_ms.contains(truth)
    assert covered >= 0.9 * 300


@pytest.mark.parametrize("samples", [(), (0,), (-5, 10)])
def test_samples_that_cannot_be_are_refused(samples: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="positive samples"):
        Measurement("a", 0, 1, samples)


def test_a_latency_whose_interval_begins_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="not an interval around a latency"):
        Estimate(Interval(1.0, -0.5, 1.5), 3, 60, 3)
