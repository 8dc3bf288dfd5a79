"""What LiteRT on this machine executes for .tflite files: matched with their layers, and cut into stretches that run alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from asking_litert import operators_of
from graphs import in_a_row

from netadapt.networks import network_graph
from profiler.errors import ModelError
from profiler.formats.int8 import COMMON
from profiler.formats.model_file import FORMATS
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.executed import ExecutedModel, executed_by_rules, matched, read_executed
from profiler.formats.tflite.int8 import Int8Emitter
from profiler.formats.tflite.writer import write_tflite
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, Shape, conv2d, depthwise_conv2d, fully_connected
from profiler.measure.executed import stretches

IMAGE = (1, 9, 11, 6)
NETWORKS = ("mobilenet_v3_small", "resnet18")
EMITTERS = [Emitter, Int8Emitter]


@cache
def narrow(name: str) -> Graph:
    return network_graph(name, resolution=32, width_multiplier=0.5)


@cache
def file_of(name: str, dtype: str = "float32") -> bytes:
    return write_tflite(ExecutionRules("litert").executed(narrow(name).with_precision(dtype)))


def asked(file: bytes) -> ExecutedModel:
    """What LiteRT says that it executes."""
    return read_executed("asked", file, operators_of(file))


def ops(file: bytes) -> list[str]:
    return [layer.op for layer in asked(file).graph.layers]


def reported(file: bytes) -> list[str]:
    """The operators of LiteRT's profile by their names without types."""
    return [operator.op.split(" (")[0] for operator in operators_of(file)]


def one(op: str, shape: Shape = IMAGE) -> LayerSpec:
    return LayerSpec(op, (shape,), shape)


def emitted(kind: type[Emitter], *operators: tuple[str, Any], shape: Shape = IMAGE) -> bytes:
    """A file of operators in a row, each with its options, that keep the shape."""
    emitter = kind(1)
    tensors = [emitter.activation(f"t{place}", shape) for place in range(len(operators) + 1)]
    for place, (name, options) in enumerate(operators):
        others = [emitter.constant(f"c{place}", np.array(3, np.float32))] if name in ("ADD", "MUL") else []
        emitter.operator(name, [tensors[place], *others], tensors[place + 1], options)
    return emitter.finish("model", tensors[:1], tensors[-1:])


def pad_and_convolution(
    kind: type[Emitter], *, depthwise: bool = False, kernel: int = 3, channels: int = 0, also: bool = False
) -> bytes:
    """A PAD by one pixel, in channels as well if `channels`, and a VALID convolution; `also` makes the PAD an output."""
    emitter, (n, height, width, deep) = kind(1), IMAGE
    padded_shape = (n, height + 2, width + 2, deep + channels)
    layer = conv2d(padded_shape, 8, kernel, padding=0)
    if depthwise:
        layer = depthwise_conv2d(padded_shape, kernel, padding=0)
    image, padded = emitter.activation("image", IMAGE), emitter.activation("padded", padded_shape)
    made = emitter.activation("made", layer.output)
    pads = emitter.constant("pads", np.array([[0, 0], [1, 1], [1, 1], [0, channels]], np.int32))
    emitter.operator("PAD", [image, pads], padded, schema.PadOptionsT())
    axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    weights = emitter.weights(Node("made", layer, ("padded",)), axes, padded)
    if depthwise:
        options: Any = schema.DepthwiseConv2DOptionsT(padding=schema.Padding.VALID, depthMultiplier=1, strideH=1, strideW=1)
        options.dilationHFactor = options.dilationWFactor = 1
        emitter.operator("DEPTHWISE_CONV_2D", [padded, *weights], made, options)
    else:
        options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
        emitter.operator("CONV_2D", [padded, *weights], made, options)
    return emitter.finish("model", [image], [made, padded] if also else [made])


