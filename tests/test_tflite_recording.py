"""Layers of .tflite files that are measured alone with values that their network feeds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from native_models import make_input
from test_profile_cli import run, run_json

from profiler.formats import recorded
from profiler.formats.given import given_inputs
from profiler.formats.tflite.complete import complete_tflite
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.executed import ExecutedModel, executed_by_rules
from profiler.formats.tflite.inputs import split
from profiler.formats.tflite.reader import read_tflite
from profiler.layers.layer import LayerSpec

INT32: int = schema.TensorType.INT32
IDS = make_input(1, 0, (3,), "int32") >> 2  # of whole numbers of 32 bits one bit is left


def lookup() -> bytes:
    """Rows 5 and 6 of a table of 8."""
    emitter = Emitter(1)
    ids, rows = emitter.tensor("ids", (3,), INT32), emitter.tensor("rows", (3,), INT32)
    emitter.operator("ADD", [ids, emitter.constant("five", (5,))], rows, schema.AddOptionsT())
    table, found = emitter.stored("table", np.arange(32, dtype=np.float32).reshape(8, 4)), emitter.activation("found", (3, 4))
    emitter.operator("GATHER", [table, rows], found, schema.GatherOptionsT(axis=0))
    return emitter.finish("lookup", [ids], [found])


def root() -> bytes:
    """The square roots of what is not negative."""
    emitter = Emitter(1)
    x, positive, y = (emitter.activation(name, (1, 16)) for name in ("x", "positive", "y"))
    emitter.operator("RELU", [x], positive)
    emitter.operator("SQRT", [positive], y)
    return emitter.finish("root", [x], [y])


def of_negatives() -> bytes:
    """The square roots of numbers of which some are negative."""
    emitter = Emitter(1)
    x, y = (emitter.activation(name, (1, 16)) for name in ("x", "y"))
    emitter.operator("SQRT", [x], y)
    return emitter.finish("negatives", [x], [y])


def alone(model: ExecutedModel, kind: str) -> tuple[bytes, dict[int, bytes]]:
    """The file of the layer of this kind, and the values in it."""
    (layer,) = [node.layer for node in model.graph.nodes if node.layer.op == kind]
    assert layer.opaque is not None
    return split(model.graph.opaques[layer.opaque.digest])


def computed(data: bytes, values: bytes) -> np.ndarray[Any, Any]:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], np.frombuffer(values, detail["dtype"]).reshape(detail["shape"]))
    interpreter.invoke()
    found: np.ndarray[Any, Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


@pytest.fixture(scope="module")
def rows() -> ExecutedModel:
    return executed_by_rules("lookup", lookup())


def test_a_gather_alone_reads_the_rows_that_the_network_reads(rows: ExecutedModel) -> None:
    data, values = alone(rows, "GATHER")
    np.testing.assert_array_equal(computed(data, values[0])[:, 0] / 4, IDS + 5)


def test_the_values_of_a_network_make_no_other_layer(rows: ExecutedModel, tmp_path: Path) -> None:
    (tmp_path / "lookup.tflite").write_bytes(lookup())
    assert rows.graph.layers == read_tflite(tmp_path / "lookup.tflite").layers


def test_it_is_said_which_layers_are_fed_by_their_network(rows: ExecutedModel) -> None:
    assert rows.remark == "ADD, GATHER are measured alone with values that the network itself feeds"


def test_a_part_of_a_network_is_fed_like_its_layers(rows: ExecutedModel) -> None:
    _, part = rows.stretch(1, 2)
    assert split(part)[1] == alone(rows, "GATHER")[1]


def test_layers_that_depend_on_a_given_input_are_fed_what_follows_from_it(tmp_path: Path) -> None:
    (tmp_path / "lookup.tflite").write_bytes(lookup())
    file = complete_tflite(tmp_path / "lookup.tflite", given_inputs([], ["ids=2"]))
    _, values = alone(executed_by_rules("lookup", file), "GATHER")
    np.testing.assert_array_equal(np.frombuffer(values[0], np.int32), [7, 7, 7])


def test_a_square_root_alone_is_of_numbers_of_which_there_is_one() -> None:
    data, values = alone(executed_by_rules("root", root()), "SQRT")
    assert np.isfinite(computed(data, values[0])).all()


def test_a_network_that_needs_no_values_of_its_own_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("profiler.formats.tflite.recording.run_apart", lambda *_: pytest.fail("it was run"))
    emitter = Emitter(1)
    x, y = (emitter.activation(name, (1, 4)) for name in ("x", "y"))
    emitter.operator("RELU", [x], y)
    model = executed_by_rules("relu", emitter.finish("relu", [x], [y]))
    assert (model.graph.layers, model.remark) == ((LayerSpec("relu", ((1, 4),), (1, 4)),), None)


def test_values_that_are_too_large_are_made_up_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_VALUE_BYTES", 16)
    model = executed_by_rules("root", root())
    assert alone(model, "SQRT")[1] == {}
    assert model.remark == "SQRT is measured alone with made-up values, for the network's own are too large or unknown"


def test_a_network_that_does_not_run_here_has_its_layers_measured_with_made_up_values(tmp_path: Path) -> None:
    (tmp_path / "lookup.tflite").write_bytes(lookup())
    file = complete_tflite(tmp_path / "lookup.tflite", given_inputs([], ["ids=100"]))
    assert alone(executed_by_rules("lookup", file), "GATHER")[1] == {}


@pytest.mark.slow
def test_a_table_of_a_network_that_looks_up_rows_has_all_its_layers(tmp_path: Path) -> None:
    path, table = tmp_path / "lookup.tflite", tmp_path / "t.parquet"
    path.write_bytes(lookup())
    built = run("build", path, "--runtime", "litert", "--out", table, "--rounds", "3")
    assert built.exit_code == 0, built.output
    assert [layer["source"] for layer in run_json("predict", table, path)["layers"]] == ["measured", "measured"]


@pytest.mark.slow
def test_a_build_says_that_neither_a_network_nor_a_layer_of_it_is_finite(tmp_path: Path) -> None:
    path = tmp_path / "negatives.tflite"
    path.write_bytes(of_negatives())
    built = run("build", path, "--runtime", "litert", "--out", tmp_path / "t.parquet", "--rounds", "3")
    said = "its outputs are not finite for these inputs, nor are those of its layers SQRT y alone; --input gives others"
    assert (built.exit_code, f"{path}: {said}" in built.stderr) == (0, True)


@pytest.mark.slow
def test_a_build_says_that_a_layer_alone_is_not_finite_although_its_network_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MOST_VALUE_BYTES", 16)
    path = tmp_path / "root.tflite"
    path.write_bytes(root())
    built = run("build", path, "--runtime", "litert", "--out", tmp_path / "t.parquet", "--rounds", "3")
    said = "the outputs of SQRT y alone are not finite, although those of the network are"
    assert (built.exit_code, f"{path}: {said}" in built.stderr) == (0, True)
