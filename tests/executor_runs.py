"""A tiny run to evaluate candidates of, and the processes that do it."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from netadapt.executors import ExecutorOptions, Observers, open_executor
from netadapt.executors.jobs import CandidateJobs
from netadapt.networks import network_graph
from netadapt.networks.options import NetworkOptions
from netadapt.resources import open_resource
from netadapt.runs.models import RunModels
from netadapt.runs.records import RunInfo
from netadapt.runs.run_folder import RunFolder
from netadapt.search.candidates import Candidate, propose_all
from netadapt.search.types import Result, Step
from netadapt.settings import DataSettings, RunSettings, TrainingSettings
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.recipe import Recipe, TrainSettings
from netadapt.training.types import Dataset
from profiler.layers.graph import Graph
from profiler.progress import Silent

OPTIONS = NetworkOptions("mobilenet_v1", width_multiplier=0.125, resolution=16, classes=10)
ORIGINAL = TrainSettings(0.05, steps=30)
SHORT_TERM = TrainSettings(0.01, steps=2)
TRAINING = TrainingSettings("classification", Recipe(ORIGINAL, SHORT_TERM, TrainSettings(0.01, epochs=1)))
INFO = RunInfo(RunSettings(OPTIONS, DataSettings("digits"), TRAINING), ("macs=70%",), "2026-01-01T00:00:00+00:00")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find worker processes")


@cache
def traced() -> Graph:
    return network_graph(OPTIONS.name, **OPTIONS.keywords)


@cache
def digits() -> Dataset:
    return open_dataset("digits", resolution=16, seed=1, holdout_fraction=0.15)


@dataclass
class Setting:
    """A run with its original network evaluated, and the candidates of its first iteration."""

    run: RunFolder
    jobs: CandidateJobs
    original: Step
    candidates: tuple[Candidate, ...]

    def evaluate(self, options: ExecutorOptions, told: Observers | None = None, **changes: Any) -> list[Result]:
        with open_executor(options, replace(self.jobs, **changes), told or Observers(Silent())) as executor:
            return list(executor(self.original, self.candidates))

    def bytes_of(self, results: Sequence[Result]) -> dict[str | None, bytes]:
        return {result.candidate.block: self.run.weights_path(result.weights).read_bytes() for result in results}


@cache
def _original() -> tuple[Path, Result]:
    """A run with the weights of its original network, trained once in a process, and what came of it."""
    path = Path(tempfile.mkdtemp(prefix="executor_run_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    graph = traced()
    with RunFolder.create(path, INFO, graph) as run:
        jobs = CandidateJobs.for_run(RunModels(run, digits()))
        with open_executor(ExecutorOptions(), jobs, Observers(Silent())) as executor:
            (result,) = executor(None, [Candidate(0, graph.widths, {"macs": open_resource("macs", None).price(graph)})])
    return path, result


@contextlib.contextmanager
def prepared(path: Path) -> Iterator[Setting]:
    """Such a run, always the same, in a folder of its own."""
    graph, macs = traced(), open_resource("macs", None)
    price = macs.price(graph)
    trained, result = _original()
    shutil.copytree(trained, path)
    with RunFolder.open(path, write=True) as run:
        jobs = CandidateJobs.for_run(RunModels(run, digits()))
        step = Step(0, graph.widths, {"macs": price}, result.accuracy, result.weights, (result,))
        yield Setting(run, jobs, step, propose_all(graph, {"macs": macs}, {"macs": 0.9 * price}, iteration=1)[:3])


@dataclass
class Then(Silent):
    """Does something at the first candidate that is done."""

    do: Callable[[], None]
    notes: list[str] = field(default_factory=list)

    def advance(self, note: str = "") -> None:
        self.notes.append(note)
        if len(self.notes) == 1:
            self.do()


def processes_saying(word: str, parent: int | None = None) -> list[int]:
    """Living processes with this in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                state, above = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                said = (folder / "cmdline").read_bytes().decode(errors="replace")
                if word in said and state != "Z" and parent in (None, int(above)):
                    found.append(int(folder.name))
    return found


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def evaluates_the_same(options: ExecutorOptions, setting: Setting, other: Setting) -> None:
    with open_executor(options, other.jobs, Observers(Silent())) as executor:
        (original,) = executor(None, [other.original.results[0].candidate])
        found = list(executor(other.original, other.candidates))
    expected = setting.evaluate(ExecutorOptions())
    assert original == setting.original.results[0]
    assert other.bytes_of([original]) == setting.bytes_of([original])
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert other.bytes_of(found) == setting.bytes_of(expected)