def with_weights_of_integers(*, widened: bool) -> bytes:
    """A convolution of floats with int8 weights: behind a DEQUANTIZE, or read as they are."""
    emitter, layer = Emitter(1), conv2d(IMAGE, 8, 3, padding=0)
    image, made = emitter.activation("image", IMAGE), emitter.activation("made", layer.output)
    weights = emitter.stored("weights", np.random.default_rng(1).integers(-127, 127, (8, 3, 3, 6)).astype(np.int8))
    emitter.tensors[weights].quantization = schema.QuantizationParametersT(
        scale=np.linspace(0.01, 0.02, 8, dtype=np.float32), zeroPoint=np.zeros(8, np.int64), quantizedDimension=0
    )
    if widened:
        floats = emitter.activation("floats", (8, 3, 3, 6))
        emitter.operator("DEQUANTIZE", [weights], floats, schema.DequantizeOptionsT(), version=2)
        weights = floats
    bias = emitter.stored("bias", np.zeros(8, np.float32))
    options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    emitter.operator("CONV_2D", [image, weights, bias], made, options, version=1 if widened else 5)
    return emitter.finish("model", [image], [made])


def split_in_uneven_parts() -> bytes:
    """A tensor that is split into 2 and 4 channels, each with an operator behind it."""
    emitter = Emitter(1)
    image = emitter.activation("image", IMAGE)
    sizes, axis = emitter.constant("sizes", (2, 4)), emitter.constant("axis", np.array(3, np.int32))
    parts = [emitter.activation(f"part{channels}", (*IMAGE[:3], channels)) for channels in (2, 4)]
    made = [emitter.activation(f"made{channels}", (*IMAGE[:3], channels)) for channels in (2, 4)]
    emitter.operator("SPLIT_V", [image, sizes, axis], parts[0], schema.SplitVOptionsT(numSplits=2), version=2)
    emitter.operators[-1].outputs = np.array(parts, np.int32)
    for part, output in zip(parts, made, strict=True):
        emitter.operator("LOGISTIC", [part], output)
    return emitter.finish("model", [image], made)


def run(file: bytes, inputs: Sequence[Any]) -> list[Any]:
    interpreter = Interpreter(model_content=file, num_threads=1)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details()]


def random_input(file: bytes) -> Any:
    (detail,) = Interpreter(model_content=file).get_input_details()
    values = np.random.default_rng(1).uniform(-1, 1, detail["shape"])
    return values.astype(np.float32) if detail["dtype"] is np.float32 else (values * 100).astype(detail["dtype"])


# the operators are the layers


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_of_a_network_of_integers_is_a_layer(name: str) -> None:
    file = file_of(name, "int8")
    operators = operators_of(file)
    assert len(matched(asked(file).graph, operators)) == len(operators)


