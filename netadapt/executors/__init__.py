"""The executors that fine-tune candidates: in this process, in worker processes on this machine, or on a Ray cluster.

All give the same results. An executor is a module in this folder with a function that opens it, and a line in EXECUTORS. The
function returns a context manager for an `Evaluate` (netadapt.search.types), which ends everything that was started for it.
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
    """The facts of an executor that are known before its module is imported."""

    address: str
    """The module:function that opens it: (ExecutorOptions, CandidateJobs, Observers) to a context manager for an `Evaluate`."""
    has_workers: bool = True
    """True if it evaluates several candidates at the same time."""
    extra: str | None = None
    """The optional package that it needs, which is also the name of our extra that installs it."""


EXECUTORS: Mapping[str, Executor] = {
    "in-process": Executor("netadapt.executors.in_process:in_process", has_workers=False),
    "processes": Executor("netadapt.executors.processes:processes"),
    "ray": Executor("netadapt.executors.ray:on_ray", extra="ray"),
}


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """Where candidates are fine-tuned. No result depends on these options, so a run may continue with others.

    `SettingsError` for an unknown executor, a number below 1, or a number of workers for an executor that has none.
    """

    name: str = "in-process"
    workers: int | None = None
    """The number of candidates at the same time; by default that of the GPUs or, without one, as many as the cores suffice for."""
    cores_per_worker: int | None = None
    """By default the number of threads of a candidate."""
    ray_address: str = "auto"
    """The address of the Ray cluster: auto, HOST:PORT, or local to start one on this machine."""

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise SettingsError(f"there is no executor {self.name!r}; {did_you_mean(self.name, EXECUTORS)}")
        for option, count in (("--workers", self.workers), ("--cores-per-worker", self.cores_per_worker)):
            if count is not None and count < 1:
                raise SettingsError(f"{option} must be at least 1, got {count}")
            if count is not None and not EXECUTORS[self.name].has_workers:
                with_workers = " or ".join(name for name, executor in EXECUTORS.items() if executor.has_workers)
                raise SettingsError(f"{option} needs --executor {with_workers}, because {self.name} has no workers")

    @classmethod
    def chosen(cls, name: str | None, workers: int | None, cores_per_worker: int | None, ray_address: str) -> Self:
        """The options of the command line; without a name, worker processes if a number of workers is given."""
        return cls(name or ("in-process" if workers is None else "processes"), workers, cores_per_worker, ray_address)

    def require(self) -> None:
        """Check that the executor's optional package is installed. `MissingPackage` if it is not."""
        if extra := EXECUTORS[self.name].extra:
            require(extra, extra=extra)


@dataclass(frozen=True, slots=True)
class Observers:
    """The observers that an executor reports its progress to."""

    progress: ProgressReporter
    loss: Callable[[int, float], None] = lambda _step, _loss: None
    """A function that is called after every training step of the original network, with the number of steps done and the loss."""


def open_executor(options: ExecutorOptions, jobs: CandidateJobs, observers: Observers) -> AbstractContextManager[Evaluate]:
    """A context manager for the `Evaluate` of this run's candidates; workers are started when there is the first job for them."""
    executor: AbstractContextManager[Evaluate] = load(EXECUTORS[options.name].address)(options, jobs, observers)
    return executor
