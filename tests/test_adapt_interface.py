"""The Python interface of NetAdapt: a network, a training and a score that are objects of the caller's program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from test_netadapt_cli import run as command
from test_netadapt_cli import succeed
from torch import Tensor, nn
from torch.nn import functional

import netadapt
from netadapt.runs.run_folder import RunFolder

IMAGES = torch.zeros(1, 3, 16, 16)
SEARCH = netadapt.AdaptSettings(step=0.2, decay=1.0, width_step=4, min_width=4)


class Net(nn.Module):
    """It returns a dictionary, and more in training than in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = functional.silu(self.two(functional.relu(self.one(images))))
        logits = self.head(features.mean((2, 3)))
        return {"logits": logits, "features": features} if self.training else {"logits": logits}


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    return torch.randn((count, 3, 16, 16), generator=generator) + labels.view(-1, 1, 1, 1), labels


def accuracy(model: nn.Module) -> float:
    images, labels = data(64, 2)
    return float((model.eval()(images)["logits"].argmax(1) == labels).float().mean())


def train(model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05)
    for step in range(steps):
        images, labels = data(16, step)
        optimizer.zero_grad()
        functional.cross_entropy(model(images)["logits"], labels).backward()
        optimizer.step()


def adapting(out: Path, **more: Any) -> netadapt.Adaptation:
    torch.manual_seed(1)
    chosen: dict[str, Any] = {
        "evaluate": accuracy, "fine_tune": train, "short_term_steps": 3, "search": SEARCH, "progress": False, **more,
    }  # fmt: skip
    return netadapt.adapt(Net(), IMAGES, "macs=60%", out=out, **chosen)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[netadapt.AdaptedStep]]:
    out = tmp_path_factory.mktemp("adapt") / "run"
    return out, list(adapting(out))


def test_steps_go_down_to_the_budget_and_carry_their_networks(adapted: tuple[Path, list[netadapt.AdaptedStep]]) -> None:
    _, steps = adapted
    macs = [step.prices["macs"] for step in steps]
    assert macs == sorted(macs, reverse=True) and macs[-1] <= 0.6 * macs[0]
    for step in steps:
        assert step.model.get_submodule("one").get_parameter("weight").shape[0] == step.widths["one"]
        assert accuracy(step.model) == pytest.approx(step.score)


