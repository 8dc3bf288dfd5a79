"""Int8 layers: what both runtimes make of the files is asked of the runtimes themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import test_onnx_writer
import test_tflite_writer
from ai_edge_litert.interpreter import Interpreter
from graphs import mobilenet_v1
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from sessions import a_session

from device_agents.local import LocalAgent
from profiler.errors import LayerError, ModelError
from profiler.formats.model_file import FORMATS
from profiler.formats.onnx.writer import write_onnx
from profiler.formats.tflite.schema import Contents, load
from profiler.formats.tflite.writer import write_tflite
from profiler.interval import Interval
from profiler.latency.interpolation import Grid
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import ACTIVATIONS, FILE_OPS, LayerSpec, OpaqueSubgraph, conv2d, depthwise_conv2d, fully_connected
from profiler.measure.estimate import Estimate
from profiler.protocol.events import Measurement
from profiler.protocol.settings import TimingSettings
from profiler.runtimes import RUNTIMES

Integers = np.ndarray[Any, Any]

IMAGE = (1, 12, 12, 16)
NETWORK = mobilenet_v1(0.25, 32, classes=10).with_precision("int8")
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}


def alone(layer: LayerSpec) -> Graph:
    return Graph.of_layer(layer).with_precision("int8")


def residual() -> Graph:
    """A ReLU6 convolution, a linear one, their sum and a concatenation of unlike things."""
    first, second = conv2d(IMAGE, 16, 3, activation="relu6"), conv2d(IMAGE, 16, 1, activation="sigmoid")
    nodes = (
        Node("a", first, ("x",)),
        Node("b", second, ("a",)),
        Node("sum", LayerSpec("add", (IMAGE, IMAGE), IMAGE), ("a", "b")),
        Node("both", LayerSpec("concat", (IMAGE, IMAGE), (1, 12, 12, 32)), ("sum", "b")),
    )
    return Graph("residual", (("x", IMAGE),), nodes, ("both",)).with_precision("int8")


# layers and graphs


def test_a_network_in_another_precision_differs_in_nothing_else() -> None:
    assert {layer.dtype for layer in NETWORK.layers} == {"int8"}
    assert NETWORK.with_precision("float32") == mobilenet_v1(0.25, 32, classes=10)


def test_a_cut_out_keeps_its_own_precision() -> None:
    layer = LayerSpec("LSTM", ((1, 3),), (1, 3), opaque=OpaqueSubgraph("00", 4, "onnx"))
    with pytest.raises(LayerError, match="extracted part of a float32 file"):
        Graph.of_layer(layer).with_precision("int8")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(LayerError, match="unknown data type 'int7'"):
        NETWORK.with_precision("int7")


def test_the_weights_of_an_int8_layer_are_bytes_and_its_biases_int32() -> None:
    layer = conv2d(IMAGE, 8, 3).with_dtype("int8")
    assert layer.weight_bytes == 8 * 16 * 9 + 8 * 4
    assert replace(layer, bias=False).weight_bytes == 8 * 16 * 9


def test_int8_layers_are_interpolated_between_int8_layers() -> None:
    layers = {width: depthwise_conv2d((1, 14, 14, width), 3) for width in (8, 16, 32)}
    float_rows = {layer: Estimate(Interval(1.0, 0.99, 1.01), 6, 120, 6) for layer in layers.values()}
    rows = {layer.with_dtype("int8"): Estimate(Interval(0.01 * width, 0.0, 1.0), 6, 120, 6) for width, layer in layers.items()}
    wanted = depthwise_conv2d((1, 14, 14, 24), 3).with_dtype("int8")
    found = Grid(float_rows | rows, {}).interpolate(wanted)
    assert found is not None and found.estimate.latency_ms.value == pytest.approx(0.24)
    assert Grid(float_rows, {}).interpolate(wanted) is None


@pytest.mark.parametrize("write", [write_onnx, write_tflite])
def test_a_network_of_two_precisions_is_refused(write: Any) -> None:
    nodes = (Node("a", conv2d(IMAGE, 16, 3), ("x",)), Node("b", conv2d(IMAGE, 16, 3).with_dtype("int8"), ("a",)))
    with pytest.raises(ModelError, match="in a network of float32"):
        write(Graph("mixed", (("x", IMAGE),), nodes, ("b",)))


@pytest.mark.parametrize("write", [write_onnx, write_tflite])
def test_the_same_seed_gives_the_same_bytes(write: Any) -> None:
    assert write(residual(), 1) == write(residual(), 1) != write(residual(), 2)


# onnxruntime


def optimised(data: bytes, folder: Path) -> onnx.ModelProto:
    """What onnxruntime runs, all its optimisations made."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def operators(data: bytes, folder: Path) -> list[str]:
    return [node.op_type for node in optimised(data, folder).graph.node]


