from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import mobilenet_v1
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from test_onnx_writer import LAYERS, OTHER_SHAPES

from profiler.errors import ModelError
from profiler.formats.model_file import FORMATS
from profiler.formats.onnx.reader import read_onnx
from profiler.formats.onnx.tensors import channels_last
from profiler.formats.onnx.writer import write_onnx
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import ACTIVATIONS, FILE_OPS, LayerSpec, conv2d, depthwise_conv2d, fully_connected

RNG = np.random.default_rng(0)
IMAGE = (1, 3, 8, 8)
CONSTANTS = {"zero": np.float32(0), "six": np.float32(6)}


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def norm(name: str, channels: int) -> dict[str, np.ndarray]:
    """The four tensors of a batch normalisation."""
    values = {kind: weights(channels) for kind in ("weight", "bias", "mean")} | {"var": np.abs(weights(channels)) + 0.5}
    return {f"{name}.{kind}": value for kind, value in values.items()}


def model(
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    inputs: dict[str, tuple[int | str | None, ...]] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> ModelProto:
    """A model that ends in y; its input x is an image of 8x8 unless told otherwise."""
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (inputs or {"x": IMAGE}).items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def op(op_type: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    domain = attributes.pop("domain", None)
    return helper.make_node(op_type, inputs.split(), [output], domain=domain, **attributes)


@pytest.fixture
def read(tmp_path: Path):
    def save_and_read(content: ModelProto | bytes) -> Graph:
        path = tmp_path / "network.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return read_onnx(path)

    return save_and_read


def run_extracted(graph: Graph, node: Node, feed: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    data = graph.opaques[node.layer.opaque.digest]
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    zeros = {
        value.name: np.zeros(value.shape, dtype=np.uint8 if "uint8" in value.type else np.float32) for value in session.get_inputs()
    }
    return session.run(None, feed or zeros)


# ---- what is written comes back


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", FILE_OPS)
def test_a_written_layer_comes_back_as_onnxruntime_groups_it(read, kind: str, activation: str) -> None:
    layer = LAYERS[kind]
    fused = (kind in ("conv2d", "depthwise_conv2d") and activation not in ("silu", "gelu", "elu", "softplus")) or (
        kind == "fully_connected" and activation not in ("relu6", "hard_swish", "silu", "gelu")
    )
    expected = [replace(layer, activation=activation)]
    if activation != "none" and not fused:
        expected = [layer, LayerSpec(activation, (layer.output,), layer.output)]
    if activation == "gelu" and kind in ("mul", "hard_swish"):
        return  # onnxruntime does not see its pattern behind a product
    if (kind, activation) == ("relu", "relu6"):
        expected = expected[1:]  # the first does nothing that the second would not do, and onnxruntime drops it
    found = read(write_onnx(Graph.of_layer(replace(layer, activation=activation)))).layers
    assert list(found) == expected


@pytest.mark.parametrize("layer", [layer for layer in OTHER_SHAPES if layer.activation == "none"], ids=lambda layer: layer.key)
def test_layers_of_other_ranks_come_back(read, layer: LayerSpec) -> None:
    expected = layer
    if layer.op == "fully_connected" and len(layer.output) == 4:
        expected = replace(layer, op="conv2d")  # over the pixels of an image they are the same
    assert read(write_onnx(Graph.of_layer(layer))).layers == (expected,)


def test_a_whole_mobilenet_comes_back_with_its_names(read) -> None:
    graph = mobilenet_v1(0.25, 32)
    found = read(write_onnx(graph))
    assert found.nodes == tuple(replace(node, block=None) for node in graph.nodes)
    assert (found.inputs, found.outputs) == (graph.inputs, graph.outputs)


def test_branches_come_back_wired_as_they_were(read) -> None:
    shape = (1, 8, 8, 4)
    nodes = (
        Node("a", conv2d(shape, 4, 3, activation="relu"), ("x",)),
        Node("sum", LayerSpec("add", (shape, shape), shape), ("a", "x")),
        Node("both", LayerSpec("concat", (shape, shape), (1, 8, 8, 8)), ("sum", "a")),
    )
    graph = Graph("network", (("x", shape),), nodes, ("both", "sum"))
    assert read(write_onnx(graph)) == graph


def test_a_one_channel_convolution_is_not_depthwise(read) -> None:
    layers = (conv2d((1, 8, 8, 1), 4, 3), conv2d((1, 8, 8, 4), 1, 3))
    nodes = (Node("spread", layers[0], ("x",)), Node("gather", layers[1], ("spread",)))
    assert read(write_onnx(Graph("g", (("x", (1, 8, 8, 1)),), nodes, ("gather",)))).layers == layers


# ---- the groups are onnxruntime's


def test_there_is_a_group_for_every_node_that_onnxruntime_executes(read, tmp_path: Path) -> None:
    data = write_onnx(mobilenet_v1(0.25, 32))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    executed = [node.op_type for node in onnx.load(tmp_path / "executed.onnx").graph.node]
    assert len(read(data).nodes) == sum(kind not in ("ReorderInput", "ReorderOutput") for kind in executed)


def test_batch_norm_and_activation_are_folded_into_their_convolution(read) -> None:
    nodes = [
        op("Conv", "x stem.0.weight", "a", pads=[1] * 4),
        op("BatchNormalization", "a stem.1.weight stem.1.bias stem.1.mean stem.1.var", "b"),
        op("Clip", "b zero six", "y"),
    ]
    graph = read(model(nodes, {"stem.0.weight": weights(4, 3, 3, 3), **norm("stem.1", 4), **CONSTANTS}))
    assert graph.nodes == (Node("stem.0", conv2d((1, 8, 8, 3), 4, 3, activation="relu6"), ("x",)),)


def test_hard_swish_belongs_to_the_convolution_before_it(read) -> None:
    nodes = [op("Conv", "x conv.weight", "a"), op("HardSwish", "a", "b"), op("Tanh", "b", "c"), op("Add", "b c", "y")]
    graph = read(model(nodes, {"conv.weight": weights(4, 3, 1, 1)}))
    assert [(node.name, node.layer.activation, node.inputs) for node in graph.nodes] == [
        ("conv", "hard_swish", ("x",)),
        ("c", "none", ("conv",)),
        ("y", "none", ("conv", "c")),
    ]


def test_hard_swish_stays_alone_where_the_convolution_is_read_elsewhere_too(read) -> None:
    nodes = [op("Conv", "x conv.weight", "a"), op("HardSwish", "a", "b"), op("Add", "a b", "y")]
    assert [layer.op for layer in read(model(nodes, {"conv.weight": weights(4, 3, 1, 1)})).layers] == [
        "conv2d",
        "hard_swish",
        "add",
    ]


def test_a_gate_with_another_slope_is_no_hard_swish(read) -> None:
    nodes = [op("HardSigmoid", "x", "a", alpha=0.2), op("Mul", "x a", "y")]
    assert [layer.op for layer in read(model(nodes)).layers] == ["hard_sigmoid", "mul"]


def test_dequantised_weights_are_weights(read) -> None:
    nodes = [op("DequantizeLinear", "conv.weight scale", "w"), op("Conv", "x w", "y")]
    constants = {"conv.weight": np.ones((4, 3, 1, 1), dtype=np.int8), "scale": np.float32(0.5)}
    assert read(model(nodes, constants)).layers == (conv2d((1, 8, 8, 3), 4, 1, bias=False),)


def test_a_bias_without_its_weight_name_still_names_the_layer(read) -> None:
    nodes = [op("MatMul", "x val_0", "a"), op("Add", "a fc.bias", "y")]
    graph = read(model(nodes, {"val_0": weights(8, 6), "fc.bias": weights(6)}, inputs={"x": (2, 5, 8)}))
    assert graph.nodes == (Node("fc", fully_connected((2, 5, 8), 6), ("x",)),)


# ---- names


@pytest.mark.parametrize(
    ("weight", "node", "name"),
    [
        ("features.0.0.weight", "node_conv2d", "features.0.0"),
        ("onnx::Conv_88", "/features/features.0/features.0.0/Conv", "features.0.0"),
        ("onnx::Conv_88", "/layer1/layer1.1/conv2/Conv", "layer1.1.conv2"),
        ("onnx::Conv_88", "/stem/stem.0/conv/conv.1/Conv", "stem.0.conv.1"),
        ("w00", "conv_00", "conv_00"),
        ("w00", "", "y"),
        ("conv.weight_quantized", "", "conv"),
    ],
)
def test_a_layer_is_called_like_its_module(read, weight: str, node: str, name: str) -> None:
    assert read(model([op("Conv", f"x {weight}", "y", name=node)], {weight: weights(4, 3, 1, 1)})).nodes[0].name == name


def test_a_folded_norm_does_not_name_its_convolution(read) -> None:
    nodes = [op("Conv", "x w", "a", name="stem"), op("BatchNormalization", "a bn.weight bn.bias bn.mean bn.var", "y")]
    assert [node.name for node in read(model(nodes, {"w": weights(4, 3, 1, 1), **norm("bn", 4)})).nodes] == ["stem"]


def test_a_node_that_only_reads_a_shape_keeps_its_own_name(read) -> None:
    nodes = [op("Reshape", "x shape", "y", name="/norm/Reshape")]
    assert read(model(nodes, {"shape": np.array([1, 1, -1])})).nodes[0].name == "/norm/Reshape"


def test_layers_that_share_a_weight_get_names_of_their_own(read) -> None:
    nodes = [op("Conv", "x shared.weight", "a"), op("Relu", "a", "b"), op("Conv", "b shared.weight", "y")]
    assert [node.name for node in read(model(nodes, {"shared.weight": weights(3, 3, 1, 1)})).nodes] == ["shared", "shared_2"]


# ---- attributes that are resolved


@pytest.mark.parametrize(
    ("attributes", "padding"),
    [
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (0, 0, 1, 1)),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (1, 1, 0, 0)),
        ({"auto_pad": "SAME_UPPER", "dilations": [2, 2]}, (2, 2, 2, 2)),
        ({"auto_pad": "VALID"}, (0, 0, 0, 0)),
        ({"pads": [1, 0, 2, 3]}, (1, 0, 2, 3)),
    ],
)
def test_padding_by_name_becomes_pixels(read, attributes: dict[str, object], padding: tuple[int, ...]) -> None:
    (layer,) = read(model([op("Conv", "x w", "y", **attributes)], {"w": weights(4, 3, 3, 3)})).layers
    assert (layer.opaque, layer.padding) == (None, padding)


def test_padding_of_a_transposed_convolution_follows_from_its_output(read) -> None:
    nodes = [op("ConvTranspose", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 2])]
    (layer,) = read(model(nodes, {"w": weights(3, 4, 3, 3)})).layers
    assert (layer.opaque, layer.output, layer.padding) == (None, (1, 16, 16, 4), (0, 0, 1, 1))


