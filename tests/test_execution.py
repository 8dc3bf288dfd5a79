"""The rules for what a runtime executes, held against what onnxruntime and LiteRT themselves say for the same network."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from asking import BLOCK, answer, asked
from asking_litert import operators_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netadapt.networks import network_graph
from profiler.errors import LayerError, ModelError
from profiler.formats.model_file import FORMATS
from profiler.formats.tflite.executed import read_executed
from profiler.interval import Interval
from profiler.latency.calibration import Calibration
from profiler.layers.channels import dependent_layers
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import ACTIVATIONS, LayerSpec, conv2d, fully_connected
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.plan import make_plan
from profiler.tables.predictor import Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.table import Table, TableInfo

IMAGE = (1, 8, 8, 16)
ROW = Estimate(Interval(0.5, 0.49, 0.51), 6, 100, 6)
UTC = "2026-01-01T00:00:00+00:00"


def residual(activation: str = "relu", first_activation: str = "none") -> Graph:
    """A convolution, its output added to its input's, and an activation; blocks are coupled by the addition."""
    stem = conv2d((1, 8, 8, 3), 16, 3, activation="relu")
    inner = conv2d(IMAGE, 24, 3, activation="relu")
    outer = conv2d(inner.output, 16, 3, activation=first_activation)
    nodes = [
        Node("stem", stem, ("image",), "stem"),
        Node("inner", inner, ("stem",), "inner"),
        Node("outer", outer, ("inner",), "stem"),
        Node("sum", LayerSpec("add", (IMAGE, IMAGE), IMAGE), ("outer", "stem")),
    ]
    if activation != "none":
        nodes.append(Node("after", LayerSpec(activation, (IMAGE,), IMAGE), ("sum",)))
    return Graph("residual", (("image", (1, 8, 8, 3)),), tuple(nodes), (nodes[-1].name,))


def executed(graph: Graph, runtime: str, block: int = 1) -> Graph:
    return ExecutionRules(runtime, block).executed(graph)


@cache
def narrow(name: str) -> Graph:
    """One of our networks at half its widths, for small images; tracing takes seconds."""
    return network_graph(name, resolution=32, width_multiplier=0.5)


def names(graph: Graph) -> list[str]:
    return [node.layer.op + ("+" if node.layer.adds_shortcut else "") + f" {node.layer.activation}" for node in graph.nodes]


def test_onnxruntime_adds_the_shortcut_in_the_convolution() -> None:
    assert names(executed(residual(), "onnxruntime")) == ["conv2d relu", "conv2d relu", "conv2d+ relu"]


def test_tflite_applies_the_activation_in_the_addition() -> None:
    assert names(executed(residual(), "litert")) == ["conv2d relu", "conv2d relu", "conv2d none", "add relu"]


def test_a_convolution_with_an_activation_adds_nothing() -> None:
    assert names(executed(residual("none", "relu"), "onnxruntime"))[-2:] == ["conv2d relu", "add none"]


def test_relu6_stays_behind_a_convolution_that_adds() -> None:
    assert names(executed(residual("relu6"), "onnxruntime"))[-2:] == ["conv2d+ none", "relu6 none"]


def test_a_sum_that_others_read_too_is_an_addition() -> None:
    graph = residual()
    more = Graph(graph.name, graph.inputs, graph.nodes, ("after", "outer"))
    assert names(executed(more, "onnxruntime"))[-3:] == ["conv2d none", "add none", "relu none"]


@pytest.mark.parametrize("activation", ["hard_swish", "hard_sigmoid", "sigmoid"])
def test_tflite_applies_other_activations_in_operators_of_their_own(activation: str) -> None:
    graph = residual("none", activation)
    assert names(executed(graph, "litert"))[2:] == ["conv2d none", f"{activation} none", "add none"]
    assert names(executed(graph, "unknown"))[2:] == [f"conv2d {activation}", "add none"]


def test_tflite_applies_a_relu_behind_a_convolution_of_floats_in_it() -> None:
    apart = Graph.of_layer(conv2d(IMAGE, 16, 3))
    relu = Node("relu", LayerSpec("relu", (IMAGE,), IMAGE), ("layer",))
    graph = Graph("apart", apart.inputs, (*apart.nodes, relu), ("relu",))
    assert names(executed(graph, "litert")) == ["conv2d relu"]
    assert names(executed(graph.with_precision("int8"), "litert")) == ["conv2d none", "relu none"]


def test_integers_are_added_apart_on_both() -> None:
    graph = residual().with_precision("int8")
    assert names(executed(graph, "onnxruntime"))[-3:] == ["conv2d none", "add none", "reorder_output none"]
    assert names(executed(graph, "litert"))[-2:] == ["conv2d none", "add relu"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_what_was_joined_is_not_joined_again(runtime: str) -> None:
    once = executed(residual(), runtime)
    assert executed(once, runtime) == once


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_narrowing_and_joining_can_change_places(runtime: str) -> None:
    widths = {"stem": 8, "inner": 16}
    assert executed(residual().at_widths(widths), runtime) == executed(residual(), runtime).at_widths(widths)


@pytest.mark.parametrize("activation", ["relu", "none", "relu6"])
def test_onnxruntime_runs_the_layers_that_the_rules_say(activation: str) -> None:
    graph = residual(activation)
    assert Counter(asked(graph).layers) == Counter(executed(graph, "onnxruntime", BLOCK).layers)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "fastdepth"])
