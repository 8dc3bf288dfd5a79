"""MobileNetV2 and V3, ResNet and FastDepth: published counts, blocks across additions, and graphs that follow every width."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from netadapt.input_shapes import InputShape
from netadapt.networks import NetworkError, build_network, describe
from netadapt.networks.resnet import ResNet
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import trace
from profiler.formats.onnx.writer import write_onnx
from profiler.formats.tflite.writer import write_tflite
from profiler.interval import Interval
from profiler.latency.interpolation import Grid
from profiler.layers.graph import Graph
from profiler.measure.estimate import Estimate
from profiler.tables.plan import make_plan
from profiler.tables.sampling import corners_of

NAMES = ("mobilenet_v2", "mobilenet_v3_small", "resnet18", "bottleneck", "fastdepth")
CLASSES = 10
# of the released FastDepth: stem and pairs, then the decoder, whose stages 2 to 4 are tied to the pairs 5, 3 and 1
PRUNED_ENCODER = (16, 56, 88, 120, 144, 256, 408, 376, 272, 288, 296, 328, 480, 512)
PRUNED_DECODER = (200, 256, 120, 56, 16)


@cache
def _model(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "bottleneck":  # ResNet-50 with every stage as short as can be
        return ResNet((2, 1, 1, 1), 0.25, CLASSES, 3, bottleneck=True)
    if name == "fastdepth":
        return build_network(name)
    return build_network(name, width_multiplier=0.5, classes=CLASSES)


def _shape(name: str) -> InputShape:
    """Small, but for FastDepth the one of the published counts."""
    size = 224 if name == "fastdepth" else 64
    return (1, 3, size, size)


@cache
def _graph(name: str) -> Graph:
    return trace(_model(name), (_shape(name),), name)


def _widths(graph: Graph) -> dict[str, int]:
    chance = random.Random(graph.name)
    return {block: chance.randint(2, width) for block, width in graph.widths.items()}


def _blocks(graph: Graph) -> dict[str, set[str]]:
    """Members of each block."""
    return {block: {node.name for node in graph.nodes if node.block == block} for block in graph.widths}


def _macs(model: nn.Module) -> int:
    """At 224 pixels; of convolutions and linear layers. The model must be on the meta device, where nothing is computed."""
    counted = []

    def count(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        counted.append(output.numel() * module.get_parameter("weight")[0].numel())

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    model.eval()(torch.zeros(1, 3, 224, 224, device="meta"))
    return sum(counted)


@pytest.mark.parametrize(
    ("name", "parameters", "mega_macs"),
    [  # torchvision lists 3504872 and 0.30, 2542856 and 0.06, 11689512 and 1.81, 25557032 and 4.09 for the same layouts
        ("mobilenet_v2", 3_504_872, 300.8),
        ("mobilenet_v3_small", 2_542_856, 56.5),  # 2.5 million and 56 million in the paper
        ("resnet18", 11_689_512, 1814.1),
        ("resnet50", 25_557_032, 4089.2),
    ],
)
def test_a_network_has_the_published_number_of_parameters_and_macs(name: str, parameters: int, mega_macs: float) -> None:
    with torch.device("meta"):
        model = build_network(name)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert round(_macs(model) / 1e6, 1) == mega_macs


@pytest.mark.slow
def test_fastdepth_has_the_published_number_of_weights_and_macs() -> None:
    graph = _graph("fastdepth")
    assert _weights(graph) == 3_933_088  # 3.93 million in the paper, which leaves batch normalisation out
    assert round(graph.macs / 1e9, 4) == 0.7367  # 0.74 G in the paper


def _weights(graph: Graph) -> int:
    return sum(math.prod(layer.weight_shape) for layer in graph.layers if layer.weight_shape)


def test_fastdepth_at_the_released_pruned_widths_has_their_number_of_weights_and_macs() -> None:
    names = ["stem.conv", *(f"pairs.{index}.pointwise.conv" for index in range(13))]
    names += [f"decoder.{index}.pointwise.conv" for index in range(5)]
    every_width = dict(zip(names, (*PRUNED_ENCODER, *PRUNED_DECODER), strict=True))
    graph = _graph("fastdepth")
    pruned = graph.at_widths({block: every_width[block] for block in graph.widths})
    assert {node.name: node.layer.out_channels for node in pruned.nodes if node.name in every_width} == every_width
    assert (_weights(pruned), round(pruned.macs / 1e9, 4)) == (1_343_664, 0.3664)  # 1.34 million and 0.37 G in the paper


def test_what_fastdepth_adds_shares_one_block() -> None:
    blocks = {block: members for block, members in _blocks(_graph("fastdepth")).items() if len(members) > 1}
    assert blocks == {
        f"pairs.{pair}.pointwise.conv": {f"pairs.{pair}.pointwise.conv", f"decoder.{stage}.pointwise.conv"}
        for pair, stage in ((0, 3), (2, 2), (4, 1))
    }


def test_fastdepth_has_sixteen_blocks_and_its_head_none() -> None:
    graph = _graph("fastdepth")
    head = next(node for node in graph.nodes if node.name == "head.conv")
    assert (head.layer.op, head.layer.out_channels, head.block) == ("conv2d", 1, None)
    assert len(graph.widths) == 16


def test_fastdepth_gives_one_depth_for_every_pixel_of_any_image() -> None:
    with torch.inference_mode():
        assert _model("fastdepth").eval()(torch.zeros(2, 3, 50, 70)).shape == (2, 1, 50, 70)


def test_fastdepth_takes_no_number_of_classes() -> None:
    with pytest.raises(NetworkError, match="fastdepth has no classifier and cannot have 7 classes"):
        build_network("fastdepth", classes=7)


def test_residuals_of_one_stage_of_resnet_share_a_block() -> None:
    members = _blocks(_graph("resnet18"))
    assert members["stem.conv"] == {"stem.conv", "stages.0.0.layers.1.conv", "stages.0.1.layers.1.conv"}
    assert members["stages.1.0.shortcut.conv"] == {
        "stages.1.0.shortcut.conv", "stages.1.0.layers.1.conv", "stages.1.1.layers.1.conv",
    }  # fmt: skip
    assert len(members) == 12  # the stem and stage 1 share one, three stages of their own, eight inside the residuals


def test_inside_a_bottleneck_every_width_is_free() -> None:
    members = _blocks(_graph("bottleneck"))
    outer = [block for block, names in members.items() if len(names) > 1]
    assert len(outer) == 4  # one a stage
    assert len(members) == 1 + 4 + 2 * 5  # the stem, the stages, two in each residual


def test_a_bottleneck_strides_in_its_3x3() -> None:
    strides = {node.name: node.layer.stride for node in _graph("bottleneck").nodes if "stages.1.0.layers" in node.name}
    assert list(strides.values()) == [(1, 1), (2, 2), (1, 1)]


def test_mobilenet_v2_has_a_block_for_every_expansion_and_one_for_every_width_between() -> None:
    members = _blocks(_graph("mobilenet_v2"))
    projections = [len(names) for block, names in members.items() if block.endswith("project.conv")]
    assert projections == [1, 2, 3, 4, 3, 3, 1]
    assert len(members) == 1 + 16 + 7 + 1  # the stem, the expansions, the projections, the last


def test_gates_of_mobilenet_v3_share_the_block_of_what_they_gate() -> None:
    members = _blocks(_graph("mobilenet_v3_small"))
    gated = [block for block, names in members.items() if any("gate.expand" in name for name in names)]
    assert len(gated) == 9
    assert members["blocks.3.layers.expand.conv"] == {"blocks.3.layers.expand.conv", "blocks.3.layers.gate.expand"}


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18"])
def test_a_description_counts_what_a_trace_finds(name: str) -> None:
    description, graph = describe(name, width_multiplier=0.5, resolution=64, classes=CLASSES), _graph(name)
    assert (description.macs, description.blocks) == (graph.macs, len(graph.widths))


def test_a_thinner_mobilenet_v2_keeps_its_last_features() -> None:
    assert _graph("mobilenet_v2").widths["last.conv"] == 1280


@pytest.mark.parametrize("name", [name if name == "bottleneck" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_the_graph_at_other_widths_is_the_graph_of_the_pruned_network(name: str) -> None:
    graph = _graph(name)
    widths = _widths(graph)
    assert trace(prune(_model(name), graph, widths), (_shape(name),), name) == graph.at_widths(widths)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_at_other_widths_runs_in_onnxruntime(name: str) -> None:
    graph = _graph(name)
    session = ort.InferenceSession(write_onnx(graph.at_widths(_widths(graph))), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {graph.inputs[0][0]: np.ones(_shape(name), np.float32)})
    assert output.shape == ((1, 1, 224, 224) if name == "fastdepth" else (1, CLASSES))
    assert np.isfinite(output).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_at_other_widths_runs_in_litert(name: str) -> None:
    graph = _graph(name)
    interpreter = Interpreter(model_content=write_tflite(graph.at_widths(_widths(graph))))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones(graph.inputs[0][1], np.float32))
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert output.shape == ((1, 224, 224, 1) if name == "fastdepth" else (1, CLASSES))
    assert np.isfinite(output).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_at_any_multiple_of_eight_is_priced_by_the_corners_of_the_plan(name: str) -> None:
    graph = _graph(name)
    grid = Grid({layer: Estimate(Interval(1.0, 1.0, 1.0), 6, 100, 6) for layer in corners_of(make_plan(graph), {})}, {})
    widths = {block: max(8, width // 8 * 8) for block, width in _widths(graph).items()}
    assert [layer.key for layer in graph.at_widths(widths).layers if grid.interpolate(layer) is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_measures_few_layers_of_each_kind_that_the_network_has(name: str) -> None:
    graph = _graph(name)
    layers = corners_of(make_plan(graph), {})
    assert len(layers) < 25 * len(set(graph.layers))  # five widths in, five out
    assert {layer.op for layer in layers} == {layer.op for layer in graph.layers}
