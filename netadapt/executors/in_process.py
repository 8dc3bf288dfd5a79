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
    evaluator = Evaluator(jobs.models)

    def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        todo = jobs.of(parent, candidates)
        batch = BatchProgress(observers, todo, jobs.models.dataset)
        for job in todo:
            result = _evaluated(evaluator, job, batch)
            yield result
            batch.done(job, result)

    yield evaluate


def _evaluated(evaluator: Evaluator, job: CandidateJob, batch: BatchProgress) -> Result:
    return evaluator(job, lambda _done, _all, loss: batch.losses(job, (loss,)))
