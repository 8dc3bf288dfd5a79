"""Who fine-tunes candidates: this process, worker processes on this machine, or a Ray cluster. All give the same results.

An executor is a file here with a function that opens it, and a line in EXECUTORS. What it opens is an `Evaluate`, as in
netadapt.search.loop; closing it ends whatever it started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from device_agents.support.text import did_you_mean
from netadapt.errors import SettingsError
from netadapt.registry import load, require

if TYPE_CHECKING:
    from netadapt.executors.jobs import CandidateJobs
    from netadapt.search.types import Evaluate
    from profiler.progress import ProgressReporter


@dataclass(frozen=True, slots=True)
class Executor:
    """An executor by its name, before its module is loaded."""

    address: str
    """module:function, from (ExecutorOptions, CandidateJobs, Observers) to what a with statement opens as an `Evaluate`."""
    has_workers: bool = True
    """It evaluates several candidates at the same time."""
    extra: str | None = None
    """The optional package that it needs, and our extra of the same name that installs it."""


EXECUTORS: Mapping[str, Executor] = {
    "in-process": Executor("netadapt.executors.in_process:in_process", has_workers=False),
    "processes": Executor("netadapt.executors.processes:processes"),
    "ray": Executor("netadapt.executors.ray:on_ray", extra="ray"),
}


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """Where candidates are fine-tuned; no result depends on it, a run may go on with others. `SettingsError` if they clash."""

    name: str = "in-process"
    workers: int | None = None
    """Candidates at work at the same time; by default as many as there are GPUs or, without one, cores for."""
    cores_per_worker: int | None = None
    """By default as many as a candidate has threads."""
    ray_address: str = "auto"
    """Of the cluster: auto, HOST:PORT, or local for one of its own on this machine."""

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise SettingsError(f"there is no executor {self.name!r}; {did_you_mean(self.name, EXECUTORS)}")
        for option, count in (("--workers", self.workers), ("--cores-per-worker", self.cores_per_worker)):
            if count is not None and count < 1:
                raise SettingsError(f"{option} must be at least 1, got {count}")
            if count is not None and not EXECUTORS[self.name].has_workers:
                able = " or ".join(name for name, executor in EXECUTORS.items() if executor.has_workers)
                raise SettingsError(f"{option} is for --executor {able}; {self.name} works alone")

    @classmethod
    def chosen(cls, name: str | None, workers: int | None, cores_per_worker: int | None, ray_address: str) -> Self:
        """From the words of the command line: without a name, worker processes if a number of workers is given."""
        return cls(name or ("in-process" if workers is None else "processes"), workers, cores_per_worker, ray_address)

    def require(self) -> None:
        """`MissingPackage` if the executor needs what is not installed."""
        if extra := EXECUTORS[self.name].extra:
            require(extra, extra=extra)


@dataclass(frozen=True, slots=True)
class Observers:
    """Whom an executor tells how far it is."""

    progress: ProgressReporter
    loss: Callable[[int, float], None] = lambda _step, _loss: None
    """After every step of the original network's training: steps done and the loss."""


def open_executor(options: ExecutorOptions, jobs: CandidateJobs, observers: Observers) -> AbstractContextManager[Evaluate]:
    """The executor, ready to evaluate this run's candidates; workers are started when there is work."""
    opened: AbstractContextManager[Evaluate] = load(EXECUTORS[options.name].address)(options, jobs, observers)
    return opened
