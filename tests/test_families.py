"""Networks of many families: every channel that can be is in a block, and what is narrowed counts, runs and is exported alike."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from all_families import NETWORKS, shape_of
from torch import nn
from torch.nn.modules.conv import _ConvNd

from netadapt.export.files import export_onnx, export_tflite
from netadapt.pruning.counting import count_macs
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import Traced, trace_with_reasons
from profiler.formats.model_file import FORMATS
from profiler.layers.channels import nearest, possible_widths

pytestmark = pytest.mark.slow


@cache
def traced(name: str) -> tuple[nn.Module, Traced]:
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    return model, trace_with_reasons(model, (shape_of(name),), name)


@cache
def narrowed(name: str) -> nn.Module:
    model, found = traced(name)
    widths = {block: nearest(choices, 0.6 * choices[-1]) for block, choices in possible_widths(found.graph, 1).items()}
    narrow = prune(model, found.graph, widths)
    assert found.graph.at_widths(widths).macs == count_macs(narrow, (shape_of(name),))
    return narrow


def channels(model: nn.Module, names: set[str]) -> int:
    """The output channels of these layers, without depthwise ones, whose channels are those before them."""
    layers = [layer for name, layer in model.named_modules() if name in names]
    plain = [layer for layer in layers if not isinstance(layer, _ConvNd) or layer.groups == 1 or layer.groups < layer.in_channels]
    return sum(
        layer.out_features if isinstance(layer, nn.Linear) else int(layer.get_parameter("weight").shape[0]) for layer in plain
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_channel_that_can_be_is_in_a_block(name: str) -> None:
    model, found = traced(name)
    kept = {layer for layer, reason in found.fixed.items() if reason != "it makes an output of the network"}
    assert channels(model, kept) == NETWORKS[name][1]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_narrowed_graph_has_the_macs_of_the_narrowed_network(name: str) -> None:
    narrowed(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_narrowed_network_computes_the_same_in_onnx(name: str, tmp_path: Path) -> None:
    export_onnx(narrowed(name), (shape_of(name),), tmp_path / "narrow.onnx")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_narrowed_network_computes_the_same_in_tflite(name: str, tmp_path: Path) -> None:
    export_tflite(narrowed(name), (shape_of(name),), tmp_path / "narrow.tflite")


@pytest.mark.parametrize("name", NETWORKS)
def test_litert_runs_the_narrowed_network_as_it_is_measured_for_tables(name: str) -> None:
    graph = traced(name)[1].graph
    widths = {block: nearest(choices, 0.6 * choices[-1]) for block, choices in possible_widths(graph, 1).items()}
    interpreter = Interpreter(model_content=FORMATS["tflite"].write(graph.at_widths(widths)), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()
