"""Who fine-tunes candidates: this process, worker processes on this machine, or a Ray cluster. All give the same results.

An executor is a file here with a function that opens it, and a line in EXECUTORS. What it opens is an `Evaluate`, as in
netadapt.search.loop; closing it ends whatever it started.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from netadapt.errors import SettingsError
from netadapt.registry import did_you_mean, load, require

if TYPE_CHECKING:
    from netadapt.executors.jobs import Jobs
    from netadapt.search.types import Evaluate
    from profiler.progress import ProgressReporter

EXECUTORS: dict[str, str] = {
    "in-process": "netadapt.executors.in_process:in_process",
    "processes": "netadapt.executors.processes:processes",
    "ray": "netadapt.executors.ray:on_ray",
}
"""Name to module:function, from (ExecutorOptions, Jobs, Told) to what a with statement opens as an `Evaluate`."""


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
            if count is not None and self.name == "in-process":
                raise SettingsError(f"{option} is for --executor processes or ray; in-process works alone")

    @classmethod
    def chosen(cls, name: str | None, workers: int | None, cores_per_worker: int | None, ray_address: str) -> Self:
        """From the words of the command line: without a name, worker processes if a number of workers is given."""
        return cls(name or ("in-process" if workers is None else "processes"), workers, cores_per_worker, ray_address)

    def require(self) -> None:
        """`MissingPackage` if the executor needs what is not installed."""
        if self.name == "ray":
            require("ray", extra="ray")


@dataclass(frozen=True, slots=True)
class Told:
    """Whom an executor tells how far it is."""

    progress: ProgressReporter
    loss: Callable[[int, float], None] = lambda _step, _loss: None
    """After every step of the original network's training: steps done and the loss."""


def open_executor(options: ExecutorOptions, jobs: Jobs, told: Told) -> AbstractContextManager[Evaluate]:
    """The executor, ready to evaluate this run's candidates; workers are started when there is work."""
    opened: AbstractContextManager[Evaluate] = load(EXECUTORS[options.name])(options, jobs, told)
    return opened
