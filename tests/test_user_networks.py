"""Networks of the user's own: found by their function, kept with a run, and told apart when something is wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from netadapt.cli.app import app
from netadapt.errors import NetworkError
from netadapt.networks import build_network
from netadapt.networks.plain import plain_network
from netadapt.networks.user_network import parse_inputs
from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import RunFolder
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.tasks import TaskError
from netadapt.training.trying import tried
from netadapt.users_code import absolute_name

PAGE = Path(__file__).parent.parent / "docs/how-to/own-network.md"
TINY = ["--epochs", "0.2", "--short-term-steps", "1"]
SOURCE = """
import torch
from torch import nn

print("loading")


class Net(nn.Module):
    def __init__(self, classes, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1)
        self.classifier = nn.Linear(16, classes)

    def forward(self, images):
        return self.classifier(torch.relu(self.stem(images)).mean((2, 3)))


def grey(num_classes):
    return Net(num_classes, 1)


def seven():
    return Net(7)


def ten(classes=10):
    return Net(classes)


def needs(depth, width):
    return Net(10)


def number():
    return 3


def fails():
    raise RuntimeError("no luck\\ntoday")


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))


class Changes(Net):
    def forward(self, images):
        return super().forward(images.sub_(0.5))


def changes(classes):
    return Changes(classes)


def exported():
    return torch.export.export(Net(10).eval(), (torch.rand(1, 3, 8, 8),)).module()


class Nothing(Net):
    def train(self, mode=True):
        super().train(mode)
        self.stem.eval()


def nothing(classes):
    return Nothing(classes)


