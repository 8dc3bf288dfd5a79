from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.interval import Interval
from profiler.latency.calibration import Calibration, Limits, Sums, fit, sums_of
from profiler.latency.validation import HeldOutError, HeldOutNetwork
from profiler.layers.layer import conv2d


def networks(count: int, truth: Calibration, noise: float = 0.0) -> list[tuple[Sums, float]]:
    draws = random.Random(5)

    def network() -> Sums:
        layout, narrow, weights = (draws.randrange(10**4, 10**7) for _ in range(3))
        return Sums(draws.uniform(1, 9), layout, narrow, draws.randrange(5, 60), weights)

    return [(sums, truth.latency_ms(sums) * (1 + draws.gauss(0, noise))) for sums in (network() for _ in range(count))]


def test_a_correction_that_is_really_there_is_found() -> None:
    truth = Calibration(0.8, 2e-8, 4e-8, -3e-3, 5e-8)
    found = fit(networks(12, truth))
    assert found.scale == pytest.approx(truth.scale)
    assert found.ms_per_layout_byte == pytest.approx(truth.ms_per_layout_byte)
    assert found.ms_per_narrow_byte == pytest.approx(truth.ms_per_narrow_byte)
    assert found.ms_per_layer == pytest.approx(truth.ms_per_layer)
    assert found.ms_per_cold_byte == pytest.approx(truth.ms_per_cold_byte)
    assert found.residual_percent == pytest.approx(0, abs=1e-6)


def test_weights_beyond_the_cache_are_told_from_those_within() -> None:
    truth = Calibration(1.1, ms_per_cold_byte=4e-7, cache_bytes=4 << 20)
    found = fit(networks(16, truth))
    assert found.cache_bytes == truth.cache_bytes
    assert found.ms_per_cold_byte == pytest.approx(truth.ms_per_cold_byte)


def test_the_shares_of_layers_add_up_to_their_network() -> None:
    calibration = Calibration(0.8, 2e-8, 4e-8, -3e-3, 5e-8, cache_bytes=1 << 20)
    layers = [sums for sums, _ in networks(5, Calibration())]
    whole = sum(layers[1:], layers[0])
    assert sum(calibration.share_ms(layer, whole) for layer in layers) == pytest.approx(calibration.latency_ms(whole))


def test_terms_that_explain_nothing_are_left_out() -> None:
    found = fit(networks(12, Calibration(1.1), noise=0.01))
    assert found.scale == pytest.approx(1.1, rel=0.02)
    assert (found.ms_per_layout_byte, found.ms_per_cold_byte) == (0.0, 0.0)


def test_without_networks_the_calibration_is_the_plain_sum() -> None:
    assert fit([]).latency_ms(Sums(3.0, 10**6, 10**4, 28, 10**6)) == 3.0


def test_one_network_is_not_enough_to_fit_anything() -> None:
    assert fit(networks(1, Calibration(0.5))).scale == 1.0


def test_few_networks_carry_few_terms() -> None:
    found = fit(networks(3, Calibration(0.8, 1e-8, 0.0, -1e-3, 1e-8)))
    assert found.scale != 1.0
    assert found.ms_per_layout_byte == found.ms_per_layer == found.ms_per_cold_byte == 0.0


def test_equal_networks_do_not_break_the_fit() -> None:
    ((sums, latency_ms),) = networks(1, Calibration(0.7))
    assert fit([(sums, latency_ms)] * 8).latency_ms(sums) == pytest.approx(latency_ms)


def test_bytes_are_counted_in_whole_tiles_and_narrow_ones_apart() -> None:
    layer = conv2d((1, 4, 4, 8), 24, 1)
    assert sums_of(layer, 1.0, 16) == Sums(1.0, 4 * 16 * (16 + 32), 4 * 16 * 8, 1, layer.weight_bytes)


