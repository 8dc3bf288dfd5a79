"""Prices of many widths at once against the table's own prediction, one width after the other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st
from test_channels import grouped
from test_sampling import NETWORK, PLAN, STAIRCASES, table_of

from profiler.latency.calibration import Calibration
from profiler.layers.channels import possible_widths
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d
from profiler.tables.plan import make_plan
from profiler.tables.predictor import Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.sampling import corners_of
from profiler.tables.table import Table

CALIBRATED = table_of(corners_of(PLAN, STAIRCASES)).with_calibration(Calibration(1.1, -1e-9, 2e-9, -1e-4, 3e-8, 1 << 17, 32))


def one_by_one(table: Table, graph: Graph, block: str, widths: list[int]) -> list[float]:
    predictor = Predictor(table)
    said = [predictor.explain(graph.at_widths({block: width})) for width in widths]
    return [math.nan if one.missing else one.latency_ms.value for one in said]


@pytest.mark.parametrize("block", NETWORK.widths)
def test_many_widths_cost_what_each_is_predicted_to(block: str) -> None:
    widths = list(range(8, NETWORK.widths[block] + 1, 8))
    assert Pricer(Predictor(CALIBRATED), NETWORK).prices(block, widths) == pytest.approx(
        one_by_one(CALIBRATED, NETWORK, block, widths)
    )


def test_prices_do_not_wait_for_intervals() -> None:
    predictor, narrower = Predictor(CALIBRATED), NETWORK.at_widths({"pw1": 24})
    assert not any(map(math.isnan, Pricer(predictor, narrower).prices("pw2", [32, 40])))
    assert "spreads" not in vars(predictor.grid)
    predictor.predict(narrower)
    assert "spreads" in vars(predictor.grid), "its layers are interpolated, and the interval of a prediction is shown"


@pytest.mark.parametrize("block", NETWORK.widths)
def test_factors_of_operators_and_the_call_are_in_the_prices(block: str) -> None:
    factors = {"conv2d": 1.3, "depthwise_conv2d": 0.7}
    table = CALIBRATED.with_calibration(replace(CALIBRATED.info.calibration, kinds=factors, call_ms=1e-4))
    widths = list(range(8, NETWORK.widths[block] + 1, 8))
    prices = Pricer(Predictor(table), NETWORK).prices(block, widths)
    assert prices == pytest.approx(one_by_one(table, NETWORK, block, widths))
    assert prices != pytest.approx(one_by_one(CALIBRATED, NETWORK, block, widths))


@pytest.mark.slow
@given(st.sampled_from(PLAN.check), st.sampled_from(sorted(NETWORK.widths)))
def test_the_same_holds_for_a_network_that_is_narrower_already(widths: dict[str, int], block: str) -> None:
    graph = NETWORK.at_widths(widths)
    asked = list(range(8, graph.widths[block] + 1, 40))
    assert Pricer(Predictor(CALIBRATED), graph).prices(block, asked) == pytest.approx(one_by_one(CALIBRATED, graph, block, asked))


def test_widths_of_a_grouped_convolution_are_priced_where_its_groups_divide() -> None:
    graph = grouped(3)
    plan = make_plan(graph)
    table = table_of(corners_of(plan, STAIRCASES)).with_calibration(CALIBRATED.info.calibration)
    for block, possible in possible_widths(graph, 8).items():
        asked = list(range(8, graph.widths[block] + 1, 8))
        prices = dict(zip(asked, Pricer(Predictor(table), graph).prices(block, asked), strict=True))
        assert [width for width, price in prices.items() if not math.isnan(price)] == list(possible)
        assert [prices[width] for width in possible] == pytest.approx(one_by_one(table, graph, block, list(possible)))


def test_a_width_that_the_table_cannot_tell_has_no_price() -> None:
    wider = NETWORK.at_widths({"pw1": 40})
    prices = Pricer(Predictor(CALIBRATED), wider).prices("pw1", [32, 36, 40])
    assert [math.isnan(price) for price in prices] == [False, True, True]


def test_a_missing_layer_elsewhere_leaves_no_price_at_all() -> None:
    other = mobilenet_v1(0.5, 64, classes=11, pairs=6)
    assert all(map(math.isnan, Pricer(Predictor(CALIBRATED), other).prices("pw1", [8, 16])))


def integer_table(block: int = 1) -> Table:
    """The corners of the network in integers, as onnxruntime executes it where floats run in blocks of so many channels."""
    executed = replace(PLAN, graph=ExecutionRules("onnxruntime", block).executed(NETWORK.with_precision("int8")))
    found = table_of(corners_of(executed, STAIRCASES)).with_calibration(CALIBRATED.info.calibration)
    return replace(found, info=replace(found.info, block=block))


def test_int8_weights_are_counted_as_they_are() -> None:
    graph, table = NETWORK.with_precision("int8"), integer_table()
    prices = Pricer(Predictor(table), graph).prices("pw3", [32, 64])
    assert prices == pytest.approx(one_by_one(table, graph, "pw3", [32, 64])) and not any(map(math.isnan, prices))


@pytest.mark.parametrize("name", NETWORK.widths)
def test_integers_are_priced_below_the_blocks_that_floats_run_in(name: str) -> None:
    graph, table = NETWORK.with_precision("int8"), integer_table(block=16)
    asked = [8, graph.widths[name]]
    prices = Pricer(Predictor(table), graph).prices(name, asked)
    assert prices == pytest.approx(one_by_one(table, graph, name, asked)) and not any(map(math.isnan, prices))


def test_concatenations_and_flattened_images_are_followed() -> None:
    left = conv2d((1, 4, 4, 3), 16, 1)
    right = conv2d((1, 4, 4, 3), 24, 3)
    both = LayerSpec("concat", (left.output, right.output), (1, 4, 4, 40))
    flat = LayerSpec("flatten", (both.output,), (1, 640))
    nodes = (
        Node("left", left, ("image",), "left"),
        Node("right", right, ("image",), "right"),
        Node("both", both, ("left", "right")),
        Node("flat", flat, ("both",)),
    )
    graph = Graph("two", (("image", (1, 4, 4, 3)),), nodes, ("flat",))
    everything = {layer for width in (8, 16, 24) for layer in graph.at_widths({"right": width}).layers}
    table = table_of(tuple(everything)).with_calibration(replace(CALIBRATED.info.calibration, tile=8, ms_per_layout_byte=1e-5))
    widths = [8, 16, 24]
    assert Pricer(Predictor(table), graph).prices("right", widths) == pytest.approx(one_by_one(table, graph, "right", widths))


def blocked_table(block: int) -> Table:
    """The corners of the network as onnxruntime executes it in blocks of so many channels."""
    executed = replace(PLAN, graph=ExecutionRules("onnxruntime", block).executed(NETWORK))
    found = table_of(corners_of(executed, STAIRCASES)).with_calibration(Calibration(1.05, ms_per_layer=1e-3, call_ms=2e-3))
    return replace(found, info=replace(found.info, block=block))


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("name", [*NETWORK.widths][::3])
def test_widths_in_blocks_cost_what_each_is_predicted_to(block: int, name: str) -> None:
    table = blocked_table(block)
    widths = list(range(block, NETWORK.widths[name] + 1, block))
    prices = Pricer(Predictor(table), NETWORK).prices(name, widths)
    assert prices == pytest.approx(one_by_one(table, NETWORK, name, widths), nan_ok=True)
    assert not all(map(math.isnan, prices))


def test_a_width_with_which_other_operators_are_executed_is_left_to_the_rules() -> None:
    name = list(NETWORK.widths)[2]
    assert all(map(math.isnan, Pricer(Predictor(blocked_table(8)), NETWORK).prices(name, [3, 9, 10, 30])))