def test_the_callers_network_is_left_as_it_is(tmp_path: Path) -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = netadapt.adapt(
        model, IMAGES, "macs=80%", out=tmp_path / "run", evaluate=accuracy, fine_tune=train, search=SEARCH, progress=False
    )
    assert len(list(steps)) > 1
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_step_is_exported_and_computes_the_same(adapted: tuple[Path, list[netadapt.AdaptedStep]], tmp_path: Path) -> None:
    step = adapted[1][-1]
    step.export(tmp_path / "adapted.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "adapted.onnx")
    images = data(1, 5)[0]
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert np.allclose(found, step.model(images)["logits"].detach().numpy(), atol=1e-4)
    with pytest.raises(netadapt.ToolError, match=r"end in .onnx or .tflite"):
        step.export(tmp_path / "adapted.pb")


def test_a_run_that_was_left_goes_on_and_yields_all_steps(adapted: tuple[Path, list[netadapt.AdaptedStep]], tmp_path: Path) -> None:
    for _ in adapting(tmp_path / "run"):
        break  # after the original network
    with pytest.raises(netadapt.ToolError, match="holds a run already"):
        list(adapting(tmp_path / "run"))

    def is_not_called(model: nn.Module) -> float:
        raise AssertionError

    again = list(adapting(tmp_path / "run", resume=True))
    assert [step.widths for step in again] == [step.widths for step in adapted[1]]
    finished = list(adapting(tmp_path / "run", resume=True, evaluate=is_not_called))
    assert [step.score for step in finished] == [step.score for step in again]


def test_scores_of_several_names_are_kept_and_the_first_selects(tmp_path: Path) -> None:
    def scores(model: nn.Module) -> Mapping[str, float]:
        return {"points": 100 * accuracy(model) - 500, "loss": 0.25}

    steps = list(adapting(tmp_path / "run", evaluate=scores))
    assert all(step.score < 0 and step.step.metrics == {"loss": 0.25} for step in steps)
    with RunFolder.open(tmp_path / "run") as folder:
        assert [metric.name for metric in folder.info.settings.training.scores] == ["score", "loss"]


def raising(model: nn.Module, steps: int = 0) -> float:
    raise ValueError("no such column")


@pytest.mark.parametrize(
    ("evaluate", "said"),
    [
        (raising, "evaluate failed: ValueError: no such column"),
        (lambda model: None, "evaluate returned None"),
        (lambda model: float("nan"), "evaluate returned nan"),
        (lambda model: torch.zeros(2), "evaluate returned tensor"),
        (lambda model: {}, "evaluate returned {}"),
    ],
)
def test_a_score_that_is_none_is_one_sentence_before_the_folder_is_made(
    tmp_path: Path, evaluate: Callable[[nn.Module], float], said: str
) -> None:
    with pytest.raises(netadapt.ToolError, match=said):
        adapting(tmp_path / "run", evaluate=evaluate)
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_leaves_a_run_that_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(netadapt.ToolError, match=r"fine_tune failed: ValueError: no such column[\s\S]*in raising"):
        list(adapting(tmp_path / "run", fine_tune=raising))
    assert len(list(adapting(tmp_path / "run", resume=True))) > 1


def test_a_training_that_changes_the_layers_is_refused(tmp_path: Path) -> None:
    def widen(model: nn.Module, steps: int) -> None:
        model.head = nn.Linear(16, 5)

    with pytest.raises(netadapt.ToolError, match="fine_tune has changed the layers"):
        list(adapting(tmp_path / "run", fine_tune=widen))


def test_inputs_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(netadapt.ToolError, match="a tensor such as images"):
        netadapt.adapt(Net(), torch.zeros(3), "macs=60%", out=tmp_path / "run", evaluate=accuracy, fine_tune=train)
    with pytest.raises(netadapt.ToolError, match="a tensor such as images"):
        nothing: Any = None
        netadapt.adapt(Net(), nothing, "macs=60%", out=tmp_path / "run", evaluate=accuracy, fine_tune=train)
    with pytest.raises(netadapt.ToolError, match="does not accept an input of 1x3x16x16,1x3x16x16"):
        netadapt.adapt(Net(), (IMAGES, IMAGES), "macs=60%", out=tmp_path / "run", evaluate=accuracy, fine_tune=train)
    with pytest.raises(netadapt.ToolError, match="does not accept an input of 1x5x16x16"):
        netadapt.adapt(Net(), torch.zeros(1, 5, 16, 16), "macs=60%", out=tmp_path / "run", evaluate=accuracy, fine_tune=train)


def test_functions_get_the_network_in_the_mode_that_they_need(tmp_path: Path) -> None:
    modes: dict[str, set[bool]] = {"evaluate": set(), "fine_tune": set()}

    def score(model: nn.Module) -> float:
        modes["evaluate"].add(model.training)
        return 0.5

    def look(model: nn.Module, _steps: int) -> None:
        modes["fine_tune"] |= {part.training for part in model.modules()}

    for _ in zip(range(2), adapting(tmp_path / "run", evaluate=score, fine_tune=look), strict=False):
        pass
    assert modes == {"evaluate": {False}, "fine_tune": {True}}


def test_successive_halving_trains_rungs_each_from_the_weights_of_the_one_before(tmp_path: Path) -> None:
    trained: list[int] = []

    def counting(model: nn.Module, steps: int) -> None:
        trained.append(steps)
        with torch.no_grad():
            model.get_parameter("head.bias").add_(steps)

    search = netadapt.AdaptSettings(step=0.2, decay=1.0, width_step=4, min_width=4, successive_halving=True)
    original, first, *_ = adapting(tmp_path / "run", search=search, fine_tune=counting, short_term_steps=8)
    assert set(trained) == {2, 4}
    added = first.model.get_parameter("head.bias") - original.model.get_parameter("head.bias")
    assert added.tolist() == pytest.approx([8, 8], abs=1e-5)


def test_a_folder_that_holds_a_run_is_refused_before_anything_is_scored(adapted: tuple[Path, list[netadapt.AdaptedStep]]) -> None:
    def is_not_called(model: nn.Module) -> float:
        raise AssertionError

    with pytest.raises(netadapt.ToolError, match="holds a run already"):
        adapting(adapted[0], evaluate=is_not_called)


def test_the_history_reads_such_a_run_and_exports_say_where_its_network_is(
    adapted: tuple[Path, list[netadapt.AdaptedStep]],
) -> None:
    out, steps = adapted
    assert f"{len(steps) - 1}" in succeed("history", out)
    told = command("export", out, "--format", "onnx", "--out", out / "n.onnx")
    assert told.exit_code == 1 and "was given to netadapt.adapt as an object" in told.stderr


def test_a_traced_network_can_be_predicted() -> None:
    graph = netadapt.trace(Net(), IMAGES)
    assert graph.widths == {"one": 16, "two": 16}


def test_a_network_whose_images_have_channels_last_is_traced_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert netadapt.trace(model.to(memory_format=torch.channels_last), IMAGES).widths == {"0": 8}  # type: ignore[call-overload]


def test_a_notebook_shows_the_steps(tmp_path: Path) -> None:
    found = adapting(tmp_path / "run")
    list(found)
    assert "the original" in found._repr_html_() and f"{len(found.steps)} steps" in found._repr_html_()


def test_the_package_imports_no_torch_before_it_is_used() -> None:
    code = "import sys, netadapt; print('torch' in sys.modules); print(netadapt.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")
    assert all(getattr(netadapt, name) is not None for name in netadapt.__all__)