def run_onnx(data: bytes, optimise: bool = True) -> Integers:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    feed = {value.name: rng.integers(0, 256, value.shape, np.uint8) for value in session.get_inputs()}
    (output,) = session.run(None, feed)
    assert isinstance(output, np.ndarray)
    return output


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (conv2d(IMAGE, 8, 3, activation="relu6"), ["Transpose", "QLinearConv", "Transpose"]),
        (conv2d(IMAGE, 8, 3, stride=2, bias=False), ["Transpose", "QLinearConv", "Transpose"]),
        (conv2d(IMAGE, 8, 1, activation="sigmoid"), ["Transpose", "QLinearConv", "Transpose", "QLinearSigmoid"]),
        (depthwise_conv2d(IMAGE, 3, activation="relu6"), ["Transpose", "QLinearConv", "Transpose"]),
        (fully_connected((1, 12), 5), ["QGemm"]),
        (fully_connected((2, 3, 12), 5), ["QLinearMatMul", "QLinearAdd"]),
        (LayerSpec("add", (IMAGE, IMAGE), IMAGE, activation="relu"), ["QLinearAdd"]),
        (LayerSpec("mul", (IMAGE, (1, 1, 1, 16)), IMAGE), ["QLinearMul"]),
        (LayerSpec("global_avg_pool", (IMAGE,), (1, 1, 1, 16)), ["QLinearGlobalAveragePool"]),
        (LayerSpec("global_avg_pool", (IMAGE,), (1, 16)), ["QLinearGlobalAveragePool", "Flatten"]),
        (LayerSpec("avg_pool2d", (IMAGE,), (1, 6, 6, 16), kernel=(2, 2), stride=(2, 2)), ["QLinearAveragePool"]),
        (LayerSpec("max_pool2d", (IMAGE,), (1, 6, 6, 16), kernel=(2, 2), stride=(2, 2)), ["MaxPool"]),
        (LayerSpec("upsample_nearest", (IMAGE,), (1, 24, 24, 16)), ["Resize"]),
        (LayerSpec("concat", (IMAGE, IMAGE), (1, 12, 12, 32)), ["QLinearConcat"]),
        (LayerSpec("softmax", ((1, 10),), (1, 10)), ["QLinearSoftmax"]),
    ],
    ids=lambda value: value.key if isinstance(value, LayerSpec) else "",
)
def test_a_network_of_one_int8_layer_is_integer_operators_and_copies_at_its_ends(
    layer: LayerSpec, expected: list[str], tmp_path: Path
) -> None:
    assert operators(write_onnx(alone(layer)), tmp_path) == expected


def test_only_the_layers_the_module_names_are_computed_in_floats(tmp_path: Path) -> None:
    layers = test_onnx_writer.LAYERS.items()
    in_floats = {name for name, layer in layers if CONVERSIONS & set(operators(write_onnx(alone(layer)), tmp_path))}
    named = {"conv_transpose2d", "upsample_bilinear", "hard_swish", "hard_sigmoid", "global_max_pool", "relu", "relu6"}
    named |= {"gelu", "elu", "softplus", "tanh"}
    assert in_floats == named


def small_weights(data: bytes) -> bytes:
    """The same model with integer weights half as large.

    Processors without VNNI (AVX2 alone) add pairs of products in 16 bits, which saturate for weights above 64.
    """
    model = onnx.load_from_string(data)
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.INT8:
            weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) // 2, weights.name))
    return model.SerializeToString()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("op", FILE_OPS)
def test_onnxruntime_computes_the_same_with_and_without_its_integer_operators(op: str, activation: str) -> None:
    data = small_weights(write_onnx(alone(replace(test_onnx_writer.LAYERS[op], activation=activation))))
    onnx.checker.check_model(data, full_check=True)
    output, reference = run_onnx(data), run_onnx(data, optimise=False)
    assert output.dtype == np.uint8
    # they may round differently, and a step before a sigmoid is up to three steps after it
    np.testing.assert_allclose(output.astype(int), reference.astype(int), atol=4)


