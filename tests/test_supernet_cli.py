"""A super-network through the commands: trained, interrupted, searched in by samples of several blocks, and checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_netadapt_cli import NETWORK, run, succeed

from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import RunFolder
from netadapt.supernet.folder import SuperNetworkFolder
from netadapt.training.trainer import score

pytestmark = pytest.mark.usefixtures("traced_once")
DATA = ["--data", "digits"]
DESCENT = ["--search", "descent", "--samples", 3, "--blocks", 4, "--step", 0.12]
BUDGETS = ["--budget", "macs=85%", "--budget", "parameters=95%"]


@pytest.fixture(scope="module")
def supernet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("supernet") / "S"
    said = json.loads(succeed("supernet", *NETWORK, *DATA, "--steps", 2, "--out", path, "--json"))
    assert (said["supernet"], said["steps"]) == (str(path), 2)
    return path


@pytest.fixture(scope="module")
def searched(supernet: Path) -> Path:
    path = supernet.with_name("run")
    succeed("run", *NETWORK, *DATA, *BUDGETS, *DESCENT, "--supernet", supernet, "--out", path)
    return path


@pytest.mark.slow
def test_a_search_in_a_super_network_ends_within_every_budget(searched: Path) -> None:
    with RunFolder.open(searched) as folder:
        first, *_, last = folder.steps
        assert folder.info.settings.search.candidates == "supernet"
    assert last.prices["macs"] <= 0.85 * first.prices["macs"]
    assert last.prices["parameters"] <= 0.95 * first.prices["parameters"]
    assert len(last.results) == 3


def test_a_step_is_the_super_network_sliced_and_scores_what_was_recorded(searched: Path) -> None:
    with RunFolder.open(searched) as folder:
        models, step = RunModels(folder), folder.steps[-1]
        assert score(models.model(step), models.dataset.holdout).accuracy == step.accuracy


def test_only_the_weights_of_steps_are_kept(searched: Path) -> None:
    with RunFolder.open(searched) as folder:
        assert {path.name for path in (searched / "weights").iterdir()} == {step.weights for step in folder.steps}


def test_a_step_is_trained_from_random_weights_too_and_taught_by_the_widest(searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    command = ["finetune", tmp_path / "run", "--step", 1, "--epochs", 0.1, "--distill", 0.5]
    trained = []
    for options in ([], ["--from-scratch"], ["--from-scratch"]):
        succeed(*command, *options)
        with RunFolder.open(tmp_path / "run") as folder:
            trained.append(folder.finished[1])
    sliced, scratch, again = trained
    assert sliced.training[0].startswith(f"from {folder.steps[1].weights}")
    assert scratch.training[0] == "from random weights"
    assert scratch.settings.learning_rate == folder.info.settings.training.recipe.from_scratch.learning_rate
    assert scratch.settings.distill == 0.5
    assert again == scratch


@pytest.mark.slow
def test_worker_processes_find_the_same(searched: Path, supernet: Path, tmp_path: Path) -> None:
    options = ["--supernet", supernet, "--out", tmp_path / "run", "--workers", 2]
    succeed("run", *NETWORK, *DATA, *BUDGETS, *DESCENT, *options)
    with RunFolder.open(searched) as one, RunFolder.open(tmp_path / "run") as other:
        assert one.steps == other.steps


def test_a_search_interrupted_among_samples_goes_on(searched: Path, supernet: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    lines = (tmp_path / "run" / "steps.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "steps.jsonl").write_text(lines[0])
    succeed("run", *NETWORK, *DATA, *BUDGETS, *DESCENT, "--supernet", supernet, "--out", tmp_path / "run", "--resume")
    with RunFolder.open(searched) as one, RunFolder.open(tmp_path / "run") as other:
        assert one.steps == other.steps


@pytest.mark.slow
def test_the_search_of_single_blocks_judges_its_candidates_in_the_super_network_too(supernet: Path, tmp_path: Path) -> None:
    options = ["--candidates", "supernet", "--supernet", supernet, "--step", 0.1, "--out", tmp_path / "run"]
    succeed("run", *NETWORK, *DATA, "--budget", "macs=90%", *options)
    with RunFolder.open(tmp_path / "run") as folder:
        assert all(len(step.blocks) == 1 and len(step.results) > 3 for step in folder.steps[1:])


@pytest.mark.slow
def test_a_trained_super_network_is_not_trained_again(supernet: Path) -> None:
    before = (supernet / "weights.pt").read_bytes()
    succeed("supernet", *NETWORK, *DATA, "--steps", 2, "--out", supernet, "--resume")
    assert (supernet / "weights.pt").read_bytes() == before


@pytest.mark.slow
def test_a_super_network_that_starts_from_trained_weights_has_its_channels_sorted(supernet: Path, tmp_path: Path) -> None:
    succeed("supernet", *NETWORK, *DATA, "--steps", 1, "--weights", supernet / "weights.pt", "--out", tmp_path / "sorted")
    with SuperNetworkFolder.open(supernet) as one, SuperNetworkFolder.open(tmp_path / "sorted") as other:
        assert one.about.order == {}
        assert set(other.about.order) == set(other.about.widths)
        assert any(order != tuple(range(len(order))) for order in other.about.order.values())


@pytest.mark.slow
def test_the_order_is_checked_shape_by_shape_and_told_in_reports(searched: Path, supernet: Path) -> None:
    said = json.loads(succeed("supernet-check", supernet, "--shapes", 2, "--epochs", 0.05, "--json"))
    assert len(said["trained_shapes"]) == said["shapes"] == 2
    more = json.loads(succeed("supernet-check", supernet, "--shapes", 3, "--epochs", 0.05, "--json"))
    assert more["trained_shapes"][:2] == said["trained_shapes"]
    assert "rank correlation (Kendall)" in succeed("supernet-check", supernet, "--shapes", 3, "--epochs", 0.05)
    succeed("report", searched)
    assert "of 3 random shapes: " in (searched / "report.html").read_text()
    told = run("supernet-check", supernet, "--shapes", 4, "--epochs", 0.1)
    assert (told.exit_code, "had another training" in told.stderr) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--search", "descent"], "candidates are judged in a super-network; name one with --supernet"),
        (["--supernet", "S"], "--supernet is of use with --search descent or --candidates supernet only"),
        (["--search", "descent", "--supernet", "S", "--seed", 2], "was trained with --seed 1, not 2; use the same --seed"),
        (["--search", "descent", "--supernet", "S", "--holdout", 0.3], "was trained with --holdout 0.15, not 0.3"),
        (["--search", "descent", "--supernet", "S", "--width-step", 4], "was trained with --width-step 8 and --min-width 8"),
        (["--search", "descent", "--supernet", "elsewhere"], "is no super-network: it has no supernet.json"),
    ],
)
def test_a_super_network_that_does_not_fit_gets_one_sentence(
    supernet: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    words = [supernet if word == "S" else word for word in arguments]
    told = run("run", *NETWORK, *DATA, "--budget", "macs=85%", *words, "--out", tmp_path / "run")
    assert told.exit_code == 1
    assert said in told.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_super_network_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    told = run("supernet", *NETWORK, *DATA, "--out", tmp_path)
    assert (told.exit_code, "is not empty and no super-network" in told.stderr) == (1, True)


RESIDUAL = """
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1))

    def forward(self, features):
        return features + self.layers(features)


