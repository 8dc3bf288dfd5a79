"""The executor that fine-tunes candidates on a Ray cluster, or on a Ray of its own on this machine.

Data and weights travel through Ray's object store: nodes need no folder in common, only the same packages. Results come back to
this process, which alone writes to the run.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import exceptions

from device_agents.support.atomic import write_whole
from device_agents.support.dataclass_json import read_as
from netadapt.errors import NetAdaptError, RunError
from netadapt.executors import ExecutorOptions, Observers
from netadapt.executors.evaluation import Evaluator
from netadapt.executors.jobs import CandidateJob, CandidateJobs
from netadapt.executors.messages import Event, Failed, Lost, evaluate_and_report, read_event
from netadapt.executors.progress import BatchProgress
from netadapt.executors.side_by_side import side_by_side
from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import RunFolder
from netadapt.search.candidates import Candidate
from netadapt.search.types import Evaluate, Result, Step

PACKAGES = ("netadapt-profiler", "torch")
"""Must be the same on all nodes, or results would not be."""


@contextmanager
def on_ray(options: ExecutorOptions, jobs: CandidateJobs, observers: Observers) -> Iterator[Evaluate]:
    with _connected(options.ray_address):
        pool = RayPool(options, jobs)

        def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
            todo = jobs.of(parent, candidates)
            return side_by_side(pool, todo, BatchProgress(observers, todo, jobs.models.dataset))

        try:
            yield evaluate
        finally:
            pool.stop()


@contextmanager
def _connected(address: str) -> Iterator[None]:
    if ray.is_initialized():  # by whoever called us
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked whether usage may be reported
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, exceptions.RayError) as exc:
        raise NetAdaptError(
            f"no Ray cluster answers at {address}: {_last(exc)}; start one with `ray start --head`, or use --ray-address local"
        ) from exc
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class RayTask:
    """What a task gets beside the data: plain texts, and bytes that the worker fetches when it lacks them."""

    key: str
    """Of the run on this cluster; a worker keeps what it has opened for it."""
    job: str
    run_files: Mapping[str, str]
    versions: Mapping[str, str]
    start: Any
    """A reference to the bytes of the start's weights, or None."""
    data: Any
    """A reference to the `Dataset`."""


