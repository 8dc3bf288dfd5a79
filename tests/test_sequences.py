"""Convolutions of sequences and volumes: they are pruned, counted, and written at other widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from sequence_families import LENGTH, SEQUENCES
from torch import nn

from netadapt.pruning.couplings import Couplings
from profiler.formats.model_file import FORMATS
from profiler.formats.onnx.opaque import at_shapes, template
from profiler.formats.onnx.reader import read_onnx
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec


def blocks(name: str) -> list[tuple[str, ...]]:
    torch.manual_seed(0)
    return Couplings(SEQUENCES[name][0]().eval(), (LENGTH,)).blocks()


def test_convolutions_of_sequences_are_blocks() -> None:
    assert blocks("m5") == [("0",), ("4",), ("8",)]


def test_a_residual_couples_convolutions_of_sequences() -> None:
    assert ("body.0.b", "body.0.same", "body.1.b") in blocks("temporal convolutions")


def test_a_gated_convolution_of_sequences_loses_the_same_channels_of_each_half() -> None:
    couplings = Couplings(SEQUENCES["wavenet"][0]().eval(), (LENGTH,))
    assert couplings.slices("gated.0") == 2


def test_a_flatten_of_a_sequence_keeps_the_numbers_of_a_channel_side_by_side() -> None:
    couplings = Couplings(SEQUENCES["separable over sequences"][0]().eval(), (LENGTH,))
    assert couplings.readers("11")["15"][1] == [4, 5, 6, 7]


def test_convolutions_of_volumes_are_blocks() -> None:
    model = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 16, 3), nn.ReLU(), nn.Conv3d(16, 2, 1)).eval()
    assert Couplings(model, ((1, 1, 8, 8, 8),)).blocks() == [("0",), ("2",)]


def depthwise_and_plain(path: Path, width: int, outputs: int) -> Graph:
    """A file of a depthwise and a plain convolution over a sequence of 20 numbers, at these widths."""
    depthwise, weights = np.ones((width, 1, 3), np.float32), np.ones((outputs, width, 5), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "depthwise"], ["y"], group=width, pads=[1, 1], kernel_shape=[3]),
        helper.make_node("Conv", ["y", "weights", "bias"], ["z"], strides=[2], kernel_shape=[5]),
    ]
    stored = {"depthwise": depthwise, "weights": weights, "bias": np.ones(outputs, np.float32)}
    graph = helper.make_graph(
        nodes, "sequence", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, width, 20))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return read_onnx(path)


def test_the_operations_of_convolutions_of_sequences_count(tmp_path: Path) -> None:
    graph = depthwise_and_plain(tmp_path / "sequence.onnx", 6, 4)
    assert [layer.macs for layer in graph.layers] == [20 * 6 * 3, 8 * 4 * 6 * 5]


def learnt(folder: Path, place: int) -> tuple[LayerSpec, bytes]:
    """One of the two convolutions at its widths in the first of three files, and the template of all."""
    graphs = [depthwise_and_plain(folder / "sequence.onnx", *widths) for widths in ((8, 12), (4, 6), (6, 8))]
    layers = [graph.layers[place] for graph in graphs]
    files = [graph.opaques[layer.opaque.digest] for graph, layer in zip(graphs, layers, strict=True) if layer.opaque]
    made = template(files, layers)
    assert made is not None
    return layers[0], made


def test_a_depthwise_convolution_of_sequences_is_written_with_as_many_groups_as_channels(tmp_path: Path) -> None:
    layer, data = learnt(tmp_path, 0)
    narrow = layer.extracted_at([(1, 20, 5)], (1, 20, 5))
    session = ort.InferenceSession(at_shapes(data, narrow), providers=["CPUExecutionProvider"])
    assert session.run(None, {"input_0": np.ones((1, 5, 20), np.float32)})[0].shape == (1, 5, 20)
    assert narrow.macs == 20 * 5 * 3


def test_a_convolution_of_sequences_is_written_with_other_output_channels(tmp_path: Path) -> None:
    layer, data = learnt(tmp_path, 1)
    narrow = layer.extracted_at(layer.inputs, (1, 8, 7))
    session = ort.InferenceSession(at_shapes(data, narrow), providers=["CPUExecutionProvider"])
    assert session.run(None, {"input_0": np.ones((1, 8, 20), np.float32)})[0].shape == (1, 7, 8)


def test_the_weights_of_a_narrower_convolution_of_sequences_take_fewer_bytes(tmp_path: Path) -> None:
    layer, _ = learnt(tmp_path, 1)
    assert layer.extracted_at(layer.inputs, (1, 8, 6)).weight_bytes == layer.weight_bytes // 2


def test_a_lone_convolution_of_sequences_is_written_for_both_runtimes(tmp_path: Path) -> None:
    graph = depthwise_and_plain(tmp_path / "sequence.onnx", 6, 4)
    lone = Graph.of_layer(graph.layers[1], graph.opaques)
    session = ort.InferenceSession(FORMATS["onnx"].write(lone), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 6, 20]
    assert FORMATS["tflite"].write(lone)
