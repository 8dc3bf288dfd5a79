"""The executor that fine-tunes candidates in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from netadapt.executors import ExecutorOptions, Observers
from netadapt.executors.evaluation import Evaluator
from netadapt.executors.jobs import CandidateJob, CandidateJobs
from netadapt.executors.progress import BatchProgress
from netadapt.search.candidates import Candidate
from netadapt.search.types import Evaluate, Result, Step


@contextmanager
def in_process(_options: ExecutorOptions, jobs: CandidateJobs, observers: Observers) -> Iterator[Evaluate]:
    """Open the executor. The dataset and the network that candidates start from stay in memory until it is closed."""
    evaluator = Evaluator(jobs.models)

    def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        batch_jobs = jobs.of(parent, candidates)
        batch = BatchProgress(observers, batch_jobs, jobs.models)
        for job in batch_jobs:

            def report(_done: int, _all: int, loss: float, job: CandidateJob = job) -> None:
                batch.losses(job, (loss,))

            result = evaluator(job, report)
            yield result
            batch.done(job, result)

    yield evaluate