BY_NAME = """
import os
import torch
from torch import nn
from torch.nn import functional

def make_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 2))

def data(count):
    labels = torch.randint(0, 2, (count,))
    return torch.randn((count, 3, 16, 16)) + labels.view(-1, 1, 1, 1), labels

def train(model, steps):
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05)
    for _ in range(steps):
        images, labels = data(16)
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

def score(model):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        images, labels = data(64)
    return {"minus_loss": -float(functional.cross_entropy(model.eval()(images), labels))}

"""


def by_name(folder: Path, out: str, **more: Any) -> netadapt.Adaptation:
    file = folder / "mytraining.py"
    file.write_text(BY_NAME)
    chosen: dict[str, Any] = {"evaluate": f"{file}:score", "fine_tune": f"{file}:train", **more}
    return netadapt.adapt(
        f"{file}:make_net", IMAGES, "macs=70%", out=folder / out, short_term_steps=3, search=SEARCH, progress=False, **chosen
    )


@pytest.mark.slow
def test_workers_that_are_told_names_find_what_this_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = list(by_name(tmp_path, "here")), list(by_name(tmp_path, "there", workers=2))
    assert [step.widths for step in there] == [step.widths for step in here]
    assert [step.score for step in there] == pytest.approx([step.score for step in here], rel=1e-4)
    assert len(set((tmp_path / "pids").read_text().split())) == 3
    found = command("export", tmp_path / "there", "--format", "onnx")
    assert found.exit_code == 1 and "known to the functions that were given to netadapt.adapt" in found.stderr


@pytest.mark.slow
def test_a_function_that_fails_in_a_worker_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    adapting = by_name(tmp_path, "run", workers=1)
    (tmp_path / "mytraining.py").write_text(BY_NAME.replace("optimizer.step()", "raise ValueError('no such column')"))
    with pytest.raises(netadapt.ToolError, match=r"fine_tune failed: ValueError: no such column[\s\S]*in train"):
        list(adapting)


def test_functions_by_name_run_in_this_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = by_name(tmp_path, "run")
    assert next(iter(steps)).score < 0
    assert steps.info.settings.training.evaluate == f"{tmp_path / 'mytraining.py'}:score"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"evaluate": accuracy, "workers": 2}, "evaluate came as an object"),
        ({"evaluate": accuracy, "fine_tune": train, "ray_address": "local"}, "evaluate and fine_tune came as an object"),
        ({"evaluate": "nowhere.py:score"}, "no file"),
        ({"fine_tune": "mytraining.py:trian"}, "did you mean"),
        ({"workers": 0}, "must be at least 1"),
    ],
)
def test_names_that_cannot_be_called_are_one_sentence_before_the_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(netadapt.ToolError, match=said):
        by_name(tmp_path, "run", **more)
    assert not (tmp_path / "run").exists()
