"""Extracted ONNX nodes that follow widths: learnt from the same node at several widths, written alone and in whole networks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from profiler.errors import LayerError, ModelError
from profiler.formats.model_file import FORMATS
from profiler.formats.onnx.opaque import at_shapes, extract, template
from profiler.formats.onnx.tensors import Tensor, Tensors
from profiler.layers.channels import dependent_layers, possible_widths
from profiler.layers.execution import ExecutionRules
from profiler.layers.expressions import ChannelExpression
from profiler.layers.graph import FollowedSize, Graph, Node
from profiler.layers.layer import LayerSpec, OpaqueSubgraph, conv2d

WIDTHS = (16, 8, 12)
"""The width that the template has, and two narrower ones."""
PIXELS = 4


def file_of(node: NodeProto, width: int, weights: dict[str, np.ndarray], output: tuple[int, ...]) -> bytes:
    """A model of one node that reads an image of so many channels."""
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info("input_0", TensorProto.FLOAT, (1, width, PIXELS, PIXELS))],
        [helper.make_tensor_value_info("output_0", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def scaled(width: int) -> tuple[bytes, LayerSpec]:
    """A product with a weight for each channel."""
    weight = np.ones((width, 1, 1), np.float32)
    node = helper.make_node("Mul", ["input_0", "weight_0"], ["output_0"])
    shape = (1, PIXELS, PIXELS, width)
    return file_of(node, width, {"weight_0": weight}, (1, width, PIXELS, PIXELS)), LayerSpec(
        "Mul", (shape,), shape, opaque=_opaque()
    )


def grouped(width: int) -> tuple[bytes, LayerSpec]:
    """A reshape into four groups of channels, as in a group normalisation."""
    shape = np.array([1, 4, width // 4 * PIXELS * PIXELS])
    node = helper.make_node("Reshape", ["input_0", "weight_0"], ["output_0"])
    layer = LayerSpec("Reshape", ((1, PIXELS, PIXELS, width),), tuple(map(int, shape)), opaque=_opaque())
    return file_of(node, width, {"weight_0": shape}, tuple(map(int, shape))), layer


def _opaque(data: bytes = b"") -> OpaqueSubgraph:
    return OpaqueSubgraph(hashlib.sha256(data).hexdigest(), 4, "onnx")


def learnt(kind) -> tuple[bytes, LayerSpec]:
    files, layers = zip(*map(kind, WIDTHS), strict=True)
    data = template(files, layers)
    assert data is not None
    return data, layers[0]


def network(kind) -> Graph:
    """A convolution, the node, and its output."""
    data, layer = learnt(kind)
    width = ChannelExpression(0, {"stem": 1})
    sizes = [
        FollowedSize(0, 3, width),
        FollowedSize(None, len(layer.output) - 1, ChannelExpression(0, {"stem": layer.output[-1] // 16})),
    ]
    nodes = (
        Node("stem", conv2d((1, PIXELS, PIXELS, 3), 16, 3), ("image",), "stem", slices=4),
        Node("odd", replace(layer, opaque=_opaque(data)), ("stem",), follows=tuple(sizes)),
    )
    return Graph("network", (("image", (1, PIXELS, PIXELS, 3)),), nodes, ("odd",), {_opaque(data).digest: data})


def run(data: bytes) -> list[tuple[int, ...]]:
    onnx.checker.check_model(data, full_check=True)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    values = session.run(None, {value.name: np.ones(value.shape, np.float32) for value in session.get_inputs()})
    return [value.shape for value in values]


@pytest.mark.parametrize("kind", [scaled, grouped])
def test_a_node_is_written_alone_at_a_width_that_was_not_seen(kind) -> None:
    graph = network(kind).at_widths({"stem": 4})
    layer = graph.nodes[1].layer
    file = FORMATS["onnx"].write(Graph.of_layer(layer, graph.opaques))
    (shape,) = run(file)
    assert shape == ((1, 4, PIXELS, PIXELS) if kind is scaled else layer.output)


@pytest.mark.parametrize("kind", [scaled, grouped])
def test_a_network_with_such_a_node_is_written_whole(kind) -> None:
    graph = network(kind).at_widths({"stem": 8})
    assert run(FORMATS["onnx"].write(graph)) == [(1, 8, PIXELS, PIXELS) if kind is scaled else graph.nodes[1].layer.output]


def test_at_its_own_width_a_node_is_the_file_that_was_extracted() -> None:
    data, layer = learnt(scaled)
    assert at_shapes(data, layer) == data


def test_a_node_that_was_seen_at_one_width_has_no_other() -> None:
    data, layer = scaled(16)
    narrow = scaled(8)[1]
    with pytest.raises(ModelError, match="was extracted for inputs of"):
        at_shapes(data, narrow)
    assert at_shapes(data, layer) == data


def test_nodes_with_other_attributes_have_no_template_but_factors_may_differ() -> None:
    def made(op_type: str, **attribute: Any) -> NodeProto:
        return helper.make_node(op_type, ["input_0"], ["output_0"], **attribute)

    for node, has_one in (
        (lambda width: made("Softmax", axis=width % 3), False),
        (lambda width: made("LeakyRelu", alpha=width / 100), True),  # as attention divides by the root of a width
    ):
        files = [file_of(node(width), width, {}, (1, width, 4, 4)) for width in WIDTHS]
        assert (template(files, [scaled(width)[1] for width in WIDTHS]) is not None) == has_one


def test_a_constant_that_is_no_multiple_of_an_input_has_no_template() -> None:
    files = [
        file_of(
            helper.make_node("Reshape", ["input_0", "weight_0"], ["output_0"]), width, {"weight_0": np.array([width - 1])}, (width,)
        )
        for width in WIDTHS
    ]
    assert template(files, [scaled(width)[1] for width in WIDTHS]) is None


def test_a_network_that_follows_is_the_same_from_its_json() -> None:
    graph = network(grouped)
    assert Graph.from_dict(graph.to_dict()) == graph


def test_a_block_in_slices_has_multiples_of_them() -> None:
    assert possible_widths(network(grouped), 1) == {"stem": (4, 8, 12, 16)}


def test_a_layer_that_follows_depends_on_the_block() -> None:
    stem, odd = dependent_layers(network(grouped))
    assert odd.blocks == stem.blocks == {"stem"}


def test_a_size_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(LayerError, match="15 channels cannot be divided by 2"):
        ChannelExpression(0, {"a": 1}, 2).at({"a": 15})


def test_expressions_with_other_divisors_can_be_added() -> None:
    half, third = ChannelExpression(0, {"a": 1}, 2), ChannelExpression(2, {"b": 1}, 3)
    assert half.plus(third).at({"a": 8, "b": 4}) == 6


@pytest.mark.parametrize("kind", [scaled, grouped])
@pytest.mark.parametrize("block", [1, 8])
def test_narrowing_and_executing_can_change_places(kind, block: int) -> None:
    rules, graph = ExecutionRules("onnxruntime", block), network(kind)
    assert rules.executed(graph).at_widths({"stem": 8}).layers == rules.executed(graph.at_widths({"stem": 8})).layers


def test_an_extracted_node_of_another_format_is_refused() -> None:
    graph = network(scaled)
    with pytest.raises(ModelError, match="no form of ours in TFLite"):
        FORMATS["tflite"].write(graph)
    with pytest.raises(ModelError, match="is an operator of an onnx file"):
        FORMATS["tflite"].write(Graph.of_layer(graph.nodes[1].layer, graph.opaques))


def test_a_layer_whose_channels_are_last_in_its_file_is_written_as_it_was_extracted() -> None:
    known = {"x": Tensor((1, 9, 7, 5), TensorProto.INT8), "y": Tensor((1, 5, 9, 7), TensorProto.INT8)}
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])
    model = helper.make_model(helper.make_graph([node], "g", [], []), opset_imports=[helper.make_opsetid("", 17)])
    layer, data = extract(node, Tensors(known, {}, frozenset({"x"})), model, None)
    assert layer.inputs == ((1, 9, 7, 5),)
    assert at_shapes(data, layer) == data