class RayPool:
    """Tasks of which each has cores and perhaps a GPU, as many as the cluster has room for."""

    def __init__(self, options: ExecutorOptions, jobs: CandidateJobs) -> None:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self._cores = options.cores_per_worker or jobs.threads
        gpus = resources.get("GPU", 0)
        self.size = options.workers or int(gpus) or max(1, int(resources.get("CPU", 1)) // self._cores)
        self._gpus = min(1.0, gpus / self.size)
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        self._most_cores = max((int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), default=1)
        self._jobs, self._key = jobs, uuid4().hex
        self._data = ray.put(jobs.models.dataset)
        self._start: tuple[str, Any] | None = None
        self._running: dict[Any, CandidateJob] = {}
        self._task = ray.remote(evaluate_there)

    def start(self, job: CandidateJob) -> None:
        run = self._jobs.models.run.path
        files = {name: (run / name).read_text(encoding="utf-8") for name in ("run.json", "graph.json")}
        versions = {name: version(name) for name in PACKAGES}
        there = replace(job, start_weights=Path(job.start_weights).name if job.start_weights else None)
        task = RayTask(self._key, _text(there), files, versions, self._weights(job.start_weights), self._data)
        cores = min(max(self._cores, job.threads), self._most_cores)
        options = {"num_cpus": cores, "num_gpus": self._gpus, "max_retries": 0, "num_returns": "streaming", "name": job.name}
        self._running[self._task.options(**options).remote(task)] = job

    def wait(self) -> Sequence[tuple[CandidateJob, Event]]:
        ready, _ = ray.wait(list(self._running), num_returns=1)
        return [item for task in ready for item in self._next(task)]

    def stop(self) -> Sequence[tuple[CandidateJob, Event]]:
        events: list[tuple[CandidateJob, Event]] = []
        while self._running and (said := ray.wait(list(self._running), num_returns=1, timeout=0)[0]):
            events += self._next(said[0])
        for task in self._running:
            ray.cancel(task, force=True)
        self._running = {}
        return events

    def _weights(self, path: str | None) -> Any:
        """A reference to this file's bytes, put there once for all candidates that start from it."""
        if path is None:
            return None
        key = f"{path} {Path(path).stat().st_mtime_ns}"
        if self._start is None or self._start[0] != key:
            self._start = key, ray.put(Path(path).read_bytes())
        return self._start[1]

    def _next(self, task: Any) -> list[tuple[CandidateJob, Event]]:
        job = self._running[task]
        event = self._said(task, job)
        if isinstance(event, Result | Failed | Lost):
            del self._running[task]
        return [] if event is None else [(job, event)]

    def _said(self, task: Any, job: CandidateJob) -> Event | None:
        try:
            said = ray.get(next(task))
        except StopIteration:
            return Lost("its task ended without a result")
        except exceptions.RayTaskError as exc:
            there = " and ".join(f"{name} {version(name)}" for name in PACKAGES)
            raise NetAdaptError(f"{job.name} cannot be evaluated on the cluster, whose nodes need {there}: {_last(exc)}") from exc
        except exceptions.RayError as exc:
            return Lost(f"Ray says {_last(exc)!r}")
        if isinstance(said, bytes):
            write_whole(self._jobs.models.run.weights_path(job.weights), said, RunError)
            return None
        return read_event(said)


def evaluate_there(task: RayTask) -> Iterator[str | bytes]:
    """The task: the messages of `netadapt.executors.messages` and, before the last one, the weights as bytes."""
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    state, received = _worker_state(task.key), read_as(CandidateJob, json.loads(task.job))
    job = replace(received, run=str(state.folder), start_weights=str(state.start(task)) if received.start_weights else None)

    def work() -> None:
        try:
            evaluate_and_report(lambda: state.evaluator(task), job, said.put)
        finally:
            said.put(None)

    threading.Thread(target=work, daemon=True).start()
    weights = state.folder / "weights" / job.weights
    while (line := said.get()) is not None:
        if weights.exists():
            yield weights.read_bytes()
            weights.unlink()
        yield line


class _WorkerState:
    """What a worker on the cluster keeps of a run between tasks: a folder like the run's own, and what was opened from it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._temporary = tempfile.TemporaryDirectory(prefix="netadapt-")
        self.folder = Path(self._temporary.name)
        self._evaluator: Evaluator | None = None

    def start(self, task: RayTask) -> Path:
        """Where the weights to start from are kept once they are fetched."""
        return self.folder / f"start-{task.start.hex()}.pt"

    def evaluator(self, task: RayTask) -> Evaluator:
        if task.start is not None and not self.start(task).exists():
            for before in self.folder.glob("start-*"):
                before.unlink()
            write_whole(self.start(task), ray.get(task.start), RunError)
        if self._evaluator is None:
            _same_packages(task.versions)
            (self.folder / "weights").mkdir(exist_ok=True)
            for name, text in task.run_files.items():
                write_whole(self.folder / name, text, RunError)
            self._evaluator = Evaluator(RunModels(RunFolder.open(self.folder), ray.get(task.data)))
        return self._evaluator


@lru_cache(maxsize=1)
def _worker_state(key: str) -> _WorkerState:
    return _WorkerState(key)


def _same_packages(wanted: Mapping[str, str]) -> None:
    for name, needed in wanted.items():
        if (found := version(name)) != needed:
            raise NetAdaptError(f"{platform.node()} has {name} {found}, this machine {needed}; all nodes need the same")


def _text(job: CandidateJob) -> str:
    return json.dumps(asdict(job))


def _last(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)[:200]
