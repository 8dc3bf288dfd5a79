"""The executor that fine-tunes candidates in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from netadapt.executors import ExecutorOptions, Told
from netadapt.executors.evaluation import Evaluator
from netadapt.executors.jobs import Job, Jobs
from netadapt.executors.progress import Telling
from netadapt.search.candidates import Candidate
from netadapt.search.types import Evaluate, Result, Step


@contextmanager
def in_process(_options: ExecutorOptions, jobs: Jobs, told: Told) -> Iterator[Evaluate]:
    evaluator = Evaluator(jobs.family)

    def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        todo = jobs.of(parent, candidates)
        telling = Telling(told, todo, jobs.family.dataset)
        for job in todo:
            result = _evaluated(evaluator, job, telling)
            yield result
            telling.done(job, result)

    yield evaluate


def _evaluated(evaluator: Evaluator, job: Job, telling: Telling) -> Result:
    return evaluator(job, lambda _done, _all, loss: telling.losses(job, (loss,)))
