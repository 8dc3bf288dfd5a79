"""Adding something is one file and one line: each toy of tests/toys is entered in its registry and used through the commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import typer
from graphs import mobilenet_v1
from test_table import table
from typer.testing import CliRunner

from device_agents.discovery import AGENTS
from netadapt.baselines import BASELINES, Registered
from netadapt.cli.app import app as netadapt_app
from netadapt.networks import NETWORKS
from netadapt.pruning.importance import IMPORTANCES, Criterion
from netadapt.resources import RESOURCES
from netadapt.runs.run_folder import RunFolder
from netadapt.training.datasets import DATASETS, DatasetEntry
from netadapt.training.tasks import TASKS
from profiler.cli.app import app as profile_app
from profiler.exchange.formats import FORMATS, ForeignFormat
from profiler.formats.model_file import FORMATS as MODEL_FORMATS
from profiler.runner_names import RUNNERS
from profiler.runtimes import RUNTIMES, Runtime
from profiler.tables.plan import read_plan
from profiler.tables.table import load_table

pytestmark = pytest.mark.usefixtures("traced_once")
TESTS = Path(__file__).parent
ROOT = TESTS.parent
TOYS = {
    "AGENTS": (AGENTS, "toys.device:ToyAgent"),
    "RUNNERS": (RUNNERS, "toys.runner:ToyRunner"),
    "RUNTIMES": (RUNTIMES, Runtime("toy", "onnx", fusion=None)),
    "NETWORKS": (NETWORKS, "toys.network:toy"),
    "TASKS": (TASKS, "toys.task:Brier"),
    "DATASETS": (DATASETS, DatasetEntry("toys.dataset:load_squares", "toy")),
    "IMPORTANCES": (IMPORTANCES, Criterion("toys.importance:last", "the last channels stay")),
    "RESOURCES": (RESOURCES, "toys.channels:Channels"),
    "BASELINES": (BASELINES, Registered("toys.baseline:Unpruned", "the original from random weights")),
    "FORMATS": (FORMATS, ForeignFormat("the toy format", (".toy",), "toys.table_format:read", "toys.table_format:write")),
}
"""Each registry and the toy's entry, the one line that a contributor adds."""
GRAPH = mobilenet_v1(0.25, 32, classes=10, pairs=2)
BOARD = '[devices.board]\naddress = "local"\nrunner = "toy"\n'
NETWORK = f"{TESTS}/toys/network.py:toy"
TINY = ["--resolution", "16", "--epochs", "0.1", "--short-term-steps", "1", "--step", "0.3"]


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Enters the toy in the registries of these names."""

    def enter(*names: str) -> None:
        for name in names:
            registry, entry = TOYS[name]
            monkeypatch.setitem(registry, "toy", entry)

    return enter


def profile(*arguments: object) -> str:
    return invoke(profile_app, arguments)


def netadapt(*arguments: object) -> str:
    """Without the dry run, which takes seconds."""
    return invoke(netadapt_app, (*arguments, "--no-dry-run") if arguments[0] in ("run", "plan") else arguments)


def invoke(app: typer.Typer, arguments: Sequence[object]) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    path.write_bytes(MODEL_FORMATS["onnx"].write(GRAPH))
    return path


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without toys."""
    path = tmp_path_factory.mktemp("adapted") / "run"
    netadapt("run", NETWORK, *TINY, "--data", "digits", "--budget", "macs=90%", "--out", path)
    return path


def test_a_device_kind_is_listed_and_measured(add: Callable[..., None], model: Path) -> None:
    """Asked by our own runner, and measured by the toy's, which takes no time."""
    add("AGENTS", "RUNNERS")
    (listed,) = [device for device in json.loads(profile("devices", "--json")) if device["address"] == "toy:board"]
    assert listed["runtimes"]["onnxruntime"]["version"]
    found = json.loads(profile("benchmark", model, "--device", "toy:board", "--runner", "toy", "--json"))
    assert (found["device"], found["runtime"]) == ("toy:board", "onnxruntime")
    assert found["latency_ms"] > 0


def test_a_runner_measures(add: Callable[..., None], model: Path) -> None:
    add("RUNNERS")
    found = json.loads(profile("benchmark", model, "--runner", "toy", "--json"))
    assert found["fingerprint"]["runner"] == "toy"
    assert found["latency_ms"] == pytest.approx(model.stat().st_size / 16 / 1000, rel=1e-4)


