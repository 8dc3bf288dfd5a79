"""Residual additions, joined as the runtimes join them; onnxruntime's own optimised model is the witness."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest

from profiler.errors import LayerError, ModelError
from profiler.formats.model_file import FORMATS
from profiler.latency.calibration import Calibration
from profiler.layers.channels import dependent_layers
from profiler.layers.fusion import fuse_for
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d
from profiler.tables.plan import make_plan
from profiler.tables.predictor import Predictor
from profiler.tables.pricing import Pricer

IMAGE = (1, 8, 8, 16)


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


def names(graph: Graph) -> list[str]:
    return [node.layer.op + ("+" if node.layer.adds_shortcut else "") + f" {node.layer.activation}" for node in graph.nodes]


def optimised(graph: Graph, tmp_path: Path) -> list[str]:
    """Operators that onnxruntime runs, without the changes of layout."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(FORMATS["onnx"].write(graph), options, providers=["CPUExecutionProvider"])
    model = onnx.load(tmp_path / "optimised.onnx")
    return [node.op_type for node in model.graph.node if not node.op_type.startswith("Reorder")]


def test_onnxruntime_adds_the_shortcut_in_the_convolution() -> None:
    assert names(fuse_for(residual(), "onnxruntime")) == ["conv2d relu", "conv2d relu", "conv2d+ relu"]


def test_tflite_applies_the_activation_in_the_addition() -> None:
    assert names(fuse_for(residual(), "litert")) == ["conv2d relu", "conv2d relu", "conv2d none", "add relu"]


def test_a_convolution_with_an_activation_adds_nothing() -> None:
    assert names(fuse_for(residual("none", "relu"), "onnxruntime"))[-2:] == ["conv2d relu", "add none"]


def test_relu6_stays_behind_a_convolution_that_adds() -> None:
    assert names(fuse_for(residual("relu6"), "onnxruntime"))[-2:] == ["conv2d+ none", "relu6 none"]


def test_a_sum_that_others_read_too_is_an_addition() -> None:
    graph = residual()
    more = Graph(graph.name, graph.inputs, graph.nodes, ("after", "outer"))
    assert names(fuse_for(more, "onnxruntime"))[-3:] == ["conv2d none", "add none", "relu none"]


def test_integers_are_added_apart_on_both() -> None:
    graph = residual().with_precision("int8")
    assert names(fuse_for(graph, "onnxruntime"))[-2:] == names(fuse_for(graph, "litert"))[-2:] == ["conv2d none", "add relu"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_what_was_joined_is_not_joined_again(runtime: str) -> None:
    once = fuse_for(residual(), runtime)
    assert fuse_for(once, runtime) == once


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_narrowing_and_joining_can_change_places(runtime: str) -> None:
    widths = {"stem": 8, "inner": 16}
    assert fuse_for(residual().at_widths(widths), runtime) == fuse_for(residual(), runtime).at_widths(widths)


@pytest.mark.parametrize("activation", ["relu", "none"])
def test_onnxruntime_runs_one_operator_for_each_layer(activation: str, tmp_path: Path) -> None:
    graph = fuse_for(residual(activation), "onnxruntime")
    assert optimised(graph, tmp_path) == ["Conv"] * 3 == [node.layer.op[:4].capitalize() for node in graph.nodes]


def test_a_lone_convolution_that_adds_is_one_operator_too(tmp_path: Path) -> None:
    layer = fuse_for(residual(), "onnxruntime").nodes[-1].layer
    assert optimised(Graph.of_layer(layer), tmp_path) == ["Conv", "Conv"]  # the first only brings the shortcut into the layout


def test_the_shortcut_follows_the_outputs() -> None:
    graph = fuse_for(residual(), "onnxruntime")
    last = dependent_layers(graph)[-1]
    assert [form.at({"stem": 8, "inner": 24}) for form in last.axes] == [24, 8]


def test_prices_of_many_widths_count_the_shortcut() -> None:
    from test_sampling import table_of

    graph = residual()
    plan = make_plan(fuse_for(graph, "onnxruntime"))
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
        FORMATS["tflite"].write(fuse_for(residual(), "onnxruntime"))


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_no_rules_are_borrowed_for_a_runtime_whose_own_are_not_known(runtime: str) -> None:
    assert fuse_for(residual(), runtime) == residual()


def test_a_table_that_does_not_say_its_runtime_is_read_by_the_rules_of_tflite() -> None:
    assert fuse_for(residual(), "unknown") == fuse_for(residual(), "litert")