def test_many_networks_are_corrected_at_once() -> None:
    calibration, found = Calibration(0.8, 2e-8, 4e-8, -3e-3, 5e-8), [sums for sums, _ in networks(5, Calibration())]
    together = Sums(*np.stack([sums.terms() for sums in found], axis=1))
    assert calibration.latencies_ms(together).tolist() == pytest.approx([calibration.latency_ms(sums) for sums in found])


def test_terms_fitted_on_few_networks_leave_more_uncertain() -> None:
    few, many = (Calibration(scale=0.9, ms_per_layer=1e-3, networks=count, residual_percent=2.0) for count in (4, 40))
    assert few.uncertainty_percent > many.uncertainty_percent > 2.0


def checked(predicted: float, measured: float, naive: float, half: float = 0.1) -> HeldOutNetwork:
    return HeldOutNetwork("n", Interval(predicted, predicted - half, predicted + half), measured, naive)


def test_the_held_out_states_mean_worst_bias_and_coverage() -> None:
    found = HeldOutError.of([checked(1.02, 1.0, 1.2), checked(1.96, 2.0, 2.5), checked(3.3, 3.0, 3.9)])
    assert found.mean_error_percent == pytest.approx((2 + 2 + 10) / 3)
    assert found.worst_error_percent == pytest.approx(10)
    assert found.bias_percent == pytest.approx((2 - 2 + 10) / 3)
    assert found.spearman == pytest.approx(1.0)
    assert found.coverage_percent == pytest.approx(200 / 3)
    assert found.naive_mean_error_percent == pytest.approx((20 + 25 + 30) / 3)


def test_a_table_without_held_out_networks_is_unverified() -> None:
    assert not HeldOutError.of([]).verified
    assert HeldOutError.of([]).sentence().startswith("unverified")


def test_a_table_that_misses_by_more_than_the_limit_is_unverified() -> None:
    assert not HeldOutError.of([checked(1.2, 1.0, 1.2)]).verified
    assert HeldOutError.of([checked(1.04, 1.0, 1.2)]).verified


def test_a_held_out_survives_json() -> None:
    found = HeldOutError.of([checked(1.02, 1.0, 1.2)])
    assert HeldOutError.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_calibration_survives_json() -> None:
    found = fit(networks(8, Calibration(0.8, 2e-8, 0.0, -3e-3, 5e-8)))
    assert Calibration.from_dict(found.to_dict()) == found


def test_an_operator_costs_between_nothing_and_an_empty_call() -> None:
    for cost_ms, found_ms in ((-2e-3, 0.0), (1e-3, 1e-3), (9e-3, 3e-3)):
        truth = Calibration(1.0, ms_per_layer=cost_ms, call_ms=3e-3)
        assert fit(networks(12, truth), limits=Limits(call_ms=3e-3)).ms_per_layer == pytest.approx(found_ms, abs=1e-9)


def test_a_byte_of_weights_costs_no_more_than_one_that_is_never_in_the_cache() -> None:
    truth = Calibration(1.0, ms_per_cold_byte=4e-7)
    assert fit(networks(12, truth), limits=Limits(ms_per_cold_byte=1e-7)).ms_per_cold_byte <= 1e-7


def test_a_network_pays_one_call_and_a_layer_alone_pays_one_too() -> None:
    layer = Sums(0.5, 0.0, 0.0, 1, 0.0)
    calibration = Calibration(call_ms=0.1)
    assert calibration.latency_ms(layer) == pytest.approx(0.5)
    assert calibration.latency_ms(layer + layer) == pytest.approx(0.9) == calibration.plain_ms(layer + layer)


@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=12), st.floats(0, 0.05), st.floats(0, 1e-6))
def test_fitted_terms_stay_within_what_was_measured(latencies: list[float], call_ms: float, cold: float) -> None:
    measured = [(sums, latency) for (sums, _), latency in zip(networks(len(latencies), Calibration()), latencies, strict=True)]
    found = fit(measured, limits=Limits(call_ms, cold))
    assert 0 <= found.ms_per_cold_byte <= cold
    assert call_ms == 0 or 0 <= found.ms_per_layer <= call_ms
