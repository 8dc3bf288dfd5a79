"""What write_tflite makes is run by LiteRT itself, and compared with a few lines of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from profiler.errors import ModelError
from profiler.formats.model_file import FORMATS
from profiler.formats.tflite.schema import same_padding
from profiler.formats.tflite.writer import write_tflite
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import ACTIVATIONS, LayerSpec, OpaqueSubgraph, conv2d, depthwise_conv2d, fully_connected

Floats = NDArray[np.float32]

IMAGE = (1, 9, 11, 6)
LAYERS = {
    "conv2d": conv2d(IMAGE, 8, 3),
    "pointwise": conv2d(IMAGE, 8, 1),
    "one output channel": conv2d(IMAGE, 1, 3),
    "strided": conv2d((1, 12, 12, 6), 8, 3, stride=2),
    "grouped": conv2d(IMAGE, 8, 3, groups=2),
    "dilated": conv2d(IMAGE, 8, 3, dilation=2),
    "without bias": conv2d(IMAGE, 8, 3, bias=False),
    "batch of two": conv2d((2, 9, 11, 6), 8, 3),
    "depthwise": depthwise_conv2d(IMAGE, 3),
    "depthwise, twice the channels": LayerSpec(
        "depthwise_conv2d", (IMAGE,), (1, 9, 11, 12), kernel=(3, 3), padding=(1,) * 4, groups=6
    ),
    "transposed": LayerSpec("conv_transpose2d", (IMAGE,), (1, 18, 22, 4), kernel=(2, 2), stride=(2, 2)),
    "fully connected": fully_connected((1, 12), 40),
    "fully connected, three dimensions": fully_connected((1, 7, 12), 40, bias=False),
    "avg_pool2d": LayerSpec("avg_pool2d", (IMAGE,), (1, 4, 5, 6), kernel=(2, 2), stride=(2, 2)),
    "avg_pool2d, padded": LayerSpec("avg_pool2d", (IMAGE,), (1, 5, 6, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 1)),
    "max_pool2d": LayerSpec("max_pool2d", (IMAGE,), (1, 9, 11, 6), kernel=(3, 3), padding=(1,) * 4),
    "max_pool2d, padded": LayerSpec("max_pool2d", (IMAGE,), (1, 5, 6, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 1)),
    "global_avg_pool": LayerSpec("global_avg_pool", (IMAGE,), (1, 6)),
    "global_avg_pool, kept": LayerSpec("global_avg_pool", (IMAGE,), (1, 1, 1, 6)),
    "global_max_pool": LayerSpec("global_max_pool", (IMAGE,), (1, 6)),
    "add": LayerSpec("add", (IMAGE, IMAGE), IMAGE),
    "mul, broadcast": LayerSpec("mul", (IMAGE, (1, 1, 1, 6)), IMAGE),
    "concat": LayerSpec("concat", (IMAGE, (1, 9, 11, 2)), (1, 9, 11, 8)),
    "flatten": LayerSpec("flatten", (IMAGE,), (1, 9 * 11 * 6)),
    "flatten, to one pixel": LayerSpec("flatten", ((1, 6),), (1, 1, 1, 6)),
    "upsample_nearest": LayerSpec("upsample_nearest", (IMAGE,), (1, 18, 22, 6)),
    "upsample_bilinear": LayerSpec("upsample_bilinear", (IMAGE,), (1, 18, 22, 6)),
    "softmax": LayerSpec("softmax", ((1, 10),), (1, 10)),
    "relu": LayerSpec("relu", (IMAGE,), IMAGE),
    "relu6": LayerSpec("relu6", (IMAGE,), IMAGE),
    "hard_swish": LayerSpec("hard_swish", (IMAGE,), IMAGE),
    "hard_sigmoid": LayerSpec("hard_sigmoid", (IMAGE,), IMAGE),
    "sigmoid": LayerSpec("sigmoid", (IMAGE,), IMAGE),
}


class Model:
    """A file in LiteRT, with default settings."""

    def __init__(self, data: bytes) -> None:
        self.interpreter = Interpreter(model_content=data, num_threads=1)
        self.interpreter.allocate_tensors()

    def __call__(self, *inputs: Any) -> Floats:
        for detail, values in zip(self.interpreter.get_input_details(), inputs, strict=True):
            self.interpreter.set_tensor(detail["index"], values)
        self.interpreter.invoke()
        output: Floats = self.interpreter.get_tensor(self.interpreter.get_output_details()[0]["index"])
        return output

    def constant(self, name: str) -> Floats:
        (index,) = [detail["index"] for detail in self.interpreter.get_tensor_details() if detail["name"] == name]
        values: Floats = self.interpreter.get_tensor(index)
        return values

    @property
    def operators(self) -> list[str]:
        names = [detail["op_name"] for detail in self.interpreter._get_ops_details()]
        return [name for name in names if name != "DELEGATE"]


def model_of(layer: LayerSpec) -> Model:
    return Model(write_tflite(Graph.of_layer(layer)))


def noise(*shape: int) -> Floats:
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def with_activation(layer: LayerSpec, activation: str) -> LayerSpec:
    return LayerSpec.from_dict({**layer.to_dict(), "activation": activation})


def convolved(layer: LayerSpec, x: Floats, weights: Floats, bias: Floats) -> Floats:
    """Weights (out, kh, kw, in / groups)."""
    top, left, bottom, right = layer.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    result = np.zeros(layer.output, np.float32) + bias
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    _, height, width, _ = layer.output
    for group in range(layer.groups):
        ins, outs = slice(group * per_in, (group + 1) * per_in), slice(group * per_out, (group + 1) * per_out)
        for i in range(layer.kernel[0]):
            for j in range(layer.kernel[1]):
                rows = slice(i * layer.dilation[0], i * layer.dilation[0] + (height - 1) * layer.stride[0] + 1, layer.stride[0])
                columns = slice(j * layer.dilation[1], j * layer.dilation[1] + (width - 1) * layer.stride[1] + 1, layer.stride[1])
                result[..., outs] += x[:, rows, columns, ins] @ weights[outs, i, j].T
    return result


def spread(layer: LayerSpec, x: Floats, weights: Floats, bias: Floats) -> Floats:
    """The transposed convolution: every input pixel leaves a kernel on the output, which is then cropped."""
    (n, height, width, _), (kh, kw), (sh, sw) = layer.inputs[0], layer.kernel, layer.stride
    (top, left), (_, made_height, made_width, channels) = layer.padding[:2], layer.output
    full = np.zeros((n, max(height * sh + kh, top + made_height), max(width * sw + kw, left + made_width), channels), np.float32)
    for i in range(kh):
        for j in range(kw):
            full[:, i : i + height * sh : sh, j : j + width * sw : sw] += x @ weights[:, i, j].T
    return full[:, top : top + made_height, left : left + made_width] + bias


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_litert_runs_every_kind_of_layer_with_every_activation(layer: LayerSpec, activation: str) -> None:
    output = model_of(with_activation(layer, activation))(*(noise(*shape) for shape in layer.inputs))
    assert output.shape == layer.output
    assert np.isfinite(output).all() and output.any()


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS["conv2d"], LAYERS["one output channel"], LAYERS["strided"], LAYERS["grouped"], LAYERS["dilated"],
        LAYERS["without bias"], LAYERS["batch of two"],
        LayerSpec("conv2d", ((1, 9, 11, 6),), (1, 5, 4, 8), kernel=(3, 5), stride=(2, 3), padding=(2, 1, 1, 4)),
        LayerSpec("conv2d", ((1, 8, 8, 2),), (1, 4, 4, 3), kernel=(3, 3), stride=(2, 2), padding=(0, 0, 1, 1)),
    ],
    ids=lambda layer: layer.key,
)  # fmt: skip
def test_a_convolution_computes_what_its_padding_says(layer: LayerSpec) -> None:
    model, x = model_of(layer), noise(*layer.inputs[0])
    expected = convolved(layer, x, model.constant("layer/weights"), model.constant("layer/bias"))
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_convolution_computes_what_its_padding_says(stride: int) -> None:
    layer = depthwise_conv2d((1, 12, 12, 6), 3, stride=stride)
    model, x = model_of(layer), noise(*layer.inputs[0])
    weights = np.moveaxis(model.constant("layer/weights"), 3, 0)  # (out, kh, kw, 1)
    expected = convolved(layer, x, np.ascontiguousarray(weights[:, 0, ..., None]), model.constant("layer/bias"))
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"),
    [(2, 2, 0, 0), (3, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0), (5, 2, 2, 1), (3, 1, 1, 0), (3, 2, 0, 1), (2, 3, 0, 2)],
)
def test_a_transposed_convolution_is_cropped_as_its_padding_says(kernel: int, stride: int, padding: int, extra: int) -> None:
    height, width = ((size - 1) * stride - 2 * padding + kernel + extra for size in (5, 7))
    layer = LayerSpec(
        "conv_transpose2d", ((1, 5, 7, 3),), (1, height, width, 4), kernel=(kernel, kernel), stride=(stride, stride),
        padding=(padding,) * 4,
    )  # fmt: skip
    model, x = model_of(layer), noise(1, 5, 7, 3)
    expected = spread(layer, x, model.constant("layer/weights"), model.constant("layer/bias"))
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_a_padded_max_pool_never_picks_the_padding() -> None:
    output = model_of(LAYERS["max_pool2d, padded"])(np.full(IMAGE, -3, np.float32))
    np.testing.assert_array_equal(output, -3)


def test_a_padded_average_pool_counts_the_padding() -> None:
    output = model_of(LAYERS["avg_pool2d, padded"])(np.ones(IMAGE, np.float32))
    assert output[0, 0, 0, 0] == pytest.approx(4 / 9)


def test_hard_sigmoid_has_the_values_of_its_definition() -> None:
    x = np.linspace(-4, 4, 9, dtype=np.float32)[None]
    np.testing.assert_allclose(model_of(LayerSpec("hard_sigmoid", ((1, 9),), (1, 9)))(x), np.clip(x + 3, 0, 6) / 6, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "operators"),
    [
        (conv2d((1, 12, 12, 6), 8, 3, activation="relu6"), ["CONV_2D"]),
        (conv2d((1, 12, 12, 6), 8, 3, activation="hard_swish"), ["CONV_2D", "HARD_SWISH"]),
        (conv2d((1, 12, 12, 6), 8, 3, stride=2), ["PAD", "CONV_2D"]),
        (LAYERS["max_pool2d, padded"], ["PADV2", "MAX_POOL_2D"]),
        (with_activation(LAYERS["concat"], "relu"), ["CONCATENATION", "RELU"]),
        (LAYERS["hard_sigmoid"], ["ADD", "MUL"]),
    ],
    ids=lambda value: value.key if isinstance(value, LayerSpec) else "",
)
def test_the_operators_are_those_a_converter_would_choose(layer: LayerSpec, operators: list[str]) -> None:
    assert model_of(layer).operators == operators


def test_a_residual_network_runs_as_one_model() -> None:
    stem, body = conv2d((1, 8, 8, 3), 4, 3, activation="relu"), conv2d((1, 8, 8, 4), 4, 3)
    add, pool = LayerSpec("add", ((1, 8, 8, 4),) * 2, (1, 8, 8, 4)), LayerSpec("global_avg_pool", ((1, 8, 8, 4),), (1, 4))
    nodes = (
        Node("stem", stem, ("x",)),
        Node("body", body, ("stem",)),
        Node("sum", add, ("stem", "body")),
        Node("gap", pool, ("sum",)),
    )
    data = write_tflite(Graph("residual", (("x", (1, 8, 8, 3)),), nodes, ("gap", "stem")))
    signature = Model(data).interpreter.get_signature_runner("serving_default")
    outputs = signature(x=noise(1, 8, 8, 3))
    assert {name: values.shape for name, values in outputs.items()} == {"gap": (1, 4), "stem": (1, 8, 8, 4)}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    graph = Graph.of_layer(conv2d(IMAGE, 8, 3))
    assert write_tflite(graph, 1) == write_tflite(graph, 1) != write_tflite(graph, 2)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (LayerSpec("conv2d", (IMAGE,), (1, 9, 11, 4), dtype="float16"), "cannot be written yet"),
        (LayerSpec("LSTM", (IMAGE,), IMAGE, opaque=OpaqueSubgraph("0" * 64, 0, "tflite")), "extracted from a file"),
        (LayerSpec("conv_transpose2d", (IMAGE,), (1, 9, 11, 6), groups=2), "groups"),
        (LayerSpec("avg_pool2d", (IMAGE,), (1, 7, 9, 6), kernel=(2, 2), dilation=(2, 2)), "dilation"),
        (LayerSpec("add", (IMAGE,) * 3, IMAGE), "supports only two"),
    ],
    ids=lambda value: value.key if isinstance(value, LayerSpec) else "",
)
def test_what_tflite_cannot_hold_is_told_in_one_sentence(layer: LayerSpec, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        write_tflite(Graph.of_layer(layer))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((5, 5), 3, 1, (1, 1, 1, 1)), ((6, 6), 3, 2, (0, 0, 1, 1)), ((7, 6), 3, 2, (1, 0, 1, 1)), ((6, 6), 1, 2, (0, 0, 0, 0))],
)
def test_same_padding_puts_the_odd_pixel_at_the_bottom_and_right(
    size: tuple[int, int], kernel: int, stride: int, padding: tuple[int, int, int, int]
) -> None:
    assert same_padding(size, (kernel, kernel), (stride, stride)) == padding


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_network_without_layers_can_be_written(name: str) -> None:
    assert FORMATS[name].write(Graph("nothing", (("images", (1, 4)),), (), ("images",)))