made = Net(10)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works, with a module of networks, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in ("usersnets", "needsmore", "leaves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "usersnets.py").write_text(SOURCE)
    (tmp_path / "needsmore.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").touch()
    (tmp_path / "package/inside.py").write_text("from . import other\n")
    (tmp_path / "lonely").mkdir()
    (tmp_path / "lonely/alone.py").write_text("from . import other\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.slow
def test_the_network_of_the_documentation_is_planned_for_and_adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text().split("\n## ")[0]
    (source,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    commands = re.findall(r"^netadapt (.*)$", section, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(source)
    succeed(*commands[0].split())
    succeed(*commands[1].split(), *TINY, "--step", "0.06", "--width-step", "1")
    models = json.loads(succeed("history", "run", "--json").stdout)
    assert len(models) == 3
    assert models[-1]["macs"] <= 0.9 * models[0]["macs"]
    assert set(models[0]["widths"]) == {"stem.0", "left", "right"}


@pytest.mark.slow
def test_a_run_is_exported_from_another_folder_and_a_changed_source_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--input", "1x1x8x8", "--data", "digits", "--budget", "macs=90%", "--out", folder / "run", "--json", "--no-dry-run"]
    result = succeed("run", "usersnets.py:grey", *options, *TINY, "--step", "0.1")
    assert json.loads(result.stdout)["run"] == str(folder / "run")  # what the source prints is elsewhere
    other = folder / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    said = succeed("export", folder / "run", "--format", "tflite")
    assert "PyTorch" in said.stdout and "warning" not in said.stderr
    (folder / "usersnets.py").write_text(SOURCE + "\n# another line\n")
    said = succeed("export", folder / "run", "--format", "onnx")
    assert said.stderr.count("warning: the source of usersnets.py:grey has changed since the run began") == 1
    with RunFolder.open(folder / "run") as opened:
        models = RunModels(opened)
        assert models.options.input_shapes == ((1, 1, 8, 8),)
        assert models.dataset.train.images.shape[1:] == (1, 8, 8)


def test_a_function_is_found_in_a_module_of_the_current_folder(folder: Path) -> None:
    assert build_network("usersnets:ten", classes=12).get_parameter("classifier.weight").shape == (12, 16)
    assert build_network("usersnets:seven", classes=12).get_parameter("classifier.weight").shape == (7, 16)


def test_a_function_of_an_installed_package_is_found() -> None:
    assert isinstance(build_network("torch.nn:Identity"), torch.nn.Identity)


def test_a_file_is_stored_with_its_whole_path_and_everything_else_as_it_is(folder: Path) -> None:
    assert absolute_name("usersnets.py:ten") == f"{folder}/usersnets.py:ten"
    assert absolute_name("usersnets:ten") == "usersnets:ten"
    assert absolute_name("mobilenet_v1") == "mobilenet_v1"


ERRORS = {
    "no such module": (["usernets:ten"], "there is no module 'usernets'"),
    "no such file": (["nets/usersnets.py:ten"], "there is no file"),
    "no such function": (["usersnets:tem"], "did you mean 'ten'"),
    "no function but a module": (["usersnets:made"], "is a Net; name a function"),
    "no module returned": (["usersnets:number"], "returned a int, not a torch.nn.Module"),
    "needs arguments": (["usersnets:needs"], "needs depth, width"),
    "raises": (["usersnets:fails"], "RuntimeError: no luck today (FOLDER/usersnets.py, line 39)"),
    "imports what is missing": (["needsmore:ten"], "No module named 'nowhere_to_be_found' (FOLDER/needsmore.py, line 1)"),
    "is no Python": (["broken.py:f"], "(FOLDER/broken.py, line 1)"),
    "leaves": (["leaves:f"], "SystemExit: 3 (FOLDER/leaves.py, line 2)"),
    "is a file of a package": (
        ["package/inside.py:f"],
        "is a part of the package package; change to the folder FOLDER, and write package.inside in place of the file",
    ),
    "imports from a package that is none": (["lonely/alone.py:f"], "its folder has no __init__.py"),
    "changes its input": (["usersnets:changes"], "usersnets:changes changes its input in place"),
    "is exported": (["usersnets:exported"], "usersnets:exported is a program of torch.export"),
    "takes another input": (["usersnets:grey"], "does not accept an input of 1x3x8x8: RuntimeError"),
    "nothing to prune": (["usersnets:flat"], "nothing in usersnets:flat can be pruned: 1 keeps its width, as it makes an output"),
    "a width multiplier": (["usersnets:ten", "--width-multiplier", "0.5"], "--width-multiplier is for built-in networks only"),
}


@pytest.mark.parametrize(("arguments", "said"), ERRORS.values(), ids=ERRORS)
def test_what_is_wrong_with_a_network_is_told_in_one_sentence(folder: Path, arguments: list[str], said: str) -> None:
    result = run("plan", *arguments, "--input", "1x3x8x8", "--out", "plan.json")
    assert result.exit_code == 1, result.output
    error = result.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert said.replace("FOLDER", str(folder)) in error
    assert "Traceback" not in result.stderr
    assert not (folder / "plan.json").exists()


def test_outputs_that_do_not_fit_the_classes_of_the_data_are_told_before_training(folder: Path) -> None:
    result = run("run", "usersnets:seven", "--input", "1x3x8x8", "--data", "digits", "--budget", "macs=90%", "--out", "run")
    assert result.exit_code == 1
    assert "gives outputs of shape (1, 7) for one image, but the data needs (1, 10)" in result.stderr
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("224", "is not the shape of an input"),
        ("8x8", "is the shape of 8 examples"),
        ("1x3x8x8,", "'' is not the shape of an input"),
        ("1x3x8x8,2x4", "write 1x4"),
        ("2x3x8x8", "write 1x3x8x8"),
        ("1x3x0x8", "is not the shape"),
    ],
)
def test_an_input_that_is_none_is_told(text: str, sentence: str) -> None:
    with pytest.raises(NetworkError, match=sentence):
        parse_inputs(text)


def test_images_of_two_channels_are_refused(folder: Path) -> None:
    result = run("run", "usersnets:ten", "--input", "1x2x8x8", "--data", "digits", "--budget", "macs=90%", "--out", "run")
    assert result.exit_code == 1
    assert "digits have 3 channels, the network takes 2" in result.stderr


WARPED = """
import torch
from torch import nn
from torch.nn import functional


class Warp(nn.Module):
    def forward(self, features):
        there = torch.linspace(-1, 1, 6)
        grid = torch.stack(torch.meshgrid(there, there, indexing="xy"), dim=-1).expand(len(features), -1, -1, -1)
        return functional.grid_sample(features, grid, align_corners=False)


def net(classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), Warp(), nn.MaxPool2d(2, 1, 1, 2), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Flatten(), nn.Linear(288, classes)
    )
"""
NORMALISED = """
from torch import nn


def net(classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Flatten(), nn.Linear(512, classes)
    )
"""


def test_a_plan_says_which_layers_keep_their_widths(folder: Path) -> None:
    (folder / "normalised.py").write_text(NORMALISED)
    said = succeed("plan", "normalised.py:net", "--input", "1x3x8x8", "--classes", "10", "--out", "plan.json").stdout
    assert "  5 keeps its width: it makes an output of the network\n" in said
    assert "ONNX files only" not in said


def test_a_plan_says_which_operators_only_onnx_has(folder: Path) -> None:
    (folder / "warped.py").write_text(WARPED)
    arguments = ["--input", "1x3x8x8", "--classes", "10", "--out", "warped.json", "--no-dry-run"]
    said = succeed("plan", "warped.py:net", *arguments).stdout
    assert "  it can be built for ONNX files only: there is no form of ours in TFLite of GridSample, max_pool2d\n" in said


SETTINGS = {
    "a type": "torch.set_default_dtype(torch.float64)",
    "a device": "torch.set_default_device('meta')",
    "no gradients": "torch.set_grad_enabled(False)",
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_what_a_script_sets_for_its_whole_process_ends_with_it(folder: Path, setting: str) -> None:
    before = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    (folder / "sets.py").write_text(f"{SOURCE}\n{setting}\n")
    try:
        weights = build_network("sets.py:ten").state_dict().values()
        assert (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()) == before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
    assert {(weight.dtype, weight.device.type) for weight in weights} == {(torch.float32, "cpu")}


def test_a_script_that_parses_arguments_finds_none_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["netadapt", "run", "--out", "folder"])
    (folder / "parses.py").write_text(f"import argparse\nargparse.ArgumentParser().parse_args()\n{SOURCE}")
    assert build_network("parses.py:ten") is not None
    assert sys.argv == ["netadapt", "run", "--out", "folder"]


def test_train_of_a_network_may_return_nothing(folder: Path) -> None:
    model = plain_network(build_network("usersnets:nothing", classes=10), ((1, 3, 8, 8),), "net").model
    assert model.train() is model
    assert model.training
    assert not model.get_submodule("stem").training


def test_a_class_is_changed_once_however_many_networks_are_built_of_it(folder: Path) -> None:
    first, second = (
        plain_network(build_network("usersnets:nothing", classes=10), ((1, 3, 8, 8),), "net").model.train.__func__ for _ in range(2)
    )
    assert first is second


def test_a_network_whose_weights_are_all_frozen_is_told(folder: Path) -> None:
    data = open_dataset("digits", resolution=8, channels=3, seed=1, holdout_fraction=0.15)
    frozen = build_network("usersnets:ten").requires_grad_(False)
    with pytest.raises(TaskError, match="no weight of net requires gradients"):
        tried(data, frozen, ((1, 3, 8, 8),), "net")
