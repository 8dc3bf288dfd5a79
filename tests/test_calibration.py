from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.interval import Interval
from profiler.latency.calibration import Calibration, FitNetwork, LayerInside, Limits, Sums, fit, sums_of
from profiler.latency.validation import HeldOutError, HeldOutLayer, HeldOutNetwork
from profiler.layers.layer import conv2d


def networks(count: int, truth: Calibration, noise: float = 0.0) -> list[FitNetwork]:
    draws = random.Random(5)

    def network() -> Sums:
        layout, narrow, weights = (draws.randrange(10**4, 10**7) for _ in range(3))
        return Sums(draws.uniform(1, 9), layout, narrow, draws.randrange(5, 60), weights)

    return [FitNetwork(sums, truth.latency_ms(sums) * (1 + draws.gauss(0, noise))) for sums in (network() for _ in range(count))]


def with_layers(count: int, truth: Calibration) -> list[FitNetwork]:
    """Networks of four layers each, whose latencies inside the network are known."""
    found = []
    for start in range(0, 4 * count, 4):
        layers = [network.sums for network in networks(4 * count, Calibration())][start : start + 4]
        whole = sum(layers[1:], layers[0])
        found.append(
            FitNetwork(
                whole, truth.latency_ms(whole), [LayerInside("conv2d", layer, truth.share_ms(layer, whole)) for layer in layers]
            )
        )
    return found


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
    layers = [network.sums for network in networks(5, Calibration())]
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
    (network,) = networks(1, Calibration(0.7))
    assert fit([network] * 8).latency_ms(network.sums) == pytest.approx(network.latency_ms)


def test_layers_inside_a_few_networks_carry_the_terms_that_the_networks_alone_cannot() -> None:
    truth = Calibration(0.8, 2e-8, 4e-8, 3e-3, 5e-8)
    known = with_layers(3, truth)
    found = fit(known)
    assert found.layers_inside == 12
    assert found.scale == pytest.approx(truth.scale)
    assert found.ms_per_layer == pytest.approx(truth.ms_per_layer)
    assert found.ms_per_cold_byte == pytest.approx(truth.ms_per_cold_byte)
    assert fit([FitNetwork(network.sums, network.latency_ms) for network in known]).ms_per_layer == 0.0


def test_layers_inside_pay_their_part_of_the_call_and_of_the_weights_beyond_the_cache() -> None:
    truth = Calibration(0.9, ms_per_cold_byte=4e-7, cache_bytes=4 << 20, call_ms=0.5)
    found = fit(with_layers(12, truth), limits=Limits(call_ms=0.5))
    assert (found.scale, found.cache_bytes) == (pytest.approx(truth.scale), truth.cache_bytes)
    assert found.ms_per_cold_byte == pytest.approx(truth.ms_per_cold_byte)


KINDS = ("add", "conv2d", "depthwise_conv2d")


def of_kinds(count: int, factors: Mapping[str, float], noise: float = 0.0) -> list[FitNetwork]:
    """Networks of twelve layers whose kinds take longer or shorter inside than alone."""
    draws = random.Random(7)
    found = []
    for _ in range(count):
        layers = [(draws.choice(KINDS), Sums(draws.uniform(0.1, 2), 10**4, 0, 1, 10**3)) for _ in range(12)]
        inside = [LayerInside(op, sums, factors[op] * sums.latency_ms * (1 + draws.gauss(0, noise))) for op, sums in layers]
        whole = sum((sums for _, sums in layers), Sums(0, 0, 0, 0, 0))
        found.append(FitNetwork(whole, sum(layer.inside_ms for layer in inside), inside))
    return found


def test_a_kind_that_takes_longer_inside_networks_gets_a_factor() -> None:
    found = fit(of_kinds(16, {"add": 1.3, "conv2d": 1.0, "depthwise_conv2d": 0.8}))
    common = found.scale
    assert common * found.kinds["add"] == pytest.approx(1.3, rel=0.02)
    assert common * found.kinds["conv2d"] == pytest.approx(1.0, rel=0.02)
    assert common * found.kinds["depthwise_conv2d"] == pytest.approx(0.8, rel=0.02)


