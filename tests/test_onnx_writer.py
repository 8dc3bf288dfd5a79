from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import mobilenet_v1
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import ModelError
from profiler.formats.onnx.emitter import OPSET
from profiler.formats.onnx.tensors import in_file
from profiler.formats.onnx.writer import IR_VERSION, write_onnx
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import (
    ACTIVATIONS,
    FILE_OPS,
    UNARY_OPS,
    LayerSpec,
    OpaqueSubgraph,
    conv2d,
    depthwise_conv2d,
    fully_connected,
)

IMAGE = (1, 8, 6, 4)
LAYERS = {
    "conv2d": conv2d(IMAGE, 8, 3, stride=2, groups=2),
    "depthwise_conv2d": depthwise_conv2d(IMAGE, 5),
    "conv_transpose2d": LayerSpec(
        "conv_transpose2d", (IMAGE,), (1, 16, 12, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), groups=2
    ),
    "fully_connected": fully_connected((1, 12), 5),
    "avg_pool2d": LayerSpec("avg_pool2d", (IMAGE,), (1, 4, 3, 4), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
    "max_pool2d": LayerSpec("max_pool2d", (IMAGE,), (1, 4, 3, 4), kernel=(2, 2), stride=(2, 2)),
    "global_avg_pool": LayerSpec("global_avg_pool", (IMAGE,), (1, 1, 1, 4)),
    "global_max_pool": LayerSpec("global_max_pool", (IMAGE,), (1, 1, 1, 4)),
    "upsample_nearest": LayerSpec("upsample_nearest", (IMAGE,), (1, 16, 12, 4)),
    "upsample_bilinear": LayerSpec("upsample_bilinear", (IMAGE,), (1, 11, 7, 4)),
    "add": LayerSpec("add", (IMAGE, IMAGE), IMAGE),
    "mul": LayerSpec("mul", (IMAGE, (1, 1, 1, 4)), IMAGE),
    "concat": LayerSpec("concat", (IMAGE, (1, 8, 6, 2)), (1, 8, 6, 6)),
    "flatten": LayerSpec("flatten", (IMAGE,), (1, 192)),
    **{op: LayerSpec(op, (IMAGE,), IMAGE) for op in UNARY_OPS},
}
OTHER_SHAPES = (
    LayerSpec("global_avg_pool", (IMAGE,), (1, 4)),
    LayerSpec("global_max_pool", (IMAGE,), (1, 4)),
    LayerSpec("conv2d", (IMAGE,), (1, 3, 6, 2), kernel=(3, 1), stride=(3, 1), padding=(0, 0, 1, 0), bias=False),
    LayerSpec("depthwise_conv2d", (IMAGE,), (1, 8, 6, 8), groups=4),
    LayerSpec("fully_connected", ((2, 3, 4),), (2, 3, 5)),
    LayerSpec("fully_connected", ((2, 3, 4),), (2, 3, 5), bias=False),
    LayerSpec("fully_connected", (IMAGE,), (1, 8, 6, 5)),
    LayerSpec("concat", ((2, 3), (2, 4), (2, 5)), (2, 12)),
    LayerSpec("flatten", ((2, 7),), (2, 1, 1, 7)),
    LayerSpec("softmax", ((2, 7),), (2, 7)),
    LayerSpec("softmax", ((2, 3, 7),), (2, 3, 7)),
    LayerSpec("add", ((2, 7), (2, 7)), (2, 7), activation="relu"),
)


def run(data: bytes, largest: float = 1.0) -> list[np.ndarray]:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    values: list[np.ndarray] = session.run(
        None, {value.name: rng.uniform(-largest, largest, value.shape).astype(np.float32) for value in session.get_inputs()}
    )
    return values


def assert_runs(layer: LayerSpec) -> None:
    data = write_onnx(Graph.of_layer(layer))
    onnx.checker.check_model(data, full_check=True)
    (output,) = run(data)
    assert output.shape == in_file(layer.output)
    assert np.isfinite(output).all()


def test_the_examples_cover_every_kind_of_layer() -> None:
    assert set(LAYERS) == set(FILE_OPS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("op", FILE_OPS)
def test_every_layer_with_every_activation_runs(op: str, activation: str) -> None:
    layer = LAYERS[op]
    assert_runs(LayerSpec(**{name: getattr(layer, name) for name in layer.__slots__} | {"activation": activation}))


@pytest.mark.parametrize("layer", OTHER_SHAPES, ids=lambda layer: layer.key)
def test_layers_of_other_ranks_run(layer: LayerSpec) -> None:
    assert_runs(layer)


@given(
    size=st.integers(1, 9), channels=st.integers(1, 9), out=st.integers(1, 9), kernel=st.integers(1, 5), stride=st.integers(1, 3)
)
@settings(max_examples=30, deadline=None)
def test_any_convolution_runs(size: int, channels: int, out: int, kernel: int, stride: int) -> None:
    assert_runs(conv2d((1, size, size, channels), out, kernel, stride=stride, padding=kernel // 2, activation="relu"))


def test_relu6_stops_at_six() -> None:
    (output,) = run(write_onnx(Graph.of_layer(conv2d(IMAGE, 64, 1, activation="relu6"))), largest=100.0)
    assert (output.min(), output.max()) == (0, 6)


def test_hard_sigmoid_has_the_slope_of_pytorch() -> None:
    (output,) = run(write_onnx(Graph.of_layer(LayerSpec("hard_sigmoid", ((1, 3),), (1, 3)))))
    inputs = np.random.default_rng(1).uniform(-1, 1, (1, 3))
    np.testing.assert_allclose(output, np.clip(inputs / 6 + 0.5, 0, 1), atol=1e-6)


def test_weights_keep_the_scale_of_the_signal_through_a_deep_network() -> None:
    shape, nodes = (1, 6, 6, 32), []
    for index in range(30):
        source = f"conv{index - 1}" if index else "image"
        nodes.append(Node(f"conv{index}", conv2d(shape, 32, 3, activation="relu"), (source,)))
    (output,) = run(write_onnx(Graph("deep", (("image", shape),), tuple(nodes), ("conv29",))))
    assert 1e-4 < output.std() < 1e4


def test_a_whole_mobilenet_runs_and_is_valid() -> None:
    data = write_onnx(mobilenet_v1(0.25, 32, classes=10))
    onnx.checker.check_model(data, full_check=True)
    assert run(data)[0].shape == (1, 10)


def test_a_network_may_branch_and_join_again() -> None:
    first = conv2d(IMAGE, 4, 3, activation="hard_swish")
    scale = conv2d((1, 1, 1, 4), 4, 1, activation="hard_sigmoid")
    nodes = (
        Node("a", first, ("x",)),
        Node("pool", LAYERS["global_avg_pool"], ("a",)),
        Node("gate", scale, ("pool",)),
        Node("scaled", LAYERS["mul"], ("a", "gate")),
        Node("sum", LAYERS["add"], ("scaled", "x")),
    )
    graph = Graph("branches", (("x", IMAGE),), nodes, ("sum", "gate"))
    assert [output.shape for output in run(write_onnx(graph))] == [(1, 4, 8, 6), (1, 4, 1, 1)]


def test_the_same_seed_gives_the_same_bytes() -> None:
    graph = mobilenet_v1(0.25, 32, pairs=2)
    assert write_onnx(graph, seed=3) == write_onnx(graph, seed=3)


def test_another_seed_gives_other_weights() -> None:
    graph = Graph.of_layer(LAYERS["conv2d"])
    assert write_onnx(graph, seed=3) != write_onnx(graph, seed=4)


def test_weights_are_called_after_their_layer() -> None:
    model = onnx.load_from_string(write_onnx(mobilenet_v1(0.25, 32, pairs=1)))
    names = [weight.name for weight in model.graph.initializer if not weight.name.startswith("relu6")]
    assert names == [f"{layer}.{kind}" for layer in ("conv0", "dw1", "pw1", "classifier") for kind in ("weight", "bias")]


def test_inputs_keep_the_names_of_the_graph() -> None:
    model = onnx.load_from_string(write_onnx(mobilenet_v1(0.25, 32, pairs=1)))
    assert [value.name for value in model.graph.input] == ["image"]


def test_the_file_is_of_a_version_that_old_runtimes_read() -> None:
    model = onnx.load_from_string(write_onnx(Graph.of_layer(LAYERS["conv2d"])))
    assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET) == (8, 17)


def test_a_cut_out_layer_cannot_be_written() -> None:
    layer = LayerSpec("LSTM", ((1, 3),), (1, 3), opaque=OpaqueSubgraph("00", 4, "onnx"))
    with pytest.raises(ModelError, match="extracted from a file"):
        write_onnx(Graph.of_layer(layer))


def test_layers_in_half_precision_cannot_be_written_yet() -> None:
    with pytest.raises(ModelError, match="cannot be written yet"):
        write_onnx(Graph.of_layer(LayerSpec("relu", (IMAGE,), IMAGE, dtype="float16")))


def test_dilated_average_pooling_is_refused() -> None:
    layer = LayerSpec("avg_pool2d", (IMAGE,), (1, 6, 4, 4), kernel=(2, 2), dilation=(2, 2))
    with pytest.raises(ModelError, match="dilation"):
        write_onnx(Graph.of_layer(layer))


def test_adding_tensors_of_different_ranks_is_refused() -> None:
    layer = LayerSpec("add", (IMAGE, (1, 4)), IMAGE)
    with pytest.raises(ModelError, match="same rank"):
        write_onnx(Graph.of_layer(layer))