@pytest.mark.parametrize("step", [pytest.param(8, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 1])
def test_the_rules_agree_with_onnxruntime_on_networks_of_random_widths(name: str, step: int) -> None:
    full = narrow(name)
    draws = random.Random(f"{name} {step}")
    graph = full.at_widths({block: step * draws.randint(1, max(1, width // step)) for block, width in full.widths.items()})
    assert Counter(asked(graph).layers) == Counter(executed(graph, "onnxruntime", BLOCK).layers)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "fastdepth"])
def test_the_rules_agree_with_litert(name: str) -> None:
    graph = executed(narrow(name), "litert")
    file = FORMATS["tflite"].write(graph)
    assert Counter(read_executed(name, file, operators_of(file)).graph.layers) == Counter(graph.layers)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "fastdepth"])
def test_an_executed_layer_that_is_left_as_it_is_executes_as_this_layer(name: str) -> None:
    full = narrow(name)
    graph = full.at_widths({block: max(1, width * 3 // 7) for block, width in full.widths.items()})
    layers = list(dict.fromkeys(executed(graph, "onnxruntime", BLOCK).layers))
    for layer in random.Random(1).sample(layers, min(30, len(layers))):
        assert asked(Graph.of_layer(layer, executed=True), as_it_is=True).layers == (layer,)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@example(12, 20, 28)
@example(13, 3, 1)
@example(16, 7, 3)
@settings(max_examples=25, deadline=None)
def test_the_rules_agree_with_onnxruntime_on_any_width_of_a_residual_network(stem: int, inner: int, channels: int) -> None:
    image = (1, 6, 6, channels)
    first = conv2d(image, stem, 3, activation="relu")
    second = conv2d(first.output, inner, 1, activation="hard_swish")
    third = conv2d(second.output, stem, 1)
    nodes = (
        Node("first", first, ("image",)),
        Node("second", second, ("first",)),
        Node("third", third, ("second",)),
        Node("sum", LayerSpec("add", (first.output, first.output), first.output), ("third", "first")),
        Node("pool", LayerSpec("global_avg_pool", (first.output,), (1, 1, 1, stem)), ("sum",)),
    )
    graph = Graph("any", (("image", image),), nodes, ("pool",))
    assert Counter(asked(graph).layers) == Counter(executed(graph, "onnxruntime", BLOCK).layers)


@pytest.mark.parametrize("name", ["mobilenet_v1", "resnet18", "fastdepth"])
def test_narrowing_and_blocking_can_change_places_for_multiples_of_four(name: str) -> None:
    full = narrow(name)
    widths = {block: max(16, width // 2 // 4 * 4) for block, width in full.widths.items()}
    narrowed = executed(full.at_widths(widths), "onnxruntime", 16)
    assert Counter(executed(full, "onnxruntime", 16).at_widths(widths).layers) == Counter(narrowed.layers)


def test_the_shortcut_follows_the_outputs() -> None:
    graph = executed(residual(), "onnxruntime")
    last = dependent_layers(graph)[-1]
    assert [form.at({"stem": 8, "inner": 24}) for form in last.axes] == [24, 8]


def test_prices_of_many_widths_count_the_shortcut() -> None:
    from test_sampling import table_of

    graph = residual()
    plan = make_plan(executed(graph, "onnxruntime"))
    layers = {layer for widths in (*plan.fit, *plan.check, {}) for layer in plan.graph.at_widths(widths).layers}
    predictor = Predictor(table_of(tuple(layers)).with_calibration(Calibration(1.1, 1e-6, 2e-6, -1e-4, 3e-8)))
    widths = [8, 16]
    expected = [predictor.explain(graph.at_widths({"stem": width})).latency_ms.value for width in widths]
    assert Pricer(predictor, graph).prices("stem", widths) == pytest.approx(expected)


def test_a_shortcut_of_another_shape_is_refused() -> None:
    layer = conv2d(IMAGE, 16, 3)
    with pytest.raises(LayerError, match="shortcut"):
        LayerSpec("conv2d", (IMAGE, (1, 4, 4, 16)), layer.output, kernel=(3, 3), padding=(1, 1, 1, 1))


def test_tflite_has_no_convolution_that_adds() -> None:
    with pytest.raises(ModelError, match="shortcut"):
        FORMATS["tflite"].write(executed(residual(), "onnxruntime"))


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_no_rules_are_borrowed_for_a_runtime_whose_own_are_not_known(runtime: str) -> None:
    assert executed(residual(), runtime) == residual()


def test_a_table_that_does_not_say_its_runtime_is_read_by_the_rules_of_tflite() -> None:
    assert executed(residual(), "unknown") == executed(residual(), "litert")


@pytest.mark.parametrize(
    ("runtime", "layer", "alike"),
    [
        ("onnxruntime", replace(conv2d(IMAGE, 24, 3), layout="nchwc8"), {"none", "relu"}),
        ("onnxruntime", conv2d(IMAGE, 24, 3), set()),
        ("onnxruntime", conv2d(IMAGE, 24, 3).with_dtype("int8"), {"none", "relu", "relu6"}),
        ("litert", conv2d(IMAGE, 24, 3), {"none", "relu", "relu6"}),
        ("litert", LayerSpec("add", (IMAGE, IMAGE), IMAGE), set()),
        ("onnxruntime-cuda", conv2d(IMAGE, 24, 3), set()),
    ],
)
def test_activations_that_are_bounds_within_a_kernel_share_an_entry(runtime: str, layer: LayerSpec, alike: set[str]) -> None:
    rules = ExecutionRules(runtime, 8)
    of = {name: rules.entry(replace(layer, activation=name)) for name in ("none", "relu", "relu6", "hard_swish")}
    assert {name for name in of if len([other for other in of.values() if other == of[name]]) > 1} == alike


def test_a_table_with_one_of_two_layers_of_equal_cost_predicts_the_other() -> None:
    graph = Graph.of_layer(conv2d(IMAGE, 24, 3, activation="none"))
    known = Table({conv2d(IMAGE, 24, 3, activation="relu6"): ROW}, TableInfo(Target(runtime="litert"), {}, TimingSettings(), UTC))
    assert Predictor(known).predict(graph).naive_ms == ROW.latency_ms.value
    assert Predictor(known).explain(Graph.of_layer(conv2d(IMAGE, 24, 3, activation="hard_swish"))).missing


def test_the_layers_of_others_are_looked_up_as_they_wrote_them() -> None:
    """Their rows are not checked against ours, so no row stands for another."""
    graph = Graph.of_layer(conv2d(IMAGE, 24, 3, activation="none"))
    device = {"imported": {"from": "a paper"}}
    theirs = Table(
        {conv2d(IMAGE, 24, 3, activation="relu6"): ROW}, TableInfo(Target(runtime="litert"), device, TimingSettings(), UTC)
    )
    assert Predictor(theirs).explain(graph).missing


@pytest.mark.parametrize(
    "activation", [name for name in ACTIVATIONS if name not in ("relu6", "hard_swish", "hard_sigmoid", "leaky_relu")]
)
def test_an_activation_between_convolutions_runs_in_the_layout_that_the_rules_say(activation: str) -> None:
    conv, act = conv2d(IMAGE, 16, 3), LayerSpec("relu" if activation == "none" else activation, (IMAGE,), IMAGE)
    nodes = (Node("first", conv, ("image",)), Node("act", act, ("first",)), Node("second", conv, ("act",)))
    graph = Graph("activated", (("image", IMAGE),), nodes, ("second",))
    assert Counter(asked(graph).layers) == Counter(executed(graph, "onnxruntime", BLOCK).layers)


@pytest.mark.parametrize("activation", ["silu", "gelu", "elu", "leaky_relu", "tanh"])
def test_litert_runs_an_activation_between_convolutions_as_one_layer(activation: str) -> None:
    conv, act = conv2d(IMAGE, 16, 3), LayerSpec(activation, (IMAGE,), IMAGE)
    nodes = (Node("first", conv, ("image",)), Node("act", act, ("first",)), Node("second", conv, ("act",)))
    file = FORMATS["tflite"].write(Graph("activated", (("image", IMAGE),), nodes, ("second",)))
    assert read_executed("activated", file, operators_of(file)).graph.layers == (conv, act, conv)


def test_the_slope_of_a_convolution_goes_with_its_activation_in_tflite() -> None:
    layer = replace(conv2d(IMAGE, 16, 3), activation="leaky_relu", slope=0.1)
    assert executed(Graph.of_layer(layer), "litert").layers == (
        conv2d(IMAGE, 16, 3), LayerSpec("leaky_relu", (IMAGE,), IMAGE, slope=0.1),
    )  # fmt: skip


def operators(graph: Graph, *, as_it_is: bool = False) -> list[str]:
    return [operator.op for operator in answer(FORMATS["onnx"].write(graph), as_it_is=as_it_is).operators]


def test_a_linear_layer_over_pixels_is_a_product_of_matrices_to_onnxruntime() -> None:
    assert operators(Graph.of_layer(fully_connected((1, 4, 5, 8), 12), executed=True), as_it_is=True) == [
        "Reshape",
        "Gemm",
        "Reshape",
    ]


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_over_the_steps_of_a_sequence_runs_alone_as_in_a_network(bias: bool) -> None:
    layer = replace(fully_connected((1, 20, 8), 12), bias=bias)
    found = operators(Graph.of_layer(layer, executed=True), as_it_is=True)
    assert found == operators(Graph.of_layer(layer)) == (["Reshape", "Gemm", "Reshape"] if bias else ["MatMul"])