@pytest.mark.parametrize("kind", EMITTERS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_pad_by_zeros_belongs_to_the_convolution_that_xnnpack_folds_it_into(kind: type[Emitter], depthwise: bool) -> None:
    file = pad_and_convolution(kind, depthwise=depthwise)
    (layer,) = asked(file).graph.layers
    assert reported(file) == ["Convolution"]
    assert (layer.padding, layer.inputs) == ((1, 1, 1, 1), (IMAGE,))


@pytest.mark.parametrize("kind", EMITTERS)
@pytest.mark.parametrize("wrong", [{"kernel": 1}, {"channels": 2}, {"also": True}], ids=["a product", "channels", "read twice"])
def test_a_pad_that_is_not_folded_is_a_layer(kind: type[Emitter], wrong: dict[str, Any]) -> None:
    assert ops(pad_and_convolution(kind, **wrong)) == ["PAD", "conv2d"]


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize(
    "layer",
    [
        conv2d(IMAGE, 8, 3),
        conv2d(IMAGE, 8, 1, activation="relu6"),
        depthwise_conv2d(IMAGE, 3),
        fully_connected((1, 12), 5),
        LayerSpec("avg_pool2d", (IMAGE,), (1, 4, 5, 6), kernel=(2, 2), stride=(2, 2)),
        LayerSpec("max_pool2d", (IMAGE,), (1, 4, 5, 6), kernel=(2, 2), stride=(2, 2)),
        LayerSpec("conv_transpose2d", (IMAGE,), (1, 20, 24, 4), kernel=(3, 3), stride=(2, 2)),
    ],
    ids=lambda layer: layer.key,
)
def test_an_activation_behind_a_layer_that_clamps_is_a_part_of_it(layer: LayerSpec, activation: str) -> None:
    (found,) = asked(write_tflite(in_a_row(layer, one(activation, layer.output)))).graph.layers
    assert found.activation == ("relu6" if "relu6" in (activation, layer.activation) else "relu")


@pytest.mark.parametrize("before", ["hard_swish", "sigmoid"])
def test_an_activation_behind_another_layer_stays_a_layer(before: str) -> None:
    assert ops(write_tflite(in_a_row(one(before), one("relu")))) == [before, "relu"]


def test_a_sum_with_an_activation_is_one_layer_of_two_operators() -> None:
    file = write_tflite(Graph.of_layer(LayerSpec("add", (IMAGE, IMAGE), IMAGE, activation="relu")))
    operators = operators_of(file)
    assert reported(file) == ["Add", "Clamp"]
    assert [node.layer.activation for node in matched(asked(file).graph, operators)] == ["relu", "relu"]


@pytest.mark.parametrize(("op", "first"), [("max_pool2d", "PADV2"), ("avg_pool2d", "Constant Pad")])
def test_a_padded_pool_is_one_layer_of_two_operators(op: str, first: str) -> None:
    file = write_tflite(Graph.of_layer(LayerSpec(op, (IMAGE,), (1, 5, 6, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 1))))
    assert reported(file)[0] == first and len(reported(file)) == 2
    assert ops(file) == [op]


@pytest.mark.parametrize("shape", [(1, 6, 4), (6, 4)])
def test_a_product_that_brings_its_input_to_two_dimensions_is_one_layer_of_two_operators(shape: Shape) -> None:
    emitter, layer = Emitter(1), fully_connected((6, 4), 5)
    image, product, made = (emitter.activation(name, size) for name, size in (("x", shape), ("p", (6, 5)), ("y", (6, 5))))
    weights = emitter.weights(Node("p", layer, ("x",)), (0, 1), image)
    emitter.operator("FULLY_CONNECTED", [image, *weights], product, schema.FullyConnectedOptionsT())
    emitter.operator("TANH", [product], made)
    file = emitter.finish("model", [image], [made])
    assert reported(file) == ["Static Reshape", "Fully Connected", "TanH"]
    assert ops(file) == ["fully_connected", "tanh"]


def test_operators_on_single_integers_that_become_one_table_are_one_layer() -> None:
    quantize = schema.QuantizeOptionsT()
    file = emitted(Int8Emitter, ("LOGISTIC", None), ("QUANTIZE", quantize), ("TANH", None))
    assert reported(file) == ["Invalid Unary Op"]
    assert ops(file) == ["LOGISTIC+QUANTIZE+TANH"]


def test_an_operator_of_the_interpreter_ends_a_table() -> None:
    file = emitted(Int8Emitter, ("LOGISTIC", None), ("RELU", None), ("TANH", None), ("QUANTIZE", schema.QuantizeOptionsT()))
    assert ops(file) == ["sigmoid", "relu", "TANH+QUANTIZE"]


def test_a_sum_with_a_constant_and_an_activation_is_one_table() -> None:
    file = emitted(Int8Emitter, ("ADD", schema.AddOptionsT(fusedActivationFunction=schema.ActivationFunctionType.RELU6)))
    assert reported(file) == ["Invalid Unary Op"]
    assert ops(file) == ["add"]


def test_weights_that_xnnpack_widens_when_it_loads_them_are_the_layer_s_own() -> None:
    file = with_weights_of_integers(widened=True)
    assert reported(file) == ["Convolution"]
    assert asked(file).graph.layers == (conv2d(IMAGE, 8, 3, padding=0),)


def test_activations_that_are_quantised_for_one_layer_are_a_part_of_it() -> None:
    file = with_weights_of_integers(widened=False)
    assert reported(file) == ["Convert", "Convolution"]
    assert ops(file) == ["conv2d"]


def test_the_layers_are_in_the_order_of_execution() -> None:
    """All that needs nothing from the interpreter's operator runs before it."""
    nodes = (
        Node("first", one("relu"), ("image",)),
        Node("slow", LayerSpec("upsample_nearest", (IMAGE,), (1, 18, 22, 6)), ("first",)),
        Node("after", one("sigmoid", (1, 18, 22, 6)), ("slow",)),
        Node("beside", one("hard_swish"), ("first",)),
    )
    graph = Graph("branches", (("image", IMAGE),), nodes, ("after", "beside"))
    assert [node.name for node in asked(write_tflite(graph)).graph.nodes] == ["first", "beside", "slow", "after"]


WRITTEN = [
    conv2d(IMAGE, 8, 3, activation="hard_swish"),
    conv2d(IMAGE, 8, 3, activation="hard_sigmoid"),
    LayerSpec("conv2d", (IMAGE,), (1, 11, 13, 8), padding=(1, 1, 1, 1)),
    LayerSpec("conv_transpose2d", (IMAGE,), (1, 18, 22, 4), kernel=(3, 3), stride=(2, 2), padding=(1,) * 4),
    LayerSpec("max_pool2d", (IMAGE,), (1, 5, 6, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 1)),
    LayerSpec("avg_pool2d", (IMAGE,), (1, 5, 6, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 1)),
    LayerSpec("add", (IMAGE, IMAGE), IMAGE, activation="relu6"),
    one("hard_sigmoid"),
]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("layer", WRITTEN, ids=lambda layer: layer.key)
def test_all_operators_that_are_written_for_a_layer_are_known_to_be_its_own(layer: LayerSpec, dtype: str) -> None:
    graph = ExecutionRules("litert").executed(Graph.of_layer(layer.with_dtype(dtype)))
    assert tuple(dict.fromkeys(matched(graph, operators_of(write_tflite(graph))))) == graph.nodes


# contradictions


def test_an_operator_without_a_layer_is_told() -> None:
    file = write_tflite(in_a_row(one("sigmoid"), one("hard_swish")))
    with pytest.raises(ModelError, match=r"operator 1 of 2 in the runtime's profile, Sigmoid \(NC\) \(delegate 0\), is no layer"):
        read_executed("model", write_tflite(in_a_row(one("hard_swish"))), operators_of(file))


def test_a_layer_without_an_operator_is_told() -> None:
    file = write_tflite(in_a_row(one("sigmoid"), one("hard_swish")))
    with pytest.raises(ModelError, match=r"has no operator for layer_1 \(hard_swish\)"):
        read_executed("model", file, operators_of(file)[:1])


def test_operators_in_an_order_in_which_they_cannot_run_are_told() -> None:
    file = write_tflite(in_a_row(one("sigmoid"), one("hard_swish")))
    with pytest.raises(ModelError, match="could run there"):
        read_executed("model", file, operators_of(file)[::-1])


def test_where_the_runtime_does_not_tell_the_layers_are_those_of_our_rules() -> None:
    ruled = ExecutionRules("tflite-runtime").executed(narrow("resnet18"))
    assert executed_by_rules("model", file_of("resnet18")).graph.layers == ruled.layers


# stretches


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_stretch_executes_the_layers_that_the_whole_has_there(name: str, dtype: str) -> None:
    model = asked(file_of(name, dtype))
    parts = list(stretches(model, len(file_of(name, dtype))))
    assert len(parts) >= 8
    for _, graph, file in parts[:4]:
        assert Counter(asked(file).graph.layers) == Counter(graph.layers)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_two_stretches_compute_what_the_whole_computes(dtype: str) -> None:
    layers = [conv2d((1, 12, 12, 6), 8, 3, stride=2, activation="relu6")]
    layers += [depthwise_conv2d(layers[0].output, 5, stride=2), conv2d((1, 3, 3, 8), 8, 1), one("sigmoid", (1, 3, 3, 8))]
    file = write_tflite(in_a_row(*layers).with_precision(dtype))
    model = asked(file)
    (_, first), (_, second) = model.stretch(0, 2), model.stretch(2, 4)
    image = random_input(file)
    for found, expected in zip(run(second, run(first, [image])), run(file, [image]), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(expected)) > 1


def test_a_stretch_reads_a_shortcut_from_outside() -> None:
    model = asked(file_of("resnet18"))
    place = next(place for place, node in enumerate(model.graph.nodes) if node.layer.op == "add")
    graph, part = model.stretch(place - 1, place + 1)
    assert len(graph.inputs) == len(Interpreter(model_content=part).get_input_details()) == 2


def test_a_stretch_returns_what_is_read_after_it() -> None:
    nodes = (
        Node("first", one("relu"), ("image",)),
        Node("second", one("sigmoid"), ("first",)),
        Node("third", LayerSpec("add", (IMAGE, IMAGE), IMAGE), ("first", "second")),
    )
    graph, part = asked(write_tflite(Graph("shortcut", (("image", IMAGE),), nodes, ("third",)))).stretch(0, 2)
    assert graph.outputs == ("first", "second")
    assert len(Interpreter(model_content=part).get_output_details()) == 2


def test_a_stretch_keeps_the_quantisation_of_the_file() -> None:
    model = asked(file_of("resnet18", "int8"))
    (detail,) = Interpreter(model_content=model.stretch(3, 5)[1]).get_input_details()
    assert detail["quantization"] == pytest.approx((COMMON.scale, COMMON.zero_point))


def test_a_stretch_keeps_an_activation_that_was_joined() -> None:
    layer = conv2d(IMAGE, 8, 3)
    graph, part = asked(write_tflite(in_a_row(layer, one("relu", layer.output), one("sigmoid", layer.output)))).stretch(0, 1)
    assert graph.layers[0].activation == "relu"
    assert asked(part).graph.layers == graph.layers


def test_a_stretch_of_widened_weights_computes_what_the_whole_computes() -> None:
    file = with_weights_of_integers(widened=True)
    image = random_input(file)
    np.testing.assert_array_equal(run(asked(file).stretch(0, 1)[1], [image]), run(file, [image]))


def test_a_stretch_behind_an_uneven_split_reads_each_part() -> None:
    graph, file = asked(split_in_uneven_parts()).stretch(1, 3)
    assert [shape for _, shape in graph.inputs] == [(1, 9, 11, 2), (1, 9, 11, 4)]
    assert asked(file).graph.layers == graph.layers


def test_equal_stretches_of_files_with_other_names_are_the_same_bytes() -> None:
    layers = [conv2d(IMAGE, 6, 3), one("hard_swish"), one("sigmoid")]
    names = [("a", "b", "c"), ("x", "y", "z")]
    files = [
        FORMATS["tflite"].write(
            Graph(
                first,
                ((f"{first}_in", IMAGE),),
                (Node(first, layers[0], (f"{first}_in",)), Node(second, layers[1], (first,)), Node(third, layers[2], (second,))),
                (third,),
            )
        )
        for first, second, third in names
    ]
    assert files[0] != files[1]
    assert asked(files[0]).stretch(0, 2)[1] == asked(files[1]).stretch(0, 2)[1]
