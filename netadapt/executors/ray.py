"""The executor that fine-tunes candidates on a Ray cluster, or on one that it starts on this machine.

A dataset in memory and weights are transferred by Ray's object store, so nodes need no shared folder, only the same packages. Data
that is streamed, and the user's code, each node finds under the same paths. Only this process, to which all results come back,
writes to the run folder.
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
from device_agents.support.reading import read_bytes
from netadapt.errors import NetAdaptError, RunError
from netadapt.executors import ExecutorOptions, Observers
from netadapt.executors.evaluation import Evaluator
from netadapt.executors.jobs import CandidateJob, CandidateJobs
from netadapt.executors.messages import Event, Failed, Lost, evaluate_and_report, read_event
from netadapt.executors.progress import BatchProgress
from netadapt.executors.side_by_side import side_by_side
from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import RunFolder, read_text
from netadapt.search.candidates import Candidate
from netadapt.search.types import Evaluate, Result, Step

PACKAGES = ("netadapt-profiler", "torch")
"""The packages whose versions must be the same on all nodes, because results depend on them."""


@contextmanager
def on_ray(options: ExecutorOptions, jobs: CandidateJobs, observers: Observers) -> Iterator[Evaluate]:
    """Open the executor. Running tasks are cancelled when it is closed. `NetAdaptError` if no cluster answers."""
    with _connected(options.ray_address):
        pool = RayPool(options, jobs)

        def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
            batch_jobs = jobs.of(parent, candidates)
            return side_by_side(pool, batch_jobs, BatchProgress(observers, batch_jobs, jobs.models))

        try:
            yield evaluate
        finally:
            pool.stop()


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to the cluster inside the with statement; a connection that the caller has made already is used and kept."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # the user has not agreed to reports
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, exceptions.RayError) as exc:
        raise NetAdaptError(
            f"no Ray cluster answers at {address} ({_last_line(exc)}); "
            "start one with `ray start --head`, or use --ray-address local"
        ) from exc
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class RayTask:
    """The argument of a task: plain texts, and references to objects that a worker fetches if it does not have them yet."""

    key: str
    """The name of this run on the cluster, by which a worker keeps what it has opened."""
    job: str
    """A `CandidateJob` as JSON."""
    run_files: Mapping[str, str]
    """The texts of run.json and graph.json, by their names."""
    versions: Mapping[str, str]
    """The versions of PACKAGES here."""
    start: Any
    """A reference to the bytes of the weights to start from, or None."""
    data: Any
    """A reference to the `Dataset`; None for one that each node opens itself: it is streamed, or made by the user's code."""