def test_kinds_that_take_as_long_as_alone_keep_a_factor_of_one() -> None:
    found = fit(of_kinds(16, dict.fromkeys(KINDS, 1.1), noise=0.02))
    assert found.scale == pytest.approx(1.1, rel=0.02)
    assert list(found.kinds.values()) == pytest.approx([1, 1, 1], abs=0.02)


def test_factors_of_kinds_that_make_networks_worse_are_not_used() -> None:
    contradicting = [
        replace(
            network,
            latency_ms=network.latency_ms * 0.9,
            layers=[layer._replace(inside_ms=0.9 * layer.inside_ms) for layer in network.layers],
        )
        if place % 2
        else replace(
            network,
            layers=[layer._replace(inside_ms=layer.inside_ms * (2 if layer.op == "add" else 1)) for layer in network.layers],
        )
        for place, network in enumerate(of_kinds(6, dict.fromkeys(KINDS, 1.0)))
    ]
    assert fit(contradicting).kinds == {}


def test_a_layer_alone_counts_by_the_factor_of_its_kind_but_for_the_call() -> None:
    layer = conv2d((1, 4, 4, 8), 24, 1)
    calibration = Calibration(kinds={"conv2d": 1.5}, call_ms=0.2)
    assert sums_of(layer, 1.0, calibration).latency_ms == pytest.approx(0.2 + 1.5 * 0.8)
    assert sums_of(layer, 1.0, Calibration(kinds={"add": 1.5})).latency_ms == 1.0


def test_one_network_with_known_layers_tells_nothing_of_others() -> None:
    assert fit(with_layers(1, Calibration(0.5))).scale == 1.0


def test_bytes_are_counted_in_whole_tiles_and_narrow_ones_apart() -> None:
    layer = conv2d((1, 4, 4, 8), 24, 1)
    assert sums_of(layer, 1.0, Calibration(tile=16)) == Sums(1.0, 4 * 16 * (16 + 32), 4 * 16 * 8, 1, layer.weight_bytes)


def test_many_networks_are_corrected_at_once() -> None:
    calibration, found = Calibration(0.8, 2e-8, 4e-8, -3e-3, 5e-8), [network.sums for network in networks(5, Calibration())]
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


def with_layer(predicted_ms: float, inside_ms: float) -> HeldOutNetwork:
    return replace(checked(1.0, 1.0, 1.0), layers=(HeldOutLayer("conv", "conv2d", "conv2d_8", predicted_ms, inside_ms),))


def test_the_share_of_layers_that_are_predicted_closely_is_stated() -> None:
    found = HeldOutError.of([with_layer(0.5, 0.5), with_layer(0.55, 0.51), with_layer(0.56, 0.5), with_layer(0.4, 0.5)])
    assert (found.layers, found.near_percent) == (4, 50.0)
    assert HeldOutError.of([checked(1.0, 1.0, 1.0)]).near_percent is None


def test_a_held_out_survives_json() -> None:
    found = HeldOutError.of([checked(1.02, 1.0, 1.2), with_layer(0.5, 0.4)])
    assert HeldOutError.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_calibration_survives_json() -> None:
    for found in (fit(networks(8, Calibration(0.8, 2e-8, 0.0, -3e-3, 5e-8))), fit(of_kinds(4, dict.fromkeys(KINDS, 1.2)))):
        assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


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
    assert calibration.latency_ms(layer + layer) == pytest.approx(0.9)


@pytest.mark.slow
@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=12), st.floats(0, 0.05), st.floats(0, 1e-6))
def test_fitted_terms_stay_within_what_was_measured(latencies: list[float], call_ms: float, cold: float) -> None:
    made = networks(len(latencies), Calibration())
    measured = [replace(network, latency_ms=latency) for network, latency in zip(made, latencies, strict=True)]
    found = fit(measured, limits=Limits(call_ms, cold))
    assert 0 <= found.ms_per_cold_byte <= cold
    assert call_ms == 0 or 0 <= found.ms_per_layer <= call_ms
