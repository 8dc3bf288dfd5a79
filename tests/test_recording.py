"""Layers that are measured alone with what the network feeds them, because made-up values will not do."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import onnx
import pytest
from asking import answer
from onnx import NodeProto, TensorProto, helper
from test_model_inputs import FLOAT, INT64, op, saved, session

from device_agents.on_device.runner.inputs import input_array
from profiler.formats import recorded
from profiler.formats.onnx.complete import complete_onnx
from profiler.formats.onnx.executed import ExecutedModel, read_executed
from profiler.formats.onnx.recording import Recording
from profiler.formats.onnx.tensors import Tensor


def executed(path: Path) -> ExecutedModel:
    file = complete_onnx(path)
    inputs = session(file).get_inputs()
    said = answer(file, feeds={item.name: input_array(1, place, item.shape, np.float32) for place, item in enumerate(inputs)})
    return read_executed(path.stem, base64.b64decode(said.graph or ""), said.operators, 1, file)


def alone(model: ExecutedModel, kind: str) -> bytes:
    """The file that measures the only layer of this kind."""
    (layer,) = [layer for layer in model.graph.layers if layer.op == kind]
    assert layer.opaque is not None
    return model.graph.opaques[layer.opaque.digest]


def run_alone(file: bytes) -> list[np.ndarray]:
    """What it makes with the inputs of a runner."""
    opened = session(file)
    feeds = {item.name: input_array(1, place, item.shape, np.float32) for place, item in enumerate(opened.get_inputs())}
    found: list[np.ndarray] = opened.run(None, feeds)
    return found


def test_the_inputs_are_those_of_the_runners(tmp_path: Path) -> None:
    inputs = {"a": (FLOAT, (3, 5)), "b": (INT64, (4,)), "c": (TensorProto.UINT8, (6,)), "d": (TensorProto.BOOL, (2, 2))}
    nodes = [op("Cast", f"{name}", f"{name}1", to=FLOAT) for name in inputs]
    nodes += [op("ReduceSum", f"{name}1", f"{name}2", keepdims=0) for name in inputs]
    nodes += [op("Sum", "a2 b2 c2 d2", "y")]
    known = {name: Tensor(shape, kind) for name, (kind, shape) in inputs.items()}  # type: ignore[arg-type]
    found = Recording(saved(tmp_path, nodes, inputs, output=()).read_bytes(), known).values(inputs)  # type: ignore[arg-type]
    assert found is not None
    for place, (name, array) in enumerate(found.items()):
        assert np.array_equal(array, input_array(1, place, array.shape, array.dtype)), name


NETWORKS: dict[str, tuple[list[NodeProto], dict[str, np.ndarray]]] = {
    "NonZero": ([op("Relu", "x", "r"), op("NonZero", "r", "n"), op("Cast", "n", "y", to=FLOAT)], {}),
    "Tile": (
        [op("Cast", "x", "i", to=INT64), op("ReduceMax", "i", "k", keepdims=0), op("Add", "k three", "t"),
         op("Expand", "t two", "e"), op("Tile", "x e", "y")],
        {"three": np.int64(3), "two": np.int64([2])},
    ),
    "Gather": (
        [op("ArgMax", "x", "a", axis=1, keepdims=0), op("Add", "a seven", "i"), op("Mod", "i one", "j"), op("Gather", "w j", "y")],
        {"w": np.ones((1, 8), np.float32), "seven": np.int64(7), "one": np.int64(1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["NonZero", "Tile"])
def test_a_layer_alone_makes_as_much_as_in_its_network(kind: str, tmp_path: Path) -> None:
    nodes, weights = NETWORKS[kind]
    model = executed(saved(tmp_path, nodes, {"x": (FLOAT, (4, 8))}, weights, output=None))
    (layer,) = [layer for layer in model.graph.layers if layer.op == kind]
    assert run_alone(alone(model, kind))[0].shape == layer.output
    assert model.remark is not None
    assert kind in model.remark


def test_an_index_stays_inside_of_its_table(tmp_path: Path) -> None:
    nodes, weights = NETWORKS["Gather"]
    model = executed(saved(tmp_path, nodes, {"x": (FLOAT, (4, 8))}, weights, output=None))
    assert run_alone(alone(model, "Gather"))[0].shape == (4, 8)


def test_whole_numbers_are_divided_by_what_the_network_divides_them_by(tmp_path: Path) -> None:
    nodes = [
        op("Cast", "x", "i", to=INT64), op("Mul", "i zero", "z"), op("Add", "z five", "d"), op("Add", "z ten", "n"),
        op("Div", "n d", "q"), op("Cast", "q", "y", to=FLOAT),
    ]  # fmt: skip
    weights = {"zero": np.int64(0), "five": np.int64(5), "ten": np.int64(10)}
    model = executed(saved(tmp_path, nodes, {"x": (FLOAT, (4,))}, weights, output=(4,)))
    assert (run_alone(alone(model, "Div"))[0] == 2).all()


def test_a_layer_that_is_computed_in_another_precision_is_fed_what_the_network_feeds_it(tmp_path: Path) -> None:
    nodes = [
        op("Cast", "x", "h", to=TensorProto.FLOAT16),
        op("Exp", "h", "e"),
        op("Sqrt", "e", "r"),
        op("Cast", "r", "y", to=FLOAT),
    ]
    model = executed(saved(tmp_path, nodes, {"x": (FLOAT, (4, 8))}, output=(4, 8)))
    assert model.remark == "Sqrt is measured alone with values that the network itself feeds"
    assert np.isfinite(run_alone(alone(model, "Sqrt"))[0]).all()


def test_a_layer_whose_values_are_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_VALUE_BYTES", 16)
    nodes, weights = NETWORKS["NonZero"]
    model = executed(saved(tmp_path, nodes, {"x": (FLOAT, (4, 8))}, weights, output=None))
    assert model.remark == "NonZero is measured alone with made-up values, for the network's own are too large or unknown"


def test_layers_for_which_made_up_values_do_are_fed_nothing(tmp_path: Path) -> None:
    model = executed(saved(tmp_path, [op("Round", "x", "r"), op("Softmax", "r", "y")], {"x": (FLOAT, (4, 8))}, output=(4, 8)))
    assert model.remark is None
    assert not onnx.load_model_from_string(alone(model, "Round")).graph.initializer


def test_a_model_that_does_not_run_here_records_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Nothing", ["x"], ["y"], domain="none")], {"x": (FLOAT, (4,))}, output=(4,))
    assert Recording(path.read_bytes(), {"x": Tensor((4,), FLOAT)}).values(["x"]) is None
