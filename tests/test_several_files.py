"""Several model files in one command: each has its line, and the error of one does not stop the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import mobilenet_v1
from test_profile_cli import run, run_json
from test_table import table

from profiler.formats.model_file import FORMATS

SMALL, LARGE = mobilenet_v1(0.25, 32, classes=10, pairs=1), mobilenet_v1(0.25, 32, classes=10, pairs=2)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A TFLite file, one that is damaged, and an ONNX file."""
    (tmp_path / "a.tflite").write_bytes(FORMATS["tflite"].write(SMALL))
    (tmp_path / "b.onnx").write_bytes(b"no model")
    (tmp_path / "c.onnx").write_bytes(FORMATS["onnx"].write(LARGE))
    return [tmp_path / "a.tflite", tmp_path / "b.onnx", tmp_path / "c.onnx"]


@pytest.mark.slow
def test_files_of_two_runtimes_are_benchmarked_and_the_damaged_one_is_told(files: list[Path]) -> None:
    result = run("benchmark", "--rounds", "3", *files)
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [str(files[0]), str(files[2])]
    assert f"error: {files[1]} is not a model" in result.stderr


@pytest.mark.slow
def test_several_benchmarks_are_a_list_of_json_in_which_an_error_is_one_of_them(files: list[Path]) -> None:
    found = json.loads(run("benchmark", "--rounds", "3", *files, "--json").stdout)
    assert [item["model"] for item in found] == list(map(str, files))
    assert [item.get("runtime") for item in found] == ["litert", None, "onnxruntime"]
    assert "is not a model" in found[1]["error"]


def test_the_layers_of_several_files_are_listed_each_below_its_name(files: list[Path]) -> None:
    result = run("layers", *files)
    assert (result.exit_code, [line for line in result.stdout.splitlines() if line.endswith(":")]) == (
        1,
        [f"{files[0]}:", f"{files[2]}:"],
    )


def test_several_predictions_are_one_line_each(tmp_path: Path) -> None:
    table(LARGE).save(tmp_path / "t.parquet")
    for name, graph in (("one", SMALL), ("two", LARGE)):
        (tmp_path / f"{name}.tflite").write_bytes(FORMATS["tflite"].write(graph))
    lines = run("predict", tmp_path / "t.parquet", tmp_path / "one.tflite", tmp_path / "two.tflite").stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(tmp_path / "one.tflite"), str(tmp_path / "two.tflite")]


def test_one_file_is_an_object_of_json(files: list[Path]) -> None:
    assert run_json("layers", files[0])["model"] == str(files[0])


def test_a_damaged_table_is_told_once(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"no table")
    result = run("predict", tmp_path / "t.parquet", *files)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_a_model_in_the_place_of_the_table_is_told(files: list[Path]) -> None:
    assert "the table comes first" in run("predict", files[0], "t.parquet").stderr
