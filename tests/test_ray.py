"""Candidates on Ray, a real one on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from executor_runs import Setting, Then, evaluates_the_same, kill, needs_proc, prepared, processes_saying

from netadapt.errors import NetAdaptError
from netadapt.executors import ExecutorOptions, Observers
from netadapt.registry import MissingPackage
from netadapt.training.recipe import TrainSettings
from netadapt.training.trainer import TrainingError

pytestmark = pytest.mark.slow

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'netadapt-profiler[ray]'"
)
LOCAL = ExecutorOptions("ray", workers=2, ray_address="local")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share cores with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    with prepared(tmp_path / "run") as made:
        yield made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Setting]:
    """Another such run, which is the same."""
    with prepared(tmp_path / "other") as made:
        yield made


def ray_workers() -> list[int]:
    """Those with a job: Ray lets them call themselves by its name."""
    return processes_saying("ray::stem") + processes_saying("ray::pairs")


@needs_ray
def test_ray_gives_the_same_results_bit_for_bit(setting: Setting, other: Setting) -> None:
    evaluates_the_same(LOCAL, setting, other)


@needs_ray
@needs_proc
def test_a_candidate_whose_ray_worker_was_killed_is_evaluated_again(setting: Setting, other: Setting) -> None:
    found = other.evaluate(LOCAL, Observers(Then(lambda: kill(ray_workers()))))
    assert other.bytes_of(found) == setting.bytes_of(setting.evaluate(ExecutorOptions()))


@needs_ray
def test_a_loss_that_is_no_number_is_told_as_what_it_is(setting: Setting) -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        setting.evaluate(LOCAL, short_term=TrainSettings(1e30, steps=4, schedule="constant"))


@needs_ray
def test_a_cluster_that_is_not_there_is_named(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(NetAdaptError, match=r"no Ray cluster answers at auto.*ray start"):
        setting.evaluate(ExecutorOptions("ray"))


def test_without_ray_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(MissingPackage, match=r"netadapt-profiler\[ray\]"):
        ExecutorOptions("ray").require()
