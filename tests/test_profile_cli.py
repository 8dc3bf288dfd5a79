from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from graphs import mobilenet_v1
from test_table import table
from typer.testing import CliRunner, Result

from device_agents.device_lock import device_lock
from device_agents.local import LocalAgent
from profiler.cli.app import app
from profiler.cli.build import default_out
from profiler.formats.model_file import FORMATS
from profiler.protocol.journal import journal_path
from profiler.runtimes import MODELLED_RUNTIME
from profiler.tables.build_request import table_path
from profiler.tables.plan import make_plan, write_plan

NETWORK = mobilenet_v1(0.25, 32, classes=10, pairs=2)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*arguments: object) -> Any:
    return json.loads(succeed(*arguments, "--json"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "network.tflite"
    path.write_bytes(FORMATS["tflite"].write(NETWORK))
    return path


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    table(NETWORK).save(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


@pytest.mark.parametrize(
    "command", [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_a_device_that_another_run_measures_is_told_with_the_option_to_wait(model: Path) -> None:
    with device_lock(LocalAgent()):
        result = run("benchmark", model)
    assert result.exit_code == 1
    assert result.stderr.endswith("; wait for it, or add --wait\n")


def test_devices_lists_this_machine_and_its_runtimes() -> None:
    found = run_json("devices")
    assert found[0]["address"] == "local"
    assert found[0]["runtimes"]["litert"]["version"]


def test_layers_lists_the_groups_of_a_model(model: Path) -> None:
    found = run_json("layers", model)
    assert found["macs"] == NETWORK.macs
    assert sum(layer["occurs"] for layer in found["layers"]) == len(NETWORK.nodes)
    assert "depthwise_conv2d" in run("layers", model).output


def test_model_gives_a_latency_with_its_interval(model: Path) -> None:
    found = run_json("benchmark", model, "--per-layer", "--rounds", "3")
    assert 3 <= found["rounds"] <= 6
    assert 0 < found["latency_ms_low"] <= found["latency_ms"] <= found["latency_ms_high"]
    assert found["runtime"] == "litert"
    assert found["conditions"]
    assert {item["op"] for item in found["operators"]} >= {"Convolution (NHWC, F32) DWConv"}
    assert sum(item["latency_ms"] for item in found["operators"]) <= 1.001 * found["latency_ms"]


def test_build_show_predict_check_and_compare_work_in_a_row(tmp_path: Path, model: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "t.parquet"
    write_plan(make_plan(NETWORK), plan)
    built = run_json("build", plan, "--runtime", "litert", "--out", out, "--rounds", 3)
    assert built["held_out"]["networks"] >= 1
    said = run_json("predict", out, model)
    assert said["missing"] == []
    assert said["latency_ms_low"] < said["latency_ms"] < said["latency_ms_high"]
    assert {layer["source"] for layer in said["layers"]} == {"measured"}
    assert run_json("show", out)["layers_measured"] == built["layers_measured"]
    assert "findings" in run_json("check", out)
    assert run_json("compare", out, out)["median_percent"] == 0


@pytest.mark.parametrize("form", ["text", "csv", "markdown", "json"])
def test_show_prints_every_layer_in_every_format(table_file: Path, form: str) -> None:
    result = run("show", table_file, "--format", form)
    assert result.exit_code == 0
    assert result.output.count("depthwise_conv2d") >= 2


def test_predict_says_which_layers_are_missing(tmp_path: Path, table_file: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(FORMATS["tflite"].write(mobilenet_v1(0.25, 48, classes=10, pairs=2)))
    found = run_json("predict", table_file, other)
    assert found["latency_ms"] is None
    assert found["missing"]
    assert "has no journal beside it, so it cannot be extended" in run("predict", table_file, other).output
    journal_path(table_file).touch()
    assert "--measure-missing` adds them" in run("predict", table_file, other).output


def test_predict_fails_for_a_model_that_is_slower_than_allowed(table_file: Path, model: Path) -> None:
    assert run("predict", table_file, model, "--max-latency-ms", 1e6).exit_code == 0
    slow = run("predict", table_file, model, model, "--max-latency-ms", 1e-6)
    assert slow.exit_code == 1
    assert "is predicted to take" in slow.stderr and "--max-latency-ms allows 1e-06 ms" in slow.stderr


def test_predict_fails_for_a_model_that_it_cannot_hold_to_a_limit(tmp_path: Path, table_file: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(FORMATS["tflite"].write(mobilenet_v1(0.25, 48, classes=10, pairs=2)))
    found = run("predict", table_file, other, "--max-latency-ms", 1e6)
    assert found.exit_code == 1 and re.search(r"the table lacks \d+ of \d+ layers of ", found.stderr)


def test_predict_draws_where_the_latency_goes(table_file: Path, model: Path) -> None:
    chart = table_file.with_name("chart.png")
    assert run("predict", table_file, model, "--chart", chart).exit_code == 0
    assert chart.stat().st_size > 5000


def test_a_table_without_a_path_is_named_after_its_plan_its_device_and_its_runtime() -> None:
    out = default_out([Path("plans/mobilenet.json")], "litert")
    assert table_path(out, "adb:1A2B") == Path("mobilenet-adb-1A2B-litert.parquet")
    assert default_out([Path("a.onnx"), Path("b.onnx")], MODELLED_RUNTIME) == Path("a+b-{device}.parquet")


ERRORS = {
    "a missing model": (["layers", "nowhere.onnx"], "no file"),
    "a file of another kind": (["layers", "notes.txt"], "not a model file"),
    "a truncated model": (["layers", "short.tflite"], "short.tflite"),
    "a garbled onnx model": (["layers", "garbled.onnx"], "garbled.onnx"),
    "a missing table": (["show", "nowhere.parquet"], "profile build"),
    "a damaged table": (["check", "garbled.parquet"], "damaged"),
    "a table for another runtime": (["predict", "t.parquet", "garbled.onnx"], "runtime"),
    "a model for another runtime": (["benchmark", "network.tflite", "--runtime", "onnxruntime"], "onnxruntime"),
    "no threads": (["benchmark", "network.tflite", "--threads", "0"], "--threads"),
    "an unknown device": (["benchmark", "network.tflite", "--device", "phone"], "phone"),
    "a python that does not exist": (["benchmark", "network.tflite", "--python", "no-such-python"], "no-such-python"),
    "a plan that is none": (["build", "garbled.json", "--runtime", "litert", "--out", "new.parquet"], "not a plan"),
    "a table that cannot be one": (["build", "network.tflite", "--runtime", "litert", "--out", "new.txt"], ".parquet"),
}


@pytest.mark.parametrize(("arguments", "said"), ERRORS.values(), ids=ERRORS)
def test_bad_input_gets_one_sentence_and_exit_code_1(
    tmp_path: Path, model: Path, table_file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    for name, data in {"notes.txt": b"x", "short.tflite": model.read_bytes()[:300], "garbled.onnx": b"\x08\xff" * 50}.items():
        (tmp_path / name).write_bytes(data)
    for name in ("garbled.parquet", "garbled.json"):
        (tmp_path / name).write_bytes(b"garbage")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
