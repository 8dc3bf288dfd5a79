"""Networks of which a part runs or not by the value of an input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from profiler.cli.app import app
from profiler.cli.branches import warn_of_branches
from profiler.formats.given import NOTHING
from profiler.formats.onnx.branches import decided_by_inputs

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
NODE, INFO = helper.make_node, helper.make_tensor_value_info


def branch(name: str, op: str, *reads: str) -> onnx.GraphProto:
    return helper.make_graph([NODE(op, list(reads), [f"{name}_out"])], name, [], [INFO(f"{name}_out", FLOAT, (1, 256))])


def saved(path: Path, nodes: list[onnx.NodeProto], *inputs: onnx.ValueInfoProto, **weights: np.ndarray) -> Path:
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [INFO("x", FLOAT, (1, 256)), *inputs], [INFO("y", FLOAT, (1, 256))], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def chosen(condition: str) -> onnx.NodeProto:
    branches = {"then_branch": branch("dear", "MatMul", "x", "w"), "else_branch": branch("other", "Relu", "x")}
    return NODE("If", [condition], ["y"], name="rate", **branches)


WEIGHTS = {"w": np.ones((256, 256), np.float32), "r": np.int64(16000)}


@pytest.fixture
def by_rate(tmp_path: Path) -> Path:
    return saved(tmp_path / "m.onnx", [NODE("Equal", ["sr", "r"], ["is"]), chosen("is")], INFO("sr", INT, ()), **WEIGHTS)


def test_a_branch_chosen_by_an_input_is_named_with_it(by_rate: Path) -> None:
    assert decided_by_inputs(by_rate) == [("rate", "sr")]


def test_a_branch_chosen_by_the_images_themselves_is_named_too(tmp_path: Path) -> None:
    nodes = [
        NODE("ReduceMax", ["x"], ["most"], keepdims=0), NODE("Cast", ["most"], ["is"], to=BOOL), chosen("is"),
    ]  # fmt: skip
    assert decided_by_inputs(saved(tmp_path / "m.onnx", nodes, w=WEIGHTS["w"])) == [("rate", "x")]


def test_a_loop_whose_count_is_an_input_is_named(tmp_path: Path) -> None:
    takes = [INFO("i", INT, ()), INFO("go", BOOL, ()), INFO("state", FLOAT, (1, 256))]
    gives = [INFO("on", BOOL, ()), INFO("next", FLOAT, (1, 256))]
    body = helper.make_graph([NODE("Identity", ["go"], ["on"]), NODE("Relu", ["state"], ["next"])], "body", takes, gives)
    path = saved(tmp_path / "m.onnx", [NODE("Loop", ["count", "", "x"], ["y"], body=body)], INFO("count", INT, ()))
    assert decided_by_inputs(path) == [("Loop", "count")]


def test_a_branch_within_a_branch_is_found(tmp_path: Path) -> None:
    inner = helper.make_graph([chosen("is")], "inner", [], [INFO("y", FLOAT, (1, 256))])
    outer = NODE("If", ["always"], ["y"], name="outer", then_branch=inner, else_branch=branch("else", "Relu", "x"))
    nodes = [NODE("Equal", ["sr", "r"], ["is"]), outer]
    path = saved(tmp_path / "m.onnx", nodes, INFO("sr", INT, ()), always=np.bool_(True), **WEIGHTS)
    assert decided_by_inputs(path) == [("rate", "sr")]


@pytest.mark.parametrize(
    "nodes",
    [
        [chosen("always")],
        [
            NODE("Shape", ["x"], ["s"]),
            NODE("ReduceMax", ["s"], ["m"], keepdims=0),
            NODE("Cast", ["m"], ["is"], to=BOOL),
            chosen("is"),
        ],
        [NODE("Relu", ["x"], ["y"])],
    ],
)
def test_a_network_that_always_runs_the_same_is_not_named(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    assert decided_by_inputs(saved(tmp_path / "m.onnx", nodes, always=np.bool_(True), w=WEIGHTS["w"])) == []


def test_layers_warns_of_it(by_rate: Path) -> None:
    result = CliRunner().invoke(app, ["layers", str(by_rate)])
    assert result.exit_code == 0, result.output
    assert "what rate runs depends on the value of the input sr, which is made up here" in result.stderr


def test_a_file_that_has_gone_since_it_was_measured_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_branches([tmp_path / "gone.onnx"], NOTHING)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'gone.onnx'} cannot be read: No such file or directory; whether it runs")
