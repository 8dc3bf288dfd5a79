"""Logs for TensorBoard, read back by TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sample_run import adapted_run

from netadapt.registry import MissingPackage
from netadapt.runs.event_log import open_log, scalars
from netadapt.runs.run_folder import RunFolder

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="not installed: pip install 'netadapt-profiler[tensorboard]'"
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return adapted_run(tmp_path / "run")


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every chart."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: Any = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(item.step, item.value) for item in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@needs_tensorboard
def test_every_step_is_logged_with_accuracy_price_and_widths(run: RunFolder) -> None:
    steps = run.steps
    with open_log(run):
        pass
    found = logged(run.path / "tensorboard" / "steps")
    assert set(found) == set(scalars(steps[0]))
    assert found["accuracy/holdout"] == [(step.iteration, pytest.approx(step.accuracy)) for step in steps]


@needs_tensorboard
def test_a_log_that_is_gone_on_with_has_all_steps_once(run: RunFolder) -> None:
    for _ in range(2):
        with open_log(run):
            pass
    assert [step for step, _ in logged(run.path / "tensorboard" / "steps")["price/latency"]] == list(range(len(run.steps)))


@needs_tensorboard
def test_losses_are_logged_by_what_is_trained_and_begin_anew_with_it(run: RunFolder) -> None:
    for first_loss in (9.0, 2.5):
        with open_log(run) as log:
            log.loss("original", 1, first_loss)
            log.loss("original", 2, 1.5)
    assert logged(run.path / "tensorboard" / "original") == {"training/loss": [(1, 2.5), (2, 1.5)]}


@needs_tensorboard
def test_writing_logs_does_not_load_tensorflow() -> None:
    code = "from torch.utils.tensorboard import SummaryWriter; import sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_written_unless_it_is_wanted(run: RunFolder) -> None:
    with open_log(run, wanted=False) as log:
        log.step(run.steps[0])
        log.loss("original", 1, 2.5)
    assert not (run.path / "tensorboard").exists()


def test_without_tensorboard_one_sentence_says_what_to_install(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(MissingPackage, match=r"netadapt-profiler\[tensorboard\]"), open_log(run):
        pass