class RayPool:
    """As many tasks at the same time as the cluster has cores or GPUs for."""

    def __init__(self, options: ExecutorOptions, jobs: CandidateJobs) -> None:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self._cores = options.cores_per_worker or jobs.threads
        gpus = resources.get("GPU", 0)
        self.size = options.workers or int(gpus) or max(1, int(resources.get("CPU", 1)) // self._cores)
        self._gpus = min(1.0, gpus / self.size)  # several workers may share a GPU
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        self._max_cores = max((int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), default=1)
        self._jobs, self._key = jobs, uuid4().hex
        own = jobs.models.run.info.settings.training.evaluate is None  # else the user's functions have the data
        self._data = ray.put(jobs.models.dataset) if own and jobs.models.dataset.in_memory else None
        self._start: tuple[str, Any] | None = None
        self._running: dict[Any, CandidateJob] = {}
        self._task = ray.remote(evaluate_on_node)

    def start(self, job: CandidateJob) -> None:
        run = self._jobs.models.run.path
        files = {name: read_text(run / name) for name in ("run.json", "graph.json")}
        versions = {name: version(name) for name in PACKAGES}
        # on the node the file is elsewhere: only its name is sent
        sent = replace(job, start_weights=Path(job.start_weights).name if job.start_weights else None)
        task = RayTask(self._key, json.dumps(asdict(sent)), files, versions, self._weights(job.start_weights), self._data)
        cores = min(max(self._cores, job.threads), self._max_cores)  # a task that no node can hold would wait for ever
        options = {"num_cpus": cores, "num_gpus": self._gpus, "max_retries": 0, "num_returns": "streaming", "name": job.name}
        self._running[self._task.options(**options).remote(task)] = job

    def wait(self) -> Sequence[tuple[CandidateJob, Event]]:
        ready, _ = ray.wait(list(self._running), num_returns=1)
        return [item for task in ready for item in self._next(task)]

    def stop(self) -> Sequence[tuple[CandidateJob, Event]]:
        events: list[tuple[CandidateJob, Event]] = []
        while self._running and (ready := ray.wait(list(self._running), num_returns=1, timeout=0)[0]):
            events += self._next(ready[0])
        for task in self._running:
            ray.cancel(task, force=True)
        self._running = {}
        return events

    def _weights(self, path: str | None) -> Any:
        """A reference to the bytes of this file, which are stored once for all candidates that start from it."""
        if path is None:
            return None
        key = f"{path} {Path(path).stat().st_mtime_ns if Path(path).exists() else None}"
        if self._start is None or self._start[0] != key:
            self._start = key, ray.put(read_bytes(Path(path), RunError))
        return self._start[1]

    def _next(self, task: Any) -> list[tuple[CandidateJob, Event]]:
        """The next event of a task that is ready; none if it has sent the weights."""
        job = self._running[task]
        event = self._read(task, job)
        if isinstance(event, Result | Failed | Lost):
            del self._running[task]
        return [] if event is None else [(job, event)]

    def _read(self, task: Any, job: CandidateJob) -> Event | None:
        try:
            item = ray.get(next(task))
        except StopIteration:
            return Lost("its task ended without a result")
        except exceptions.RayTaskError as exc:  # `evaluate_and_report` sends all errors, so this one is from before it
            needed = " and ".join(f"{name} {version(name)}" for name in PACKAGES)
            raise NetAdaptError(
                f"{job.name} cannot be evaluated on the cluster ({_last_line(exc)}); install {needed} on all nodes"
            ) from exc
        except exceptions.RayError as exc:
            return Lost(f"Ray reported {_last_line(exc)!r}")
        if isinstance(item, bytes):
            write_whole(self._jobs.models.run.weights_path(job.weights), item, RunError)
            return None
        return read_event(item)


def evaluate_on_node(task: RayTask) -> Iterator[str | bytes]:
    """The task, which runs on a node: it yields the worker's messages and, before the last one, the weights as bytes.

    The evaluation runs in a thread of its own, so that messages are yielded while it goes on.
    """
    messages: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    state, received = _worker_state(task.key), read_as(CandidateJob, json.loads(task.job))
    job = replace(received, run=str(state.folder), start_weights=str(state.start(task)) if received.start_weights else None)

    def work() -> None:
        try:
            evaluate_and_report(lambda: state.evaluator(task), job, messages.put)
        finally:
            messages.put(None)

    threading.Thread(target=work, daemon=True).start()
    weights = state.folder / "weights" / job.weights
    while (line := messages.get()) is not None:
        if weights.exists():
            yield weights.read_bytes()
            weights.unlink()
        yield line


class _WorkerState:
    """The state that a worker on a node keeps between the tasks of a run: a folder like the run's, and its opened evaluator."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="netadapt-")
        self.folder = Path(self._temporary.name)
        self._evaluator: Evaluator | None = None

    def start(self, task: RayTask) -> Path:
        """The path of the fetched weights to start from."""
        return self.folder / f"start-{task.start.hex()}.pt"

    def evaluator(self, task: RayTask) -> Evaluator:
        """The evaluator of the run, after everything that the task needs has been fetched."""
        if task.start is not None and not self.start(task).exists():
            for before in self.folder.glob("start-*"):
                before.unlink()
            write_whole(self.start(task), ray.get(task.start), RunError)
        if self._evaluator is None:
            for name, needed in task.versions.items():
                if (found := version(name)) != needed:
                    raise NetAdaptError(f"{platform.node()} has {name} {found}; install {needed}, as on the machine of the run")
            (self.folder / "weights").mkdir(exist_ok=True)
            for name, text in task.run_files.items():
                write_whole(self.folder / name, text, RunError)
            self._evaluator = Evaluator(RunModels(RunFolder.open(self.folder), ray.get(task.data) if task.data else None))
        return self._evaluator


@lru_cache(maxsize=1)
def _worker_state(_key: str) -> _WorkerState:
    """The state of the run with this key; that of another run is dropped."""
    return _WorkerState()


def _last_line(error: Exception) -> str:
    """The last line of the error's text, which may be a traceback."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)[:200]