def test_a_runner_is_named_in_the_file_of_devices(
    add: Callable[..., None], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("RUNNERS")
    monkeypatch.setenv("PROFILE_CONFIG", "")  # --config sets it for the process: the tests after this one get it back as it was
    (tmp_path / "profile.toml").write_text(BOARD)
    found = json.loads(profile("--config", tmp_path / "profile.toml", "benchmark", model, "--device", "board", "--json"))
    assert found["fingerprint"]["runner"] == "toy"


def test_a_runtime_is_measured_with_by_a_runner_that_knows_it(add: Callable[..., None], model: Path) -> None:
    add("RUNTIMES", "RUNNERS")
    found = json.loads(profile("benchmark", model, "--runner", "toy", "--runtime", "toy", "--json"))
    assert (found["runtime"], found["fingerprint"]["runtime"]) == ("toy", "toy")


def test_a_network_is_planned_and_adapted(add: Callable[..., None], tmp_path: Path) -> None:
    add("NETWORKS")
    netadapt("plan", "toy", "--resolution", 16, "--out", tmp_path / "plan.json")
    assert len(read_plan(tmp_path / "plan.json").graph.widths) == 3
    found = json.loads(
        netadapt("run", "toy", *TINY, "--data", "digits", "--budget", "macs=60%", "--out", tmp_path / "run", "--json")
    )
    assert found["steps"][-1]["macs"] <= 0.6 * found["steps"][0]["macs"]


def test_a_task_is_learnt_from_a_dataset_that_is_made_for_it(
    add: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add("TASKS")
    monkeypatch.setitem(DATASETS, "for toy", DatasetEntry("toys.dataset:load_squares_for_toy_task", "for toy"))
    netadapt("run", NETWORK, *TINY, "--data", "for toy", "--budget", "macs=60%", "--out", tmp_path / "run")
    assert all("brier" in step["holdout_metrics"] for step in json.loads(netadapt("history", tmp_path / "run", "--json")))
    assert "Brier score" in netadapt("finetune", tmp_path / "run", "--step", 0, "--epochs", 1)


def test_a_dataset_is_learnt(add: Callable[..., None], tmp_path: Path) -> None:
    add("DATASETS")
    netadapt("run", NETWORK, *TINY, "--data", "toy", "--budget", "macs=60%", "--out", tmp_path / "run")
    with RunFolder.open(tmp_path / "run") as folder:
        assert folder.info.settings.data.source == "toy"
        assert folder.info.settings.network.classes == 2


def test_a_resource_has_a_budget(add: Callable[..., None], tmp_path: Path) -> None:
    add("RESOURCES")
    found = json.loads(
        netadapt("run", NETWORK, *TINY, "--data", "digits", "--budget", "toy=60%", "--out", tmp_path / "run", "--json")
    )
    channels = [sum(step["widths"].values()) for step in found["steps"]]
    assert [step["prices"]["toy"] for step in found["steps"]] == channels
    assert channels[-1] <= 0.6 * channels[0]
    assert "channels" in netadapt("history", tmp_path / "run")


def test_an_importance_criterion_decides_which_channels_stay(add: Callable[..., None], tmp_path: Path) -> None:
    add("IMPORTANCES")
    options = ["--importance", "toy", "--short-term-learning-rate", 1e-12, "--data", "digits", "--budget", "macs=75%"]
    netadapt("run", NETWORK, *TINY, *options, "--out", tmp_path / "run")
    with RunFolder.open(tmp_path / "run") as folder:
        before, after = (torch.load(folder.weights_path(folder.steps[number].weights), weights_only=True) for number in (0, 1))
        (block,), width = folder.steps[1].blocks, folder.steps[1].widths[folder.steps[1].blocks[0]]
    assert 0 < width < len(before[f"{block}.weight"])
    assert torch.allclose(after[f"{block}.weight"], before[f"{block}.weight"][-width:], atol=1e-6)


@pytest.mark.slow
def test_a_baseline_is_trained(add: Callable[..., None], monkeypatch: pytest.MonkeyPatch, adapted: Path) -> None:
    """Measured by the toy runner, which takes no time."""
    add("BASELINES", "RUNNERS")
    adapted.with_name("profile.toml").write_text(BOARD)
    monkeypatch.setenv("PROFILE_CONFIG", str(adapted.with_name("profile.toml")))
    (found,) = json.loads(netadapt("baselines", adapted, "--kind", "toy", "--epochs", 0.1, "--device", "board", "--json"))
    with RunFolder.open(adapted) as folder:
        assert (found["kind"], found["widths"]) == ("toy", dict(folder.steps[0].widths))
    assert "unpruned original" in (adapted / "report.html").read_text()


def test_a_table_format_is_written_and_read(add: Callable[..., None], tmp_path: Path) -> None:
    add("FORMATS")
    ours = table(GRAPH)
    ours.save(tmp_path / "ours.parquet")
    profile("export", tmp_path / "ours.parquet", "--format", "toy", "--out", tmp_path / "out.toy")
    profile("import", tmp_path / "out.toy", "--format", "toy", "--device-name", "board", "--out", tmp_path / "again.parquet")
    again = load_table(tmp_path / "again.parquet")
    before_ms = {layer: row.latency_ms.value for layer, row in ours.rows.items()}
    assert {layer: row.latency_ms.value for layer, row in again.rows.items()} == before_ms


def test_a_table_format_is_known_by_its_ending(add: Callable[..., None], tmp_path: Path) -> None:
    add("FORMATS")
    table(GRAPH).save(tmp_path / "ours.parquet")
    profile("export", tmp_path / "ours.parquet", "--format", "toy", "--out", tmp_path / "out.toy")
    profile("import", tmp_path / "out.toy", "--device-name", "board", "--out", tmp_path / "again.parquet")
    assert (load_table(tmp_path / "again.parquet").info.imported or {})["format"] == "toy"


def test_the_help_lists_what_was_added() -> None:
    """In a process of its own, since help texts are made while the commands' modules are loaded."""
    script = """
from device_agents.discovery import AGENTS
from netadapt.baselines import BASELINES, Registered
from netadapt.pruning.importance import IMPORTANCES, Criterion
from netadapt.resources.registry import RESOURCES
from netadapt.training.datasets import DATASETS, DatasetEntry
from profiler.exchange.formats import FORMATS, ForeignFormat
from profiler.runner_names import RUNNERS
from profiler.runtimes import RUNTIMES, Runtime

AGENTS["toy-device"] = "toys.device:ToyAgent"
RUNNERS["toy-runner"] = "toys.runner:ToyRunner"
RUNTIMES["toy-runtime"] = Runtime("toy-runtime", "onnx", None)
DATASETS["toy-dataset"] = DatasetEntry("toys.dataset:load_squares", "toy-dataset")
IMPORTANCES["toy-importance"] = Criterion("toys.importance:last", "the last channels stay")
RESOURCES["toy-resource"] = "toys.channels:Channels"
BASELINES["toy-baseline"] = Registered("toys.baseline:Unpruned", "the original from random weights")
FORMATS["toy-format"] = ForeignFormat("the toy format", (".toy",), "toys.table_format:read", "toys.table_format:write")

from typer.testing import CliRunner
import netadapt.cli.app
import profiler.cli.app

for app, command in (
    (profiler.cli.app.app, "benchmark"), (profiler.cli.app.app, "import"), (profiler.cli.app.app, "export"),
    (netadapt.cli.app.app, "run"), (netadapt.cli.app.app, "baselines"),
):
    words = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"}).output
    print(command, "".join(words.replace("\u2502", " ").split()))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS)))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    expected = {
        "benchmark": ("toy:NAME", "toy-runner", "toy-runtime"), "import": ("toy-format", "toy-runtime"), "export": ("toy-format",),
        "run": ("toy-dataset", "toy-importance", "toy-resource"), "baselines": ("toy-baseline",),
    }  # fmt: skip
    assert not [(command, name) for command, names in expected.items() for name in names if name not in said[command]]


@pytest.mark.parametrize("name", TOYS)
def test_the_page_for_contributors_names_the_registry_and_its_module(name: str) -> None:
    row = next(line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if f"`{name}` in `" in line)
    (module,) = re.findall(rf"`{name}` in `([\w/.]+)`", row)
    assert re.search(rf"^{name}\b", (ROOT / module).read_text(), re.MULTILINE)
