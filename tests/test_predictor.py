"""Predictions of networks from a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_table import NETWORK, table

from profiler.errors import LayerNotMeasured, TableError
from profiler.interval import Interval
from profiler.latency.calibration import Calibration
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d
from profiler.tables.predictor import Predictor


def test_a_network_costs_the_sum_of_its_layers() -> None:
    said = Predictor(table()).predict(NETWORK)
    assert said.latency_ms.value == pytest.approx(0.5 * len(NETWORK.nodes))
    assert said.latency_ms.low < said.latency_ms.value < said.latency_ms.high


def test_the_calibration_bends_the_sum() -> None:
    calibrated = Predictor(table().with_calibration(Calibration(scale=0.8)))
    assert calibrated.predict(NETWORK).latency_ms.value == pytest.approx(0.8 * calibrated.predict(NETWORK).naive_ms)


def test_the_plain_sum_counts_a_call_once() -> None:
    count, called = len(NETWORK.nodes), table().with_calibration(Calibration(call_ms=0.1))
    assert Predictor(called).predict(NETWORK).naive_ms == pytest.approx(0.5 * count - 0.1 * (count - 1))


def test_the_factor_of_an_operator_is_in_the_latency_of_its_layers_and_in_their_intervals() -> None:
    plain, doubled = (
        Predictor(table().with_calibration(Calibration(kinds=kinds))).predict(NETWORK) for kinds in ({}, {"conv2d": 2.0})
    )
    for before, after in zip(plain.layers, doubled.layers, strict=True):
        factor = 2.0 if before.layer.op == "conv2d" else 1.0
        assert before.latency_ms is not None and after.latency_ms is not None
        assert after.latency_ms.value == pytest.approx(factor * before.latency_ms.value)
        assert after.latency_ms.half_width == pytest.approx(factor * before.latency_ms.half_width)
    assert doubled.naive_ms == pytest.approx(plain.naive_ms)


def test_the_shares_of_the_layers_add_up_to_the_network() -> None:
    said = Predictor(table().with_calibration(Calibration(0.8, 1e-8, 2e-9, -1e-3, 2e-8))).predict(NETWORK)
    assert sum(layer.latency_ms.value for layer in said.layers if layer.latency_ms) == pytest.approx(said.latency_ms.value)


def test_an_unexplained_residual_widens_the_interval() -> None:
    tables = (table().with_calibration(Calibration(networks=8, residual_percent=percent)) for percent in (0.5, 3.0))
    calm, rough = map(Predictor, tables)
    assert rough.predict(NETWORK).latency_ms.high > calm.predict(NETWORK).latency_ms.high


def test_a_plain_sum_that_was_fitted_on_nothing_claims_little() -> None:
    said = Predictor(table()).predict(NETWORK)
    assert said.latency_ms.high > 1.15 * said.latency_ms.value


def test_a_layer_that_was_not_measured_is_named() -> None:
    with pytest.raises(LayerNotMeasured, match="conv2d_1x8x8x4"):
        Predictor(table()).predict(Graph.of_layer(conv2d((1, 8, 8, 4), 4, 3)))


def test_explaining_says_what_is_missing_instead_of_raising() -> None:
    said = Predictor(table()).explain(Graph.of_layer(conv2d((1, 8, 8, 4), 4, 3)))
    assert [layer.source for layer in said.layers] == ["missing"]


def test_a_correction_below_nothing_still_has_an_interval_around_its_value() -> None:
    said = Predictor(table().with_calibration(Calibration(ms_per_layer=-1.0))).predict(NETWORK)
    assert said.latency_ms.low <= said.latency_ms.value < 0
    assert said.latency_ms.value <= said.latency_ms.high


@pytest.mark.parametrize(
    "calibration", [Calibration(scale=1e300), Calibration(residual_percent=1e300, networks=9), Calibration(1e308, 1e308, -1e308)]
)
def test_a_calibration_that_no_device_has_is_told(calibration: Calibration) -> None:
    with pytest.raises(TableError, match="no possible latency"):
        Predictor(table().with_calibration(calibration)).predict(NETWORK)


def test_a_row_whose_interval_no_layer_has_is_told() -> None:
    made = table()
    rows = {layer: replace(row, latency_ms=Interval(0.5, 0.4, 1e300)) for layer, row in made.rows.items()}
    with pytest.raises(TableError, match="no possible latency"):
        Predictor(replace(made, rows=rows)).predict(NETWORK)