def test_weights_listed_among_the_inputs_are_weights(read) -> None:
    proto = model([op("Conv", "x w", "a"), op("Relu", "a", "y")], {"w": weights(4, 3, 1, 1)})
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (4, 3, 1, 1)))
    graph = read(proto)
    assert graph.inputs == (("x", (1, 8, 8, 3)),)
    assert graph.layers == (conv2d((1, 8, 8, 3), 4, 1, bias=False, activation="relu"),)


def test_a_mean_over_height_and_width_is_a_global_pool(read) -> None:
    nodes = [op("ReduceMean", "x", "y", axes=[-1, -2], keepdims=0)]
    assert read(model(nodes)).layers == (LayerSpec("global_avg_pool", ((1, 8, 8, 3),), (1, 3)),)


def test_upsampling_of_opset_9_is_nearest(read) -> None:
    proto = model([op("Upsample", "x scales", "y")], {"scales": np.array([1, 1, 2, 2], dtype=np.float32)}, opset=9)
    assert read(proto).layers == (LayerSpec("upsample_nearest", ((1, 8, 8, 3),), (1, 16, 16, 3)),)


def test_a_tensor_that_is_read_twice_is_two_inputs(read) -> None:
    (node,) = read(model([op("Add", "x x", "y")])).nodes
    assert (node.inputs, len(node.layer.inputs)) == (("x", "x"), 2)


