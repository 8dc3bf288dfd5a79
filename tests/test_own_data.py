"""The user's own data and task: functions by name, what they may return, and the sentences for what they may not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from netadapt.cli.app import app
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.recipe import TrainSettings
from netadapt.training.streaming import Stream, StreamedPart
from netadapt.training.tasks import TaskError, chosen_task
from netadapt.training.tasks.users import UsersTask
from netadapt.training.trainer import score, train
from netadapt.training.trying import tried
from netadapt.training.types import Dataset
from netadapt.users_code import UsersError

NETWORK = """
from torch import nn

def make_net():
    return nn.Sequential(
        nn.Conv2d(5, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
"""
DATA = """
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

class Noisy(Dataset):
    classes = ["a", "b", "c"]

    def __init__(self, count):
        self.labels = torch.arange(count) % 3
        self.images = torch.zeros(count, 5, 8, 12) + self.labels.view(-1, 1, 1, 1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index] + 0.1 * torch.randn(5, 8, 12), int(self.labels[index])

def make_data():
    return Noisy(60), DataLoader(Noisy(30), batch_size=8)
"""
TASK = """
def loss(outputs, targets):
    return (outputs[:, 0] - targets.float()).square().mean()

def evaluate(outputs, targets):
    error = (outputs[:, 0] - targets.float()).square()
    return {"minus_error": -error, "error": error}

lower_is_better = ("error",)
"""
SHAPE = (1, 5, 8, 12)


def write(folder: Path, data: str = DATA, name: str = "mydata.py") -> str:
    (folder / name).write_text(data)
    return f"{folder / name}:make_data"


def opened(folder: Path, data: str = DATA) -> Dataset:
    return open_dataset(write(folder, data), resolution=224, seed=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def test_datasets_and_loaders_become_three_parts_of_any_shape(tmp_path: Path) -> None:
    found = opened(tmp_path)
    assert found.classes == ("a", "b", "c")
    assert found.train.shapes == ((5, 8, 12),)
    assert (len(found.train), len(found.holdout), len(found.test)) == (51, 9, 30)


def test_the_holdout_has_every_class_in_its_share_and_is_the_same_for_a_seed(tmp_path: Path) -> None:
    found, again = opened(tmp_path), opened(tmp_path)
    labels = found.holdout.batch(torch.arange(9))[1]
    assert torch.bincount(labels).tolist() == [3, 3, 3]
    assert torch.equal(labels, again.holdout.batch(torch.arange(9))[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_random_changes_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    found, models = opened(tmp_path), [network(), network()]
    assert isinstance(found.train, StreamedPart)
    streams = [Stream(found.train.stream.source, count) for count in (0, workers)]
    for model, stream in zip(models, streams, strict=True):
        part = StreamedPart(stream, found.train.indices, found.train.shapes, (), (), False, found.task)
        train(model, part, TrainSettings(0.05, steps=6, batch_size=16), seed=3)
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_an_iteration_that_was_left_does_not_disturb_the_next(tmp_path: Path) -> None:
    found = opened(tmp_path)
    assert isinstance(found.train, StreamedPart)
    stream, groups = Stream(found.train.stream.source, 2), [torch.arange(start, start + 4) for start in range(0, 40, 4)]
    left = stream.batches(groups)
    next(left)
    labels = [batch[1].tolist() for batch in stream.batches(groups)]
    assert labels == [[index % 3 for index in group.tolist()] for group in groups]


def test_reading_leaves_the_random_numbers_of_others_alone(tmp_path: Path) -> None:
    found = opened(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found.train.batch(torch.arange(8))
    assert torch.equal(torch.rand(3), expected)


def test_several_inputs_reach_the_network_in_their_order(tmp_path: Path) -> None:
    data = DATA.replace("return self.images[index] + 0.1 * torch.randn(5, 8, 12),", "return (self.images[index], torch.ones(7)),")

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, images: Tensor, others: Tensor) -> Tensor:
            result: Tensor = self.linear(torch.cat([images.mean(dim=(1, 2, 3))[:, None], others], dim=1))
            return result

    found = opened(tmp_path, data)
    assert found.train.shapes == ((5, 8, 12), (7,))
    model = Two()
    train(model, found.train, TrainSettings(0.1, steps=60, batch_size=16), seed=0)
    assert score(model, found.test).accuracy > 0.6


def test_functions_in_the_file_of_the_data_are_its_task(tmp_path: Path) -> None:
    found = tried(opened(tmp_path, DATA + TASK), network(), (SHAPE,), "net")
    assert [metric.name for metric in (found.task.accuracy, *found.task.metrics)] == ["minus_error", "error"]
    assert found.task.metrics[0].lower_is_better
    scores = score(network(), found.test)
    assert scores.accuracy == pytest.approx(-scores.metrics["error"])


def test_a_class_is_a_task_and_one_number_is_a_score(tmp_path: Path) -> None:
    (tmp_path / "mytask.py").write_text(
        "class Mine:\n    def loss(self, outputs, targets):\n        return outputs.square().mean()\n"
        "    def evaluate(self, outputs, targets):\n        return 40.0\n"
    )
    task = chosen_task(f"{tmp_path / 'mytask.py'}:Mine")
    found = open_dataset(write(tmp_path), resolution=224, seed=1, task=task)
    assert score(network(), found.test).accuracy == 40.0


def test_a_task_of_ones_own_judges_a_built_in_dataset(tmp_path: Path) -> None:
    (tmp_path / "mytask.py").write_text(TASK)
    found = open_dataset("digits", resolution=8, seed=1, task=chosen_task(str(tmp_path / "mytask.py")))
    assert isinstance(found.task, UsersTask)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 1))
    assert tried(found, model, ((1, 3, 8, 8),), "net").task.accuracy.name == "minus_error"


@pytest.mark.slow
def test_a_run_with_data_and_task_of_ones_own_is_the_same_in_worker_processes(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    data = write(tmp_path, DATA + TASK)
    steps = []
    for name, more in (("here", []), ("there", ["--workers", "2", "--data-workers", "1"])):
        arguments = ["run", f"{tmp_path / 'net.py'}:make_net", "--input", "1x5x8x12", "--data", data, "--budget", "macs=70%"]
        training = ["--epochs", "1", "--batch-size", "16", "--short-term-steps", "2", "--step", "0.3"]
        result = CliRunner().invoke(app, [*arguments, *training, "--out", str(tmp_path / name), *more])
        assert result.exit_code == 0, result.output
        steps.append((tmp_path / name / "steps.jsonl").read_text())
    assert steps[0] == steps[1]
    stored = json.loads((tmp_path / "here" / "run.json").read_text())["settings"]
    assert stored["data"]["source"] == data
    assert stored["training"]["task"] == str(tmp_path / "mydata.py")


def wrong(old: str, new: str) -> str:
    assert old in DATA + TASK
    return (DATA + TASK).replace(old, new)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (wrong("return Noisy(60), DataLoader(Noisy(30), batch_size=8)", "pass"), r"returned nothing \(None\); it is asked"),
        (wrong("return Noisy(60), ", "raise OSError('no disk'); return "), r"make_data failed: OSError: no disk; it is asked"),
        (wrong("Noisy(60), ", "Noisy(0), "), "train of mydata.py:make_data is empty"),
        (wrong("DataLoader(Noisy(30), batch_size=8)", "Noisy(0)"), "test of mydata.py:make_data is empty"),
        (wrong("Noisy(60), ", "iter([1]), "), "has no examples by number"),
        (wrong("(5, 8, 12), int(self.labels[index])", "(5, 8, 12)"), r"is a Tensor; it must be a pair \(inputs, target\)"),
        (wrong("return self.images[index]", "return self.images[index, :, index == 7 :], 0  #"), r"example 7 of .* 5x7x12"),
        (wrong("0.1 * torch.randn(5, 8, 12)", "0 / (index - 7)"), r"example 7 of .* failed: ZeroDivisionError"),
        (wrong("0.1 * torch.randn(5, 8, 12)", "(float('nan') if index == 7 else 0)"), r"example 7 of .* that are not finite"),
        (wrong("self.images[index] + 0.1 * torch.randn(5, 8, 12)", "'a path'"), "are a str; they must be a tensor"),
        (wrong("def evaluate", "def judge"), "loss is there but evaluate is not"),
        (wrong(".square().mean()", ".detach().square().mean()"), "does not depend on the outputs"),
        (wrong(".square().mean()", ".square()"), r"returned a Tensor of shape \(4,\); it is asked for the mean loss"),
        (wrong("    return (outputs[:, 0] - targets.float()).square().mean()", "    outputs"), r"loss returned nothing \(None\)"),
        (wrong("outputs[:, 0] - targets.float()).square().mean()", "outputs[:, 9]).mean()"), "loss failed: IndexError: index 9"),
        (wrong(".square().mean()", ".square().mean() * float('nan')"), "is nan for a first batch"),
        (wrong('{"minus_error": -error, "error": error}', "None"), r"evaluate returned nothing \(None\)"),
        (wrong('{"minus_error": -error, "error": error}', "error / 0"), "evaluate returned a score that is not a finite number"),
        (wrong('{"minus_error": -error, "error": error}', "outputs"), r"evaluate returned a Tensor of shape \(4, 3\)"),
        (wrong('{"minus_error": -error,', "{"), "selects winners, so higher must be better"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_training(tmp_path: Path, data: str, said: str) -> None:
    with pytest.raises((UsersError, TaskError), match=said):
        tried(opened(tmp_path, data), network(), (SHAPE,), "net")


def test_a_traceback_is_cut_to_the_users_frames(tmp_path: Path) -> None:
    data = wrong("    return (outputs[:, 0] - targets.float()).square().mean()", "    return helped(outputs)")
    data += "\ndef helped(outputs):\n    return outputs.reshape(7, -1)\n"
    with pytest.raises(UsersError) as caught:
        tried(opened(tmp_path, data), network(), (SHAPE,), "net")
    sentence, *frames = str(caught.value).split("\n")
    assert sentence.startswith("mydata.py:loss failed: RuntimeError: shape '[7, -1]' is invalid")
    assert [line.strip() for line in frames[1::2]] == ["return helped(outputs)", "return outputs.reshape(7, -1)"]
    assert all(str(tmp_path) in line for line in frames[::2])


def test_inputs_of_another_shape_than_the_networks_are_told_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="choose the same with --input 1x5x8x12"):
        tried(opened(tmp_path), network(), ((1, 3, 224, 224),), "net")


@pytest.mark.parametrize(
    "label", ["torch.tensor([LABEL])", "torch.tensor(LABEL, dtype=torch.int32)", "np.array([[LABEL]], 'uint8')"]
)
def test_a_label_may_be_in_an_array_of_one_and_of_any_integers(tmp_path: Path, label: str) -> None:
    text = label.replace("LABEL", "int(self.labels[index])")
    data = opened(tmp_path, "import numpy as np\n" + DATA.replace("int(self.labels[index])\n", f"{text}\n"))
    targets = data.test.batch(torch.arange(6))[1]
    assert targets.dtype is torch.int64
    assert targets.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("label", "said"),
    [("torch.eye(3)[self.labels[index]]", "the shape 3 and the type float32"), ("torch.tensor(1.0)", "the type float32")],
)
def test_a_target_that_is_no_number_of_a_class_is_told(tmp_path: Path, label: str, said: str) -> None:
    with pytest.raises(UsersError, match=said):
        opened(tmp_path, DATA.replace("int(self.labels[index])\n", f"{label}\n"))


@pytest.mark.parametrize(
    "returned",
    [
        "torch.utils.data.random_split(Noisy(90), [60, 30])",
        "torch.utils.data.ConcatDataset([Noisy(30), Noisy(30)]), Noisy(30)",
    ],
)
def test_datasets_that_are_split_or_joined_keep_their_classes(tmp_path: Path, returned: str) -> None:
    data = opened(tmp_path, DATA.replace("Noisy(60), DataLoader(Noisy(30), batch_size=8)", returned))
    assert data.classes == ("a", "b", "c")


def test_a_label_beyond_the_classes_is_named(tmp_path: Path) -> None:
    data = DATA.replace("int(self.labels[index])", "9 if index == 4 else int(self.labels[index])")
    with pytest.raises(UsersError, match=r"example 4 of t.* has the label 9, but there are 3 classes"):
        tried(opened(tmp_path, data), network(), (SHAPE,), "net")


def test_a_command_prints_the_sentence_and_the_frames_and_leaves_no_run(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    data = write(tmp_path, wrong("outputs[:, 0] - targets.float()).square().mean()", "outputs[:, 9]).mean()"))
    arguments = ["run", f"{tmp_path / 'net.py'}:make_net", "--input", "1x5x8x12", "--data", data, "--budget", "macs=70%"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "in loss" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_function_that_fails_in_the_middle_leaves_a_run_that_can_go_on(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    guard = """
import pathlib

def loss(outputs, targets):
    if len(outputs) > 4 and pathlib.Path(__file__).with_name("stop").exists():
        raise ValueError("stopped")
"""
    data = write(tmp_path, DATA + TASK.replace("\ndef loss(outputs, targets):\n", guard, 1))
    arguments = ["run", f"{tmp_path / 'net.py'}:make_net", "--input", "1x5x8x12", "--data", data, "--budget", "macs=70%"]
    arguments += ["--epochs", "1", "--batch-size", "16", "--short-term-steps", "2", "--step", "0.3", "--out", str(tmp_path / "run")]
    (tmp_path / "stop").touch()
    stopped = CliRunner().invoke(app, arguments)
    assert stopped.exit_code == 1 and "stopped" in stopped.output and "Traceback" not in stopped.output
    (tmp_path / "stop").unlink()
    assert CliRunner().invoke(app, [*arguments, "--resume"]).exit_code == 0


@pytest.mark.slow
def test_the_data_of_the_documentation_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs/how-to/own-data.md").read_text()
    (tmp_path / "mydata.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    (command, *_) = re.findall(r"^netadapt (run mydata.*)$", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-2].startswith("the budget is met")
