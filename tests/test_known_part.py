"""Files with operators that onnxruntime does not know: what can be listed is, and the rest is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper
from test_model_inputs import FLOAT, op, saved
from test_profile_cli import run, run_json

from profiler.formats.given import NOTHING
from profiler.formats.onnx.known_part import known_part

WEIGHTS = {"w": np.ones((4, 3, 3, 3), np.float32)}
IMAGES = {"images": (FLOAT, (1, 3, 8, 8))}


def decoder(reads: str, makes: str) -> NodeProto:
    return helper.make_node("Decode", [reads], [makes], domain="my.decoder")


def network(folder: Path, *, declared: bool = False) -> Path:
    """A convolution, an operator of another domain, and a ReLU behind it."""
    nodes = [op("Conv", "images w", "c"), decoder("c", "d"), op("Relu", "d", "y")]
    path = saved(folder, nodes, IMAGES, WEIGHTS, output=(1, 4, 6, 6))  # type: ignore[arg-type]
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("my.decoder", 1))
    if declared:
        model.graph.value_info.append(helper.make_tensor_value_info("d", FLOAT, (1, 4, 6, 6)))
    onnx.save(model, path)
    return path


def test_what_is_before_an_unknown_operator_is_listed_and_the_rest_is_named(tmp_path: Path) -> None:
    found = run_json("layers", network(tmp_path))
    assert "conv2d" in {layer["op"] for layer in found["layers"]}
    assert "Decode of my.decoder and 1 operator behind" in found["remainder"]
    assert "cannot be measured" in found["remainder"]


def test_what_is_behind_an_unknown_operator_is_listed_if_the_file_says_what_it_makes(tmp_path: Path) -> None:
    found = known_part(network(tmp_path, declared=True), NOTHING)
    assert found is not None
    assert [layer.op for layer in found[0].layers] == ["conv2d", "relu"]
    assert "behind" not in found[2]


def test_a_network_with_an_unknown_operator_is_not_benchmarked(tmp_path: Path) -> None:
    result = run("benchmark", network(tmp_path), "--rounds", "3")
    assert result.exit_code == 1
    assert "Decode" in result.stderr


def test_a_file_newer_than_the_runtime_is_listed_with_the_way_to_measure_it(tmp_path: Path) -> None:
    path = saved(tmp_path, [op("Conv", "images w", "y")], IMAGES, WEIGHTS, output=(1, 4, 6, 6), opset=99)  # type: ignore[arg-type]
    found = run_json("layers", path)
    assert "conv2d" in {layer["op"] for layer in found["layers"]}
    assert "of opset 99" in found["remainder"]


def test_a_file_that_is_refused_for_another_reason_has_no_known_part(tmp_path: Path) -> None:
    nodes = [op("Conv", "images w", "c", name="twice"), op("Relu", "c", "y", name="twice")]
    assert known_part(saved(tmp_path, nodes, IMAGES, WEIGHTS, output=(1, 4, 6, 6)), NOTHING) is None  # type: ignore[arg-type]


def test_a_file_of_unknown_operators_alone_has_no_known_part(tmp_path: Path) -> None:
    path = saved(tmp_path, [decoder("images", "y")], IMAGES, output=(1,))  # type: ignore[arg-type]
    assert known_part(path, NOTHING) is None
