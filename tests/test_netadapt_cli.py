"""A whole, tiny run through the commands: a real network, real digits, and a table of a made-up device."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from netadapt.cli.app import app
from netadapt.networks import NETWORKS
from netadapt.runs.run_folder import RunFolder
from profiler.formats.fake import layer_ns
from profiler.interval import Interval
from profiler.latency.validation import HeldOutError, HeldOutNetwork
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.plan import read_plan
from profiler.tables.sampling import corners_of
from profiler.tables.table import Table, TableInfo

pytestmark = pytest.mark.usefixtures("traced_once")
NETWORK = ["mobilenet_v1", "--width-multiplier", "0.25", "--resolution", "32"]
QUICK = ["--data", "digits", "--epochs", "0.25", "--short-term-steps", "1", "--step", "0.12"]


def run(*arguments: object) -> Result:
    """The command. It goes without the dry run, which takes seconds and has tests of its own (test_people_networks.py)."""
    words = [str(argument) for argument in arguments]
    if words and words[0] in ("run", "plan") and not {"--dry-run", "--help"} & set(words):
        words.append("--no-dry-run")
    return CliRunner().invoke(app, words)


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    succeed("plan", *NETWORK, "--classes", 10, "--out", path)
    return path


@pytest.fixture(scope="module")
def table(plan: Path, quick: TimingSettings) -> Path:
    """Of a device that takes as long as the fake runtime would; what is measured for it takes milliseconds."""
    rows = {layer: _exact(layer_ns(layer) / 1e6 + 1e-4) for layer in corners_of(read_plan(plan), {})}
    held_out = HeldOutError.of([HeldOutNetwork("held out", Interval(1.0, 0.9, 1.1), 1.0, 1.0)])
    info = TableInfo(Target(), {"version": "0"}, quick, "2026-01-01T00:00:00+00:00", held_out=held_out)
    path = plan.with_name("table.parquet")
    Table(rows, info).save(path)
    Table(rows, replace(info, held_out=HeldOutError.of([]))).save(plan.with_name("unverified.parquet"))
    Table({layer.with_dtype("int8"): row for layer, row in rows.items()}, info).save(plan.with_name("int8.parquet"))
    return path


def _exact(latency_ms: float) -> Estimate:
    return Estimate(Interval(latency_ms, latency_ms, latency_ms), 6, 100, 6)


@pytest.fixture(scope="module")
def finished_run(table: Path) -> Path:
    path = table.with_name("run")
    succeed("run", *NETWORK, *QUICK, "--table", table, "--budget", "latency=75%", "--out", path)
    return path


def test_networks_are_listed_with_what_they_cost() -> None:
    found = json.loads(succeed("networks", "--width-multiplier", 0.25, "--resolution", 64, "--classes", 10, "--json"))
    assert [network["name"] for network in found] == list(NETWORKS)
    assert found[0]["blocks"] == 14
    assert found[0]["input"] == [1, 3, 64, 64]


def test_a_plan_of_integers_has_layers_of_integers(tmp_path: Path) -> None:
    succeed("plan", *NETWORK, "--classes", 10, "--precision", "int8", "--out", tmp_path / "plan.json")
    assert {layer.dtype for layer in read_plan(tmp_path / "plan.json").graph.layers} == {"int8"}


def test_a_plan_without_a_dry_run_is_traced_only(tmp_path: Path) -> None:
    said = json.loads(succeed("plan", *NETWORK, "--classes", 10, "--out", tmp_path / "plan.json", "--json"))
    assert [part["what"] for part in said["tried"]] == ["traced"]


def test_a_run_has_its_own_copy_of_the_table(finished_run: Path, table: Path) -> None:
    with RunFolder.open(finished_run) as folder:
        assert folder.table_path().read_bytes() == table.read_bytes()


def test_a_stale_table_is_relied_on_and_warned_of(finished_run: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    told = run("run", *NETWORK, *QUICK, "--table", table, "--budget", "latency=75%", "--out", tmp_path / "run", "--resume")
    assert told.exit_code == 0, told.output
    assert f"warning: {table} is stale: it is " in told.output


@pytest.mark.slow
def test_an_unverified_table_is_relied_on_when_asked_to(table: Path, tmp_path: Path) -> None:
    unverified = table.with_name("unverified.parquet")
    told = run(
        "run", *NETWORK, *QUICK, "--table", unverified, "--budget", "latency=95%", "--out", tmp_path / "run", "--allow-unverified"
    )
    assert told.exit_code == 0, told.output
    assert "warning: the table is unverified" in told.output


def test_a_run_ends_within_the_budget_and_keeps_the_family(finished_run: Path) -> None:
    family = json.loads(succeed("history", finished_run, "--json"))
    prices = [step["price"] for step in family]
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] <= 0.75 * prices[0]
    assert all(step["widths"] != before["widths"] for before, step in pairwise(family))


def test_a_run_interrupted_among_candidates_repeats_none_of_them(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed run leaves: the first steps, and some candidates of the next. Its folder has been moved since."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run"
    shutil.copytree(finished_run, path)
    before = (path / "candidates.jsonl").read_text()
    steps = (path / "steps.jsonl").read_text().splitlines(keepends=True)
    (path / "steps.jsonl").write_text("".join(steps[:-1]))
    lost = json.loads(steps[-1])
    for result in lost["results"][2:]:
        (path / "weights" / result["weights"]).unlink(missing_ok=True)
    kept = [result for result in lost["results"] if (path / "weights" / result["weights"]).exists()]
    succeed("resume", path)
    after = (path / "candidates.jsonl").read_text()
    assert after.startswith(before)
    again = [tuple(json.loads(line)["candidate"]["blocks"]) for line in after[len(before) :].splitlines()]
    assert not {tuple(result["candidate"]["blocks"]) for result in kept} & set(again)
    assert json.loads((path / "steps.jsonl").read_text().splitlines()[-1])["widths"] == lost["widths"]


def test_a_run_whose_command_cannot_be_repeated_is_told(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    info["started"]["folder"] = str(tmp_path / "gone")
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    assert "which cannot be opened: No such file" in run("resume", tmp_path / "run").stderr
    info["started"] = None
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    assert "was begun from Python" in run("resume", tmp_path / "run").stderr


def test_finishing_tells_the_accuracy_on_the_test_images(finished_run: Path) -> None:
    found = json.loads(succeed("finetune", finished_run, "--step", 0, "--epochs", 0.25, "--json"))
    assert 0 < found[0]["test_accuracy"] <= 1
    with RunFolder.open(finished_run) as folder:
        assert folder.finished[0].test_accuracy == found[0]["test_accuracy"]


def test_the_ingredients_of_a_long_term_fine_tune_are_kept_with_its_result(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    options = ["--schedule", "one_cycle", "--distill", 0.5, "--temperature", 2, "--label-smoothing", 0.1, "--ema", 0.9]
    succeed("finetune", tmp_path / "run", "--step", 1, "--epochs", 0.25, *options, "--precision", "bfloat16")
    with RunFolder.open(tmp_path / "run") as folder:
        found = folder.finished[1].settings
    assert (found.schedule, found.distill, found.temperature, found.precision) == ("one_cycle", 0.5, 2.0, "bfloat16")
    assert (found.label_smoothing, found.ema) == (0.1, 0.9)


def test_an_exported_step_computes_what_pytorch_does(finished_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    said = succeed("export", finished_run, "--format", "onnx", "--out", path)
    assert path.exists()
    assert "PyTorch" in said


@pytest.mark.slow
def test_verify_and_baselines_put_measured_latencies_beside_the_predicted_ones(finished_run: Path) -> None:
    succeed("baselines", finished_run, "--kind", "multiplier", "--epochs", 0.5)
    found = json.loads(succeed("measure", finished_run, "--step", 0, "--json"))
    assert found[0]["measured_ms"] > 0
    assert found[0]["predicted_ms"] > 0
    with RunFolder.open(finished_run) as folder:
        (baseline,) = folder.baselines
        assert baseline.measured_ms is not None
    page = (finished_run / "report.html").read_text()
    assert baseline.name in page
    assert page == page.replace("http://", "").replace('src="https', "")  # it opens offline


@pytest.mark.slow
def test_a_measurement_that_no_table_of_the_run_predicts_says_where_it_is_made(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    told = run("measure", tmp_path / "run", "--step", 0, "--runtime", "litert")
    assert told.exit_code == 0, told.output
    assert "the run has no table of local with litert" in told.stderr


def test_a_step_whose_weights_have_been_deleted_is_told_though_its_file_is_there(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    with RunFolder.open(tmp_path / "run") as folder:
        folder.exports.mkdir(exist_ok=True)
        (folder.exports / "step000.onnx").touch()
        for weights in folder.weights_path(folder.steps[0].weights).parent.glob("*.pt"):  # of its long-term fine-tune too, if any
            weights.unlink()
    told = run("measure", tmp_path / "run", "--step", 0)
    assert (told.exit_code, told.stderr.count("\n")) == (1, 1), told.output
    assert "there are no weights at" in told.stderr


ERRORS = {
    "an unknown network": (["plan", "mobilenet_v9", "--out", "p.json"], "did you mean"),
    "a plan that cannot be written": (["plan", "mobilenet_v1", "--out", "nowhere/p.json"], ".json"),
    "no such table": (
        ["run", *NETWORK, *QUICK, "--table", "t.parquet", "--budget", "latency=75%", "--out", "new"],
        "profile build",
    ),
    "a latency budget without a table": (["run", *NETWORK, *QUICK, "--budget", "latency=75%", "--out", "new"], "--table"),
    "a budget that is none": (["run", *NETWORK, *QUICK, "--budget", "fast", "--out", "new"], "latency=60%"),
    "a budget above the present price": (["run", *NETWORK, *QUICK, "--budget", "macs=100G", "--out", "new"], "already within"),
    "a budget below what can be reached": (["run", *NETWORK, *QUICK, "--budget", "macs=1", "--out", "new"], "cannot be reached"),
    "a schedule that ends too early": (
        ["run", *NETWORK, *QUICK, "--budget", "macs=50%", "--max-iterations", "2", "--out", "new"],
        "raise --step",
    ),
    "no such data": (["run", *NETWORK, "--data", "nowhere/", "--budget", "macs=75%", "--out", "new"], "nowhere"),
    "a folder without images": (["run", *NETWORK, "--data", "empty", "--budget", "macs=75%", "--out", "new"], "empty"),
    "no such weights": (["run", *NETWORK, *QUICK, "--weights", "w.pt", "--budget", "macs=75%", "--out", "new"], "w.pt"),
    "a table that does not predict": (
        ["run", *NETWORK, *QUICK, "--table", "UNVERIFIED", "--budget", "latency=75%", "--out", "new"],
        "--allow-unverified",
    ),
    "a table of integers": (
        ["run", *NETWORK, *QUICK, "--table", "INT8", "--budget", "latency=75%", "--out", "new"],
        "no float32 layers",
    ),
    "a precision nobody has": (["plan", *NETWORK, "--precision", "int3", "--out", "p.json"], "int8"),
    "a table for another network": (
        ["run", *NETWORK, "--width-multiplier", "0.5", *QUICK, "--table", "TABLE", "--budget", "latency=75%", "--out", "new"],
        "not in the",
    ),
    "an unknown runtime": (["demo", "--runtime", "tensorrt", "--out", "new"], "onnxruntime"),
    "a demo on top of other files": (["demo", "--out", "RUN"], "--resume"),
    "not a run": (["history", "empty"], "not a run"),
    "a step that does not exist": (["export", "RUN", "--step", "99", "--format", "onnx", "--out", "x.onnx"], "no step 99"),
    "a run that is there already": (["run", *NETWORK, *QUICK, "--budget", "macs=75%", "--out", "RUN"], "netadapt resume "),
    "a resume with another seed": (
        ["run", *NETWORK, *QUICK, "--table", "TABLE", "--budget", "latency=75%", "--seed", "9", "--out", "RUN", "--resume"],
        "seed",
    ),
    "weights of another network": (
        ["run", *NETWORK, *QUICK, "--weights", "garbled.pt", "--budget", "macs=75%", "--out", "weights_run"],
        "garbled.pt",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), ERRORS.values(), ids=ERRORS)
def test_bad_input_gets_one_sentence_and_exit_code_1(
    finished_run: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "garbled.pt").write_bytes(b"garbage")
    monkeypatch.chdir(tmp_path)
    before = _files(finished_run)
    others = {name.upper(): table.with_name(f"{name}.parquet") for name in ("unverified", "int8")}
    paths = {"RUN": finished_run, "TABLE": table, **others}
    result = run(*(paths.get(argument, argument) for argument in arguments))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
    assert _files(finished_run) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command", [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
)
def test_every_command_explains_itself(command: str) -> None:
    assert "Usage" in succeed(command, "--help")


def test_a_run_that_is_there_already_is_refused_before_anything_is_tried(finished_run: Path) -> None:
    told = run("run", *NETWORK, "--data", "digits", "--budget", "macs=90%", "--out", finished_run, "--dry-run")
    assert told.exit_code == 1 and "holds a run already" in told.stderr
    assert "trying the whole way" not in told.output


def test_help_needs_nothing_of_the_adapt_extra() -> None:
    extra = ["torch", "matplotlib", "jinja2", "sklearn", "PIL", "torch_pruning", "litert_torch", "onnxscript"]
    code = f"import sys, netadapt.cli.app; sys.exit(', '.join(set({extra}) & set(sys.modules)) or 0)"
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_without_torch_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    result: Any = run("networks")
    assert result.exit_code == 1
    assert "pip install" in result.stderr