def network(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), Residual(), Residual(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""


@pytest.fixture(scope="module")
def residuals(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The options of a network of two residual branches, of which a super-network with --bypass lies beside its file."""
    path = tmp_path_factory.mktemp("residuals")
    (path / "residuals.py").write_text(RESIDUAL)
    options: list[object] = [f"{path / 'residuals.py'}:network", "--resolution", 16, *DATA]
    result = run("supernet", *options, "--bypass", "--steps", 2, "--out", path / "S")
    assert result.exit_code == 0, result.output
    assert "can be removed: 2, 3" in result.output
    return [*options, "--supernet", path / "S", "--search", "descent", "--samples", 3, "--step", 0.5]


@pytest.fixture(scope="module")
def shallow(residuals: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to a budget that only a network without one of its branches meets."""
    path = tmp_path_factory.mktemp("shallow") / "run"
    succeed("run", *residuals, "--budget", "macs=20%", "--out", path)
    return path


@pytest.mark.slow
def test_a_search_removes_branches_and_a_step_is_the_super_network_without_them(shallow: Path) -> None:
    with RunFolder.open(shallow) as folder:
        models, step = RunModels(folder), folder.steps[-1]
        assert 0 in step.widths.values()
        assert step.prices["macs"] == models.graph(step.widths).macs <= 0.2 * folder.graph.macs
        assert score(models.model(step), models.dataset.holdout).accuracy == step.accuracy


@pytest.mark.slow
def test_a_search_that_removes_branches_goes_on_after_an_interruption(
    residuals: list[object], shallow: Path, tmp_path: Path
) -> None:
    shutil.copytree(shallow, tmp_path / "run")
    lines = (tmp_path / "run" / "steps.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "steps.jsonl").write_text("".join(lines[:-1]))
    succeed("run", *residuals, "--budget", "macs=20%", "--out", tmp_path / "run", "--resume")
    with RunFolder.open(shallow) as one, RunFolder.open(tmp_path / "run") as other:
        assert one.steps == other.steps


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_a_network_without_branches_is_fine_tuned_and_exported_as_it_scores(shallow: Path, file_format: str) -> None:
    succeed("finetune", shallow, "--epochs", 0.1)
    said = json.loads(succeed("export", shallow, "--format", file_format, "--json"))
    assert said["accuracy"] == pytest.approx(said["torch_accuracy"], abs=0.01)


@pytest.mark.slow
def test_random_shapes_of_a_check_may_lack_branches(residuals: list[object]) -> None:
    said = json.loads(
        succeed("supernet-check", residuals[residuals.index("--supernet") + 1], "--shapes", 3, "--epochs", 0.05, "--json")
    )
    assert any(0 in shape["widths"].values() for shape in said["trained_shapes"])


@pytest.mark.slow
def test_a_network_without_residuals_has_nothing_to_bypass(tmp_path: Path) -> None:
    result = run("supernet", *NETWORK, *DATA, "--bypass", "--steps", 1, "--out", tmp_path / "S")
    assert result.exit_code == 1
    assert "nothing in mobilenet_v1 can be removed: --bypass needs residual branches" in result.output
    assert not (tmp_path / "S").exists()
