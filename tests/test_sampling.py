from __future__ import annotations

from dataclasses import replace

import pytest
from graphs import mobilenet_v1
from test_channels import grouped

from profiler.interval import Interval
from profiler.latency.staircase import Staircase, Staircases, widths_of
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.families import panels
from profiler.tables.plan import make_plan
from profiler.tables.predictor import Predictor
from profiler.tables.sampling import asked_for, corners_of, interpolation_percent, most_telling, staircases_from, sweeps_of
from profiler.tables.table import Table, TableInfo

NETWORK = mobilenet_v1(0.5, 64, classes=10, pairs=6)
PLAN = make_plan(NETWORK)
STAIRCASES: Staircases = {("conv2d 1x1", "out"): Staircase(32, False), ("depthwise_conv2d 3x3", "in"): Staircase(16, False)}


def device_ms(layer: LayerSpec) -> float:
    return 0.001 * sum(widths_of(layer))


def table_of(layers: tuple[LayerSpec, ...]) -> Table:
    rows = {layer: Estimate(Interval(ms := device_ms(layer), 0.99 * ms, 1.01 * ms), 6, 60, 6) for layer in layers}
    info = TableInfo(Target(), {}, TimingSettings(), "2026-01-01T00:00:00+00:00", staircases=STAIRCASES)
    return Table(rows, info)


def test_a_sweep_changes_one_axis_only() -> None:
    for (_, axis), sweeps in sweeps_of(PLAN).items():
        place = 0 if axis == "in" else 1
        for sweep in sweeps:
            swept = [widths_of(layer)[place] for layer in sweep]
            assert swept == sorted(set(swept))
            assert len({widths_of(layer)[1 - place] for layer in sweep if len(widths_of(layer)) > 1}) <= 1


def test_every_kind_with_weights_and_widths_to_choose_is_swept() -> None:
    assert {("conv2d 1x1", "in"), ("conv2d 1x1", "out"), ("depthwise_conv2d 3x3", "in")} <= set(sweeps_of(PLAN))


def test_no_kind_is_swept_more_than_three_times() -> None:
    assert max(map(len, sweeps_of(make_plan(mobilenet_v1())).values())) <= 3


def test_a_network_without_choices_needs_no_sweeps() -> None:
    fixed = Graph(NETWORK.name, NETWORK.inputs, tuple(type(n)(n.name, n.layer, n.inputs) for n in NETWORK.nodes), NETWORK.outputs)
    assert sweeps_of(make_plan(fixed)) == {}
    assert set(corners_of(make_plan(fixed), {})) == set(fixed.layers)


def test_sweeps_show_the_staircase_of_their_kind() -> None:
    sweeps = sweeps_of(PLAN)
    latency_ms = {layer: 1.0 + -(-layer.out_channels // 32) for sets in sweeps.values() for sweep in sets for layer in sweep}
    assert staircases_from(sweeps, latency_ms, 8)["conv2d 1x1", "out"] == Staircase(32, True)


def test_the_corners_hold_the_network_itself() -> None:
    assert set(NETWORK.layers) <= set(corners_of(PLAN, STAIRCASES))


def test_between_its_corners_every_width_can_be_told() -> None:
    predictor = Predictor(table_of(corners_of(PLAN, STAIRCASES)))
    for network in (*asked_for(PLAN), NETWORK.at_widths(dict.fromkeys(NETWORK.widths, 8))):
        assert not predictor.explain(network).missing


@pytest.mark.parametrize("step", [16, 64])
def test_the_narrowest_network_can_be_told_whatever_the_steps(step: int) -> None:
    steps = dict.fromkeys([("conv2d 1x1", "out"), ("depthwise_conv2d 3x3", "in"), ("fully_connected 1x1", "in")], Staircase(step))
    table = replace(table_of(corners_of(PLAN, steps)), info=replace(table_of(()).info, staircases=steps))
    assert not Predictor(table).explain(NETWORK.at_widths(dict.fromkeys(NETWORK.widths, 8))).missing


@pytest.mark.parametrize("groups", [2, 3, 4, 16])
def test_between_its_corners_every_width_of_a_grouped_convolution_can_be_told(groups: int) -> None:
    plan = make_plan(grouped(groups))
    predictor = Predictor(table_of(corners_of(plan, STAIRCASES)))
    assert asked_for(plan)
    for network in asked_for(plan):
        assert not predictor.explain(network).missing


@pytest.mark.parametrize("block", [4, 8, 16])
def test_between_its_corners_every_width_of_at_least_a_block_can_be_told(block: int) -> None:
    """With fewer channels than a block, a convolution reads another layout."""
    rules = ExecutionRules("onnxruntime", block)
    executed = replace(PLAN, graph=rules.entries(NETWORK))
    predictor = Predictor(table_of(corners_of(executed, STAIRCASES)))
    for name, full in NETWORK.widths.items():
        for width in range(max(block, 8), full, 8):
            layers = rules.entries(NETWORK.at_widths({name: width})).layers
            assert [layer.key for layer in layers if predictor.lookup(layer) is None] == [], f"{name} of {width}"


def test_grouped_convolutions_are_swept_at_widths_that_their_groups_divide() -> None:
    sweeps = sweeps_of(make_plan(grouped(4)))
    assert [layer.in_channels for layer in sweeps["conv2d 3x3 g4", "in"][0]] == [8, 16, 24, 32, 40, 48]


def test_a_family_of_grouped_convolutions_is_drawn_with_its_groups() -> None:
    drawn = panels(table_of(corners_of(make_plan(grouped(3)), STAIRCASES)))
    assert ["3 groups" in panel.detail for panel in drawn if panel.title == "conv2d 3×3"] == [True]


def test_layers_of_every_phase_are_among_the_corners() -> None:
    size = NETWORK.nodes[-3].layer.output[1]
    layers = [layer for layer in corners_of(PLAN, STAIRCASES) if layer.op == "conv2d" and layer.output[1] == size]
    widths = {layer.out_channels for layer in layers}
    assert {width % 32 for width in widths} == {0, 8, 16, 24}


def test_what_nothing_is_known_of_is_asked_for_first() -> None:
    corners = corners_of(PLAN, STAIRCASES)
    without = tuple(layer for layer in corners if layer.op != "fully_connected")
    telling = most_telling(Predictor(table_of(without)), asked_for(PLAN), 1)
    assert [layer.op for layer in telling] == ["fully_connected"]


def test_measuring_what_tells_most_leaves_less_uncertain() -> None:
    corners, asked = corners_of(PLAN, STAIRCASES), asked_for(PLAN)
    before = Predictor(table_of(corners))
    after = Predictor(table_of((*corners, *most_telling(before, asked, 30))))
    assert interpolation_percent(after, asked) < interpolation_percent(before, asked)


def test_no_two_layers_of_one_cell_are_asked_for_at_once() -> None:
    predictor = Predictor(table_of(corners_of(PLAN, STAIRCASES)))
    cells = [predictor.grid.cell(layer) for layer in most_telling(predictor, asked_for(PLAN), 20)]
    assert len(cells) == len(set(cells))


def test_a_table_that_was_measured_everywhere_asks_for_nothing() -> None:
    asked = asked_for(PLAN)
    assert most_telling(Predictor(table_of(tuple(layer for network in asked for layer in network.layers))), asked, 20) == []


@pytest.mark.parametrize("count", [-3, 0, 1, 5])
def test_no_more_layers_are_asked_for_than_wanted(count: int) -> None:
    assert len(most_telling(Predictor(table_of(corners_of(PLAN, STAIRCASES))), asked_for(PLAN), count)) == max(0, count)
