"""`netadapt run` with weights and images as other programs leave them: what it takes, tells, and refuses at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from netadapt.cli.app import app
from netadapt.runs.run_folder import RunFolder, is_run

NETWORK = """
from torch import nn
def make(num_classes=2):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)
    )
"""


def network(classes: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network's file, and images in train/, val/ and test/."""
    (tmp_path / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for kind, shade in (("dark", 40), ("light", 200)):
            (tmp_path / "images" / part / kind).mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(shade, shade + 40, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / kind / f"{number}.png")
    return tmp_path


def run(folder: Path, weights: object) -> Result:
    torch.save(weights, folder / "w.pt")
    arguments = [
        "run", f"{folder}/net.py:make", "--input", "1x3x16x16", "--data", f"{folder}/images", "--weights", folder / "w.pt",
        "--budget", "macs=90%", "--epochs", 1, "--short-term-steps", 1, "--out", folder / "run",
    ]  # fmt: skip
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_all_but_the_head_is_taken_and_the_original_is_trained_from_there(folder: Path) -> None:
    result = run(folder, {"state_dict": {f"module.{name}": value for name, value in network(1000).state_dict().items()}})
    said = " ".join(result.output.split())
    assert result.exit_code == 0, result.output
    assert "no weights of this size for the head of the network (4.weight, 4.bias)" in said
    assert "val in it is the holdout, whatever --holdout says" in said
    assert "training the original network" in said


def test_whole_weights_are_scored_without_a_training(folder: Path) -> None:
    state = network().state_dict()
    result = run(folder, {"model": state})
    assert result.exit_code == 0, result.output
    assert "training the original network" not in result.output
    with RunFolder.open(folder / "run") as opened:
        kept = torch.load(opened.weights_path(opened.steps[0].weights), weights_only=True)
    assert all(torch.equal(kept[name], state[name]) for name in state)


@pytest.mark.parametrize("weights", [network(), nn.Sequential(nn.Linear(3, 4)).state_dict(), {"epoch": 3}])
def test_weights_that_are_none_of_the_network_leave_no_run(weights: object, folder: Path) -> None:
    result = run(folder, weights)
    assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith("error: ")
    assert not is_run(folder / "run")