# ---- cut-outs

ODD_NODES = {
    "LayerNormalization": model([op("LayerNormalization", "x ln.weight", "y")], {"ln.weight": weights(8)}),
    "Selu": model([op("Selu", "x", "y")]),
    "Transpose": model([op("Transpose", "x", "y", perm=[0, 2, 3, 1])]),
    "MaxPool": model([op("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)]),
    "Softmax": model([op("Softmax", "x", "y", axis=-1)]),
    "Resize": model([op("Resize", "x  sizes", "y", mode="cubic")], {"sizes": np.array([1, 1, 2, 2], dtype=np.float32)}),
    "Clip": model([op("Clip", "x six", "y")], CONSTANTS),
    "Mul": model([op("Mul", "x k", "y")], {"k": weights(1, 3, 1, 1)}),
    "LSTM": model([op("LSTM", "x w r", "y", hidden_size=4)], {"w": weights(1, 16, 3), "r": weights(1, 16, 4)}, {"x": (5, 1, 3)}),
    "Conv": model([op("Conv", "x w", "y")], {"w": weights(4, 3, 3, 3, 3)}, {"x": (1, 3, 8, 8, 8)}),
}
ODD_NODES["Resize"].graph.node[0].input[:] = ["x", "", "sizes"]


@pytest.mark.parametrize("kind", ODD_NODES)
def test_what_we_do_not_model_is_cut_out_and_runs(read, kind: str) -> None:
    graph = read(ODD_NODES[kind])
    (node,) = graph.nodes
    assert node.layer.op == {"Conv": "conv2d"}.get(kind, kind)  # one of volumes has the operations of one of images
    (output,) = run_extracted(graph, node)
    n, c, *places = output.shape
    shown = {"Transpose": output.shape, "Conv": (n, *places, c)}.get(kind, channels_last(output.shape))
    assert shown == node.layer.output


def test_a_linear_layer_between_transposes_has_the_shapes_of_the_image(read) -> None:
    nodes = [
        op("Transpose", "x", "a", perm=[0, 2, 3, 1]),
        op("MatMul", "a up.weight", "b"),
        op("Transpose", "b", "y", perm=[0, 3, 1, 2]),
    ]
    before, linear, after = read(model(nodes, {"up.weight": weights(3, 5)})).layers
    assert linear == fully_connected((1, 8, 8, 3), 5, bias=False)
    assert (before.output, after.output) == ((1, 8, 8, 3), (1, 8, 8, 5))


def test_a_cut_out_computes_what_it_did_in_its_network(read) -> None:
    proto = model([op("LayerNormalization", "x ln.weight", "y")], {"ln.weight": weights(8)})
    graph = read(proto)
    data = weights(*IMAGE)
    (expected,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": data})
    np.testing.assert_array_equal(run_extracted(graph, graph.nodes[0], {"input_0": data})[0], expected)


def test_a_lone_cut_out_is_written_back_as_it_was_cut(read) -> None:
    graph = read(ODD_NODES["LSTM"])
    layer = graph.layers[0]
    assert FORMATS["onnx"].write(Graph.of_layer(layer, graph.opaques)) == graph.opaques[layer.opaque.digest]


def test_a_cut_out_is_named_by_the_digest_of_its_file(read) -> None:
    graph = read(ODD_NODES["LSTM"])
    assert {digest: hashlib.sha256(data).hexdigest() for digest, data in graph.opaques.items()} == {
        graph.layers[0].opaque.digest: graph.layers[0].opaque.digest
    }


def test_a_cut_out_counts_its_weights(read) -> None:
    assert read(ODD_NODES["LSTM"]).layers[0].weight_bytes == 4 * 16 * (3 + 4)


def test_the_same_work_twice_is_one_cut_out(read) -> None:
    graph = read(model([op("Selu", "x", "a"), op("Selu", "a", "y")]))
    assert len(graph.nodes) == 2 and len(set(graph.layers)) == len(graph.opaques) == 1


def test_other_weights_are_another_cut_out(read) -> None:
    nodes = [op("LayerNormalization", "x a.weight", "a"), op("LayerNormalization", "a b.weight", "y")]
    assert len(read(model(nodes, {"a.weight": weights(8), "b.weight": weights(8)})).opaques) == 2


def test_a_quantised_convolution_between_conversions_is_a_layer_of_integers(read) -> None:
    nodes = [
        op("QuantizeLinear", "x scale zero_point", "a"),
        op("QLinearConv", "a scale zero_point conv.weight scale weight_zero scale zero_point", "b", pads=[1] * 4),
        op("DequantizeLinear", "b scale zero_point", "y"),
    ]
    constants = {"conv.weight": np.ones((4, 3, 3, 3), np.int8), "scale": np.float32(0.1), "weight_zero": np.int8(0)}
    graph = read(model(nodes, constants | {"zero_point": np.uint8(0)}))
    assert [layer.op for layer in graph.layers] == ["quantise", "conv2d", "dequantise"]
    assert graph.nodes[1] == Node("conv", replace(conv2d((1, 8, 8, 3), 4, 3, bias=False), dtype="int8"), (graph.nodes[0].name,))


def test_a_convolution_of_signed_activations_keeps_its_kind_and_its_macs(read) -> None:
    nodes = [
        op("QuantizeLinear", "x scale zero_point", "a"),
        op("QLinearConv", "a scale zero_point conv.weight scale zero_point scale zero_point", "b", pads=[1] * 4),
        op("DequantizeLinear", "b scale zero_point", "y"),
    ]
    constants = {"conv.weight": np.ones((4, 3, 3, 3), np.int8), "scale": np.float32(0.1), "zero_point": np.int8(0)}
    graph = read(model(nodes, constants))
    node = graph.nodes[1]
    assert (node.name, node.layer.op, node.layer.dtype, node.layer.kernel) == ("conv", "conv2d", "int8", (3, 3))
    assert node.layer.macs == conv2d((1, 8, 8, 3), 4, 3).macs
    assert run_extracted(graph, node, {"input_0": np.zeros((1, 3, 8, 8), np.int8)})[0].shape == (1, 4, 8, 8)


def test_a_convolution_with_an_activation_we_do_not_model_is_cut_out_whole(read) -> None:
    nodes, constants = [op("Conv", "x w", "a"), op("Clip", "a zero five", "y")], {"w": weights(4, 3, 1, 1)}
    graph = read(model(nodes, constants | CONSTANTS | {"five": np.float32(5)}))
    (node,) = graph.nodes
    assert (node.layer.op, node.layer.weight_bytes) == ("conv2d", 48)
    assert run_extracted(graph, node)[0].shape == (1, 4, 8, 8)


def test_a_convolution_whose_weights_are_computed_is_cut_out(read) -> None:
    graph = read(model([op("Conv", "x w", "y")], inputs={"x": IMAGE, "w": (4, 3, 3, 3)}))
    (node,) = graph.nodes
    assert node.layer.opaque is not None and node.inputs == ("x", "w")


def test_a_node_with_branches_is_cut_out_with_what_they_read(read) -> None:
    branches = [
        helper.make_graph([op(kind, "x k", kind)], kind, [], [helper.make_tensor_value_info(kind, TensorProto.FLOAT, None)])
        for kind in ("Mul", "Sub")
    ]
    proto = model([op("If", "flag", "y", then_branch=branches[0], else_branch=branches[1])], {"k": weights(1)})
    proto.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, ()))
    graph = read(proto)
    (node,) = graph.nodes
    assert (node.layer.op, node.inputs, node.layer.weight_bytes) == ("If", ("flag", "x"), 4)
    data = weights(*IMAGE)
    (output,) = run_extracted(graph, node, {"flag": np.array(False), "x": data})
    np.testing.assert_array_equal(output, data - numpy_helper.to_array(proto.graph.initializer[0]))


# ---- files that cannot be read


def test_a_file_that_has_gone_is_not_said_to_be_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx cannot be read: No such file or directory$"):
        read_onnx(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (model([op("Relu", "x", "y")], inputs={"x": ("batch", "width")}), "input x .* batchxwidth.* --shape x=1xN"),
        (model([op("Relu", "x", "y")], inputs={"x": (1, None)}), "input x .* 1x?.* --shape x=1xN"),
        (model([op("Relu", "x", "y")], inputs={"x": (0, 3)}), "input x is empty"),
        (model([op("Foo", "x", "y", domain="com.example")]), "Foo"),
        (model([op("Foo", "x", "y")]), "Foo"),
        (model([op("Relu", "x", "y")], opset=99), "99"),
        (model([]), "no network"),
        (model([op("Relu", "k", "y")], {"k": weights(3)}), "do not depend on its inputs"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_sentence(read, proto: ModelProto, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read(proto)
    assert "network.onnx" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"TFL3" * 9], ids=["empty", "text", "zeros", "other"])
def test_a_file_of_something_else_is_told_in_one_sentence(read, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"network\.onnx"):
        read(content)


def test_missing_weights_beside_the_file_are_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    proto = model([op("Conv", "x w", "y")], {"w": weights(64, 3, 3, 3)})
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert read_onnx(path).layers == (conv2d((1, 8, 8, 3), 64, 3, padding=0, bias=False),)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        read_onnx(path)


def small_model() -> bytes:
    first, second = conv2d((1, 8, 8, 3), 4, 3, activation="relu6"), depthwise_conv2d((1, 8, 8, 4), 3, activation="hard_swish")
    total = LayerSpec("add", (first.output, second.output), first.output, activation="relu")
    pool = LayerSpec("global_avg_pool", (total.output,), (1, 4))
    nodes = (
        Node("a", first, ("x",)),
        Node("b", second, ("a",)),
        Node("sum", total, ("a", "b")),
        Node("pool", pool, ("sum",)),
        Node("fc", fully_connected((1, 4), 5), ("pool",)),
    )
    return write_onnx(Graph("small", (("x", (1, 8, 8, 3)),), nodes, ("fc",)))


SMALL = small_model()


@given(
    length=st.integers(0, len(SMALL)),
    flips=st.dictionaries(st.integers(0, len(SMALL) - 1), st.integers(1, 255), max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_read_or_told_in_one_sentence(length: int, flips: dict[int, int]) -> None:
    damaged = bytearray(SMALL)
    for position, mask in flips.items():
        damaged[position] ^= mask
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.onnx"
        path.write_bytes(damaged if flips else damaged[:length])
        try:
            assert isinstance(read_onnx(path), Graph)
        except ModelError as error:
            assert "\n" not in str(error)


def test_a_truncated_file_is_told_in_one_sentence(read) -> None:
    with pytest.raises(ModelError, match=r"network\.onnx"):
        read(SMALL[: len(SMALL) // 2])


def test_nothing_is_printed_and_nothing_is_left_behind(read, tmp_path: Path, capfd, monkeypatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for content in (SMALL, SMALL.replace(b"a.weight", b"\xff\xfe\xfd\xfcight"), model([op("Foo", "x", "y")])):
        try:
            read(content)
        except ModelError:
            continue
    assert list(temporary.iterdir()) == []
    assert capfd.readouterr() == ("", "")
