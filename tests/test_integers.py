"""What onnxruntime executes for networks of integers: our rules, and its own answers for files that others quantised."""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_onnx_writer
from asking import BLOCK, answer, asked, read_answer
from graphs import mobilenet_v1
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from netadapt.networks import network_graph
from profiler.errors import LayerError, ModelError
from profiler.formats.model_file import FORMATS
from profiler.formats.onnx.executed import read_executed
from profiler.formats.onnx.reader import read_onnx
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph, Node
from profiler.layers.integers import is_one_operator
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected

RULES = ExecutionRules("onnxruntime", BLOCK)
NETWORKS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "fastdepth")
IMAGE = (1, 12, 12, 16)
NOT_MODELLED = ("conv_transpose2d", "gelu")
CONVERSIONS = ["dequantise", "quantise"]


@cache
def narrow(name: str) -> Graph:
    return network_graph(name, resolution=32, width_multiplier=0.25).with_precision("int8")


def at_random_widths(name: str, step: int) -> Graph:
    full, draws = narrow(name), random.Random(f"{name} {step}")
    return full.at_widths({block: step * draws.randint(1, max(1, width // step)) for block, width in full.widths.items()})


def chain(*layers: LayerSpec) -> Graph:
    """Layers of integers, each of which reads the one before it."""
    names = ["image", *map(str, range(len(layers)))]
    nodes = tuple(Node(names[place + 1], replace(layer, dtype="int8"), (names[place],)) for place, layer in enumerate(layers))
    return Graph("chain", (("image", layers[0].inputs[0]),), nodes, (names[-1],))


def between(layer: LayerSpec, *, is_last: bool) -> Graph:
    """A layer that reads convolutions and is read by one, or makes the output."""
    inputs = tuple((f"x{place}", shape) for place, shape in enumerate(layer.inputs))
    before = [Node(f"c{name}", conv2d(shape, shape[-1], 1), (name,)) for name, shape in inputs]
    nodes = [*before, Node("it", layer, tuple(node.name for node in before))]
    if not is_last:
        nodes.append(Node("after", conv2d(layer.output, 16, 1), ("it",)))
    return Graph("between", inputs, tuple(nodes), (nodes[-1].name,)).with_precision("int8")


def ops(graph: Graph) -> list[str]:
    return [layer.op for layer in RULES.executed(graph).layers]


# the rules


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("step", [8, 3, 1])
def test_the_rules_agree_with_onnxruntime_on_integer_networks_of_random_widths(name: str, step: int) -> None:
    graph = at_random_widths(name, step)
    assert Counter(asked(graph).layers) == Counter(RULES.executed(graph).layers)


IMAGES = {
    name: layer
    for name, layer in test_onnx_writer.LAYERS.items()
    if name not in NOT_MODELLED and all(len(shape) == 4 for shape in (*layer.inputs, layer.output))
}


@pytest.mark.parametrize("is_last", [True, False], ids=["last", "inside"])
@pytest.mark.parametrize("activation", ["none", "relu", "hard_swish"])
@pytest.mark.parametrize("name", IMAGES)
def test_the_rules_agree_on_every_kind_of_layer_between_convolutions(name: str, activation: str, is_last: bool) -> None:
    graph = between(replace(IMAGES[name], activation=activation), is_last=is_last)
    assert Counter(asked(graph).layers) == Counter(RULES.executed(graph).layers)


@pytest.mark.parametrize("name", NOT_MODELLED)
def test_the_rules_do_not_tell_what_is_executed_for_some_layers(name: str) -> None:
    graph = between(test_onnx_writer.LAYERS[name], is_last=True)
    assert Counter(asked(graph).layers) != Counter(RULES.executed(graph).layers)


def test_a_network_of_convolutions_is_copied_at_its_ends_only() -> None:
    graph = chain(conv2d(IMAGE, 8, 3), depthwise_conv2d((1, 12, 12, 8), 3), conv2d((1, 12, 12, 8), 4, 1))
    assert ops(graph) == ["reorder_input", "conv2d", "depthwise_conv2d", "conv2d", "reorder_output"]


def test_a_relu_behind_an_addition_is_its_range() -> None:
    nodes = (
        Node("first", conv2d(IMAGE, 16, 1), ("x",)),
        Node("second", conv2d(IMAGE, 16, 3), ("first",)),
        Node("sum", LayerSpec("add", (IMAGE, IMAGE), IMAGE), ("first", "second")),
        Node("relu", LayerSpec("relu", (IMAGE,), IMAGE), ("sum",)),
    )
    graph = Graph("residual", (("x", IMAGE),), nodes, ("relu",)).with_precision("int8")
    assert ops(graph) == ["reorder_input", "conv2d", "conv2d", "add", "reorder_output"]


def test_a_relu_behind_a_pool_is_a_conversion_to_floats_and_back() -> None:
    pool = LayerSpec("max_pool2d", (IMAGE,), (1, 6, 6, 16), kernel=(2, 2), stride=(2, 2))
    assert ops(chain(pool, LayerSpec("relu", (pool.output,), pool.output))) == ["max_pool2d", *CONVERSIONS]


def test_the_pool_before_a_classifier_moves_the_copy_behind_it() -> None:
    pool = LayerSpec("global_avg_pool", (IMAGE,), (1, 1, 1, 16))
    assert ops(chain(conv2d(IMAGE, 16, 1), pool)) == ["reorder_input", "conv2d", "global_avg_pool", "reorder_output"]


def test_layers_of_floats_are_left_as_they_are() -> None:
    graph = mobilenet_v1(0.25, 32)
    assert ExecutionRules("onnxruntime").executed(graph).layers == graph.layers


@pytest.mark.parametrize("name", [pytest.param("mobilenet_v3_small", marks=pytest.mark.slow), "resnet18"])
def test_narrowing_and_rewriting_can_change_places(name: str) -> None:
    widths = {block: max(1, width * 3 // 7) for block, width in narrow(name).widths.items()}
    narrowed = RULES.executed(narrow(name).at_widths(widths))
    assert Counter(RULES.executed(narrow(name)).at_widths(widths).layers) == Counter(narrowed.layers)


# lone layers


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_an_executed_integer_layer_that_is_left_as_it_is_executes_as_this_layer(name: str) -> None:
    # what a resize, a concatenation or a softmax reads does not show where its channels are
    layers = [layer for layer in RULES.executed(at_random_widths(name, 1)).layers if layer.op != "upsample_nearest"]
    for layer in random.Random(1).sample(list(dict.fromkeys(layers)), 15):
        assert asked(Graph.of_layer(layer, executed=True), as_it_is=True).layers == (layer,)


@pytest.mark.parametrize("layer", [conv2d(IMAGE, 24, 3), fully_connected((1, 16), 24)], ids=["convolution", "product"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_layer_has_the_type_of_its_weights(layer: LayerSpec, dtype: str) -> None:
    layer = replace(layer, dtype=dtype)
    assert asked(Graph.of_layer(layer, executed=True), as_it_is=True).layers == (layer,)


@pytest.mark.parametrize("name", test_onnx_writer.LAYERS)
def test_what_is_one_operator_can_be_written_as_it(name: str) -> None:
    layer = replace(test_onnx_writer.LAYERS[name], dtype="int8")
    write = FORMATS["onnx"].write
    if is_one_operator(layer):
        assert len(asked(Graph.of_layer(layer, executed=True), as_it_is=True).nodes) == 1
    else:
        with pytest.raises(ModelError, match=r"cannot be written as an executed layer|is one node"):
            write(Graph.of_layer(layer, executed=True))


def test_only_images_have_the_channels_last() -> None:
    with pytest.raises(LayerError, match="not images"):
        replace(fully_connected((1, 16), 24), layout="nhwc")


def test_a_conversion_reads_or_makes_four_bytes_a_value() -> None:
    assert LayerSpec("quantise", (IMAGE,), IMAGE, dtype="int8").activation_bytes == 5 * 12 * 12 * 16


# files of onnxruntime's own quantiser


class OneImage(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.images: Iterator[Any] = iter([{name: np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)}])

    def get_next(self) -> Any:
        return next(self.images, None)


def quantised(folder: Path, name: str = "resnet18", **options: Any) -> Path:
    graph = narrow(name).with_precision("float32")
    (folder / "float.onnx").write_bytes(FORMATS["onnx"].write(graph))
    options = {"activation_type": QuantType.QUInt8} | options
    quantize_static(folder / "float.onnx", folder / "quantised.onnx", OneImage(graph.inputs[0][0]), **options)
    return folder / "quantised.onnx"


def executed_for(path: Path) -> Graph:
    return read_answer(path.stem, answer(path.read_bytes()))


@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("quant_format", [QuantFormat.QDQ, QuantFormat.QOperator], ids=["QDQ", "QOperator"])
def test_all_layers_of_a_quantised_file_but_its_classifier_are_written_from_their_shapes(
    quant_format: Any, per_channel: bool, weights: Any, tmp_path: Path
) -> None:
    graph = executed_for(quantised(tmp_path, quant_format=quant_format, per_channel=per_channel, weight_type=weights))
    assert {layer.op for layer in graph.layers if layer.opaque is not None} <= {"fully_connected"}
    assert Counter(layer.op for layer in graph.layers)["conv2d"] == 20


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18"])
def test_the_rules_agree_with_what_is_executed_for_a_quantised_file(name: str, tmp_path: Path) -> None:
    path = quantised(tmp_path, name, per_channel=True)
    assert Counter(RULES.executed(read_onnx(path)).layers) == Counter(executed_for(path).layers)


def test_a_quantised_file_has_the_layers_of_our_own_integer_network_and_the_conversions_at_its_ends(tmp_path: Path) -> None:
    found = Counter(executed_for(quantised(tmp_path, per_channel=True)).layers)
    ours = Counter(RULES.executed(narrow("resnet18")).layers)
    assert not ours - found
    assert sorted(layer.op for layer in found - ours) == CONVERSIONS


def test_pairs_that_are_not_fused_are_listed_as_executed(tmp_path: Path) -> None:
    path = quantised(tmp_path, per_channel=True, activation_type=QuantType.QInt8)
    found = Counter(layer.op for layer in executed_for(path).layers)
    operators = Counter(operator.op for operator in answer(path.read_bytes()).operators)
    assert found["dequantise"] + found["DequantizeLinear"] == operators["DequantizeLinear"] > 1


def test_a_part_of_a_file_may_begin_behind_the_weights_that_it_computes(tmp_path: Path) -> None:
    path = quantised(tmp_path, per_channel=True, activation_type=QuantType.QInt8)
    said = answer(path.read_bytes())
    model = read_executed(path.stem, base64.b64decode(said.graph or ""), said.operators, BLOCK)
    place = next(place for place, node in enumerate(model.graph.nodes) if len(node.inputs) > len(node.layer.inputs) > 0)
    part, file = model.stretch(place, place + 3)
    assert set(model.graph.nodes[place].inputs) <= {name for name, _ in part.inputs}
    assert len(answer(file, as_it_is=True).operators) == 3


def test_operators_on_signed_activations_are_cut_out_with_their_kind_and_macs(tmp_path: Path) -> None:
    options: Any = {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QInt8}
    graph = executed_for(quantised(tmp_path, **options))
    convolutions = [layer for layer in graph.layers if layer.op == "conv2d"]
    assert len(convolutions) == 20 and all(layer.opaque is not None for layer in convolutions)
    assert sum(layer.macs or 0 for layer in graph.layers) == narrow("resnet18").macs
