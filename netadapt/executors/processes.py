"""The executor that fine-tunes candidates in worker processes on this machine, each of which has cores or a GPU of its own."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO

from netadapt.child_process import python_command
from netadapt.executors import ExecutorOptions, Observers
from netadapt.executors.jobs import CandidateJob, CandidateJobs
from netadapt.executors.messages import Event, Failed, Lost, read_event
from netadapt.executors.progress import BatchProgress
from netadapt.executors.side_by_side import side_by_side
from netadapt.search.candidates import Candidate
from netadapt.search.types import Evaluate, Result, Step
from netadapt.training.this_machine import usable_cores, visible_gpus


@contextmanager
def processes(options: ExecutorOptions, jobs: CandidateJobs, observers: Observers) -> Iterator[Evaluate]:
    """Open the executor. Workers are started with the first jobs, and killed when it is closed."""
    pool = ProcessPool(options, jobs.threads)

    def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        batch_jobs = jobs.of(parent, candidates)
        return side_by_side(pool, batch_jobs, BatchProgress(observers, batch_jobs, jobs.models))

    try:
        yield evaluate
    finally:
        pool.stop()


class ProcessPool:
    """Worker processes, which are started when there is a job for them and keep what they have loaded until the pool is stopped."""

    def __init__(self, options: ExecutorOptions, threads: int) -> None:
        """`threads` is the number of torch's threads for each candidate."""
        gpus, cores = visible_gpus(), usable_cores()
        per_worker = options.cores_per_worker or threads
        self.size = options.workers or len(gpus) or max(1, len(cores) // per_worker)
        self._cores = cores
        enough = self.size * per_worker <= len(cores)  # otherwise all workers share all cores
        self._shares = [cores[slot * per_worker : (slot + 1) * per_worker] if enough else cores for slot in range(self.size)]
        self._gpus = [gpus[slot % len(gpus)] if gpus else None for slot in range(self.size)]
        self._threads = threads
        self._workers: list[_Worker | None] = [None] * self.size

    def start(self, job: CandidateJob) -> None:
        slot = next(number for number, worker in enumerate(self._workers) if worker is None or worker.job is None)
        worker = self._workers[slot]
        if worker is None or not worker.alive:
            worker = self._workers[slot] = _Worker(_environment(self._threads, self._gpus[slot]))
        # the original network is trained alone, so it may use all cores
        worker.give(job, self._cores if job.candidate.block is None else self._shares[slot])

    def wait(self) -> Sequence[tuple[CandidateJob, Event]]:
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                if worker is not None and worker.job is not None:
                    selector.register(worker.output, selectors.EVENT_READ, worker)
            ready: list[_Worker] = [key.data for key, _ in selector.select()]
        return [item for worker in ready for item in worker.read()]

    def stop(self) -> Sequence[tuple[CandidateJob, Event]]:
        workers = [worker for worker in self._workers if worker is not None]
        self._workers = [None] * self.size
        for worker in workers:
            worker.kill()
        return [item for worker in workers for item in worker.read_all()]


class _Worker:
    """A worker process, and the job that it evaluates."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.job: CandidateJob | None = None
        self._unread = b""  # the beginning of a line whose end has not come yet
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker
        self._process = subprocess.Popen(
            python_command("netadapt.executors.worker"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment,
            start_new_session=True,  # Ctrl-C goes to this process only, which then ends its workers
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def give(self, job: CandidateJob, cores: Sequence[int]) -> None:
        """Send the job to the process, which is to run on these cores."""
        assert self._process.stdin is not None
        self.job = job
        try:
            self._process.stdin.write(json.dumps({"job": asdict(job), "cores": list(cores)}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has just ended: `read` will find out and report the job as lost

    def read(self) -> list[tuple[CandidateJob, Event]]:
        """The events since the last call; blocks if there are none. The end of the process is a `Lost`."""
        data = os.read(self.output.fileno(), 1 << 16)
        if data:
            return self._events(data)
        self._process.wait()
        return self._end_job(Lost(self._exit_reason())) if self.job else []

    def read_all(self) -> list[tuple[CandidateJob, Event]]:
        """The last events of a process that was killed; afterwards the worker is closed."""
        events: list[tuple[CandidateJob, Event]] = []
        while data := os.read(self.output.fileno(), 1 << 16):
            events += self._events(data)
        self._process.wait()
        for file in (self._process.stdout, self._stderr):
            if file is not None:
                file.close()
        return events

    def kill(self) -> None:
        if self.alive:  # with the processes that read images for it, which would keep its output open
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # a job that was not read yet is not needed any more

    def _events(self, data: bytes) -> list[tuple[CandidateJob, Event]]:
        *lines, self._unread = (self._unread + data).split(b"\n")
        events: list[tuple[CandidateJob, Event]] = []
        for line in lines:
            assert self.job is not None
            event = read_event(line)
            if isinstance(event, Lost):
                self._process.kill()  # so that its memory is free for the others
            events += self._end_job(event) if isinstance(event, Result | Failed | Lost) else [(self.job, event)]
        return events

    def _end_job(self, event: Event) -> list[tuple[CandidateJob, Event]]:
        """The last event of the worker's job, which it has no more from now on."""
        assert self.job is not None
        job, self.job = self.job, None
        return [(job, event)]

    def _exit_reason(self) -> str:
        """A clause that says how the process ended, with the last line of its standard error."""
        code = self._process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            return f"it was ended by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return f"it ended with exit code {code}" + (f" and the message {lines[-1][:200]!r}" if lines else "")


def _environment(threads: int, gpu: str | None) -> dict[str, str]:
    """The environment of a worker, whose libraries use no more than these threads."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return environment if gpu is None else environment | {"CUDA_VISIBLE_DEVICES": gpu}