def test_a_whole_int8_mobilenet_is_one_chain_of_integer_operators(tmp_path: Path) -> None:
    found = operators(write_onnx(NETWORK), tmp_path)
    expected = {"Transpose": 2, "QLinearConv": 27, "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1}
    assert Counter(found) == expected


def test_an_int8_network_may_branch_and_join_again(tmp_path: Path) -> None:
    assert not CONVERSIONS & set(operators(write_onnx(residual()), tmp_path))


def test_the_layers_are_those_onnxruntime_makes_of_its_own_quantisers_file(tmp_path: Path) -> None:
    network = mobilenet_v1(0.25, 32).prefix(5)
    (tmp_path / "float.onnx").write_bytes(write_onnx(network))
    quantize_static(tmp_path / "float.onnx", tmp_path / "quantised.onnx", OneImage(), per_channel=True)

    def convolutions(data: bytes) -> list[list[str]]:
        model = optimised(data, tmp_path)
        types = {weight.name: onnx.TensorProto.DataType.Name(weight.data_type) for weight in model.graph.initializer}
        return [[types.get(name, "") for name in node.input] for node in model.graph.node if node.op_type == "QLinearConv"]

    ours = convolutions(write_onnx(network.with_precision("int8")))
    assert ours == convolutions((tmp_path / "quantised.onnx").read_bytes())
    assert len(ours) == 5


class OneImage(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.images: Iterator[Any] = iter([{"image": np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)}])

    def get_next(self) -> Any:
        return next(self.images, None)


# LiteRT


def contents(graph: Graph, folder: Path) -> Contents:
    (folder / "model.tflite").write_bytes(write_tflite(graph))
    return load(folder / "model.tflite")


def interpreter(graph: Graph) -> Interpreter:
    opened = Interpreter(model_content=write_tflite(graph), num_threads=1)
    opened.allocate_tensors()
    return opened


def is_all_in_xnnpack(opened: Interpreter) -> bool:
    """Whether one delegated node reads the model's inputs and makes its outputs."""
    inputs, outputs = ({item["index"] for item in items} for items in (opened.get_input_details(), opened.get_output_details()))
    nodes = [node for node in opened._get_ops_details() if node["op_name"] == "DELEGATE"]
    return any(inputs <= set(node["inputs"]) and outputs <= set(node["outputs"]) for node in nodes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layer", test_tflite_writer.LAYERS.values(), ids=test_tflite_writer.LAYERS)
def test_litert_runs_every_kind_of_int8_layer_with_every_activation(layer: LayerSpec, activation: str) -> None:
    opened = interpreter(alone(replace(layer, activation=activation)))
    for detail in opened.get_input_details():
        opened.set_tensor(detail["index"], np.random.default_rng(1).integers(-128, 128, detail["shape"], np.int8))
    opened.invoke()
    (detail,) = opened.get_output_details()
    output = opened.get_tensor(detail["index"])
    assert output.dtype == np.int8 and output.shape == layer.output
    assert output.any()


def test_xnnpack_takes_all_int8_layers_but_those_the_module_names() -> None:
    left = {name for name, layer in test_tflite_writer.LAYERS.items() if not is_all_in_xnnpack(interpreter(alone(layer)))}
    named = {"avg_pool2d", "avg_pool2d, padded", "max_pool2d, padded", "upsample_nearest", "softmax", "relu", "relu6", "hard_swish"}
    assert left == named


def test_xnnpack_takes_a_whole_int8_mobilenet() -> None:
    assert is_all_in_xnnpack(interpreter(NETWORK))


def test_nothing_in_a_tflite_file_is_converted_from_or_to_floats(tmp_path: Path) -> None:
    found = contents(NETWORK, tmp_path)
    assert not {"QUANTIZE", "DEQUANTIZE"} & {operator.name for operator in found.operators}
    assert {found.dtype(tensor) for operator in found.operators for tensor in operator.outputs} == {"int8"}


@pytest.mark.parametrize(
    ("layer", "name", "version"),
    [
        (conv2d(IMAGE, 8, 3), "CONV_2D", 3),
        (depthwise_conv2d(IMAGE, 3), "DEPTHWISE_CONV_2D", 3),
        (fully_connected((1, 12), 5), "FULLY_CONNECTED", 5),
        (LayerSpec("add", (IMAGE, IMAGE), IMAGE), "ADD", 2),
        (LayerSpec("global_avg_pool", (IMAGE,), (1, 16)), "MEAN", 2),
        (LayerSpec("upsample_bilinear", (IMAGE,), (1, 24, 24, 16)), "RESIZE_BILINEAR", 3),
        (LayerSpec("flatten", (IMAGE,), (1, 2304)), "RESHAPE", 1),
    ],
    ids=lambda value: value.key if isinstance(value, LayerSpec) else "",
)
def test_operators_have_the_versions_that_know_int8(layer: LayerSpec, name: str, version: int, tmp_path: Path) -> None:
    (operator,) = contents(alone(layer), tmp_path).operators
    assert (operator.name, operator.code.version) == (name, version)


@pytest.mark.parametrize(
    ("layer", "axis"), [(conv2d(IMAGE, 8, 3), 0), (depthwise_conv2d(IMAGE, 3), 3), (fully_connected((1, 12), 5), 0)]
)
def test_every_output_channel_has_a_scale_of_its_own(layer: LayerSpec, axis: int, tmp_path: Path) -> None:
    found = contents(alone(layer), tmp_path)
    source, weights, bias = (found.tensors[tensor] for tensor in found.operators[0].inputs)
    assert weights.quantization.quantizedDimension == axis
    assert len(weights.quantization.scale) == layer.out_channels and not weights.quantization.zeroPoint.any()
    np.testing.assert_allclose(bias.quantization.scale, source.quantization.scale * weights.quantization.scale, rtol=1e-6)


@pytest.mark.parametrize(("layer", "axes"), [(conv2d(IMAGE, 8, 3), (0, 1, 2, 3)), (depthwise_conv2d(IMAGE, 3), (3, 1, 2, 0))])
def test_an_int8_convolution_computes_what_its_scales_say(layer: LayerSpec, axes: tuple[int, ...], tmp_path: Path) -> None:
    found = contents(alone(layer), tmp_path)
    source, weights, bias = found.operators[0].inputs

    def floats(tensor: int, integers: Any) -> Any:
        parameters = found.tensors[tensor].quantization
        shape = [-1 if axis == parameters.quantizedDimension else 1 for axis in range(integers.ndim)]
        scale = parameters.scale if parameters.scale.size == 1 else parameters.scale.reshape(shape)
        return (integers.astype(np.float32) - parameters.zeroPoint[0]) * scale

    x = np.random.default_rng(1).integers(-40, 40, IMAGE, np.int8)
    kernel = np.ascontiguousarray(floats(weights, found.values(weights)).transpose(axes))
    expected = test_tflite_writer.convolved(layer, floats(source, x), kernel, floats(bias, found.values(bias)))
    opened = interpreter(alone(layer))
    opened.set_tensor(opened.get_input_details()[0]["index"], x)
    opened.invoke()
    detail = opened.get_output_details()[0]
    scale, zero_point = detail["quantization"]
    integers = np.clip(np.rint(expected / scale) + zero_point, -128, 127)
    np.testing.assert_allclose(opened.get_tensor(detail["index"]), integers, atol=1)


def test_a_concatenation_of_unlike_tensors_has_them_requantised(tmp_path: Path) -> None:
    found = contents(residual(), tmp_path)
    assert [operator.name for operator in found.operators] == ["CONV_2D", "CONV_2D", "LOGISTIC", "ADD", "QUANTIZE", "CONCATENATION"]
    assert is_all_in_xnnpack(interpreter(residual()))


# both


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_the_runner_measures_lone_int8_layers(runtime: str, quick: TimingSettings) -> None:
    layers = {"conv": conv2d(IMAGE, 8, 3, activation="relu6"), "add": LayerSpec("add", (IMAGE, IMAGE), IMAGE)}
    models = {name: FORMATS[RUNTIMES[runtime].model_format].write(alone(layer)) for name, layer in layers.items()}
    with LocalAgent() as agent:
        found = list(a_session(agent, runtime, quick).measure(models, [(0, sorted(models))]))
    assert {event.model for event in found if isinstance(event, Measurement)} == {"conv", "add"}
