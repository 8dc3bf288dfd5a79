"""The progress that a user sees: a bar of the original network's training steps, then one of each iteration's candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netadapt.executors import Observers
from netadapt.executors.jobs import CandidateJob
from netadapt.runs.models import RunModels
from netadapt.search.types import Result
from netadapt.training.tasks import scores_text


class BatchProgress:
    """The progress of a batch of jobs: the original network alone, or the candidates of an iteration."""

    def __init__(self, observers: Observers, jobs: Sequence[CandidateJob], models: RunModels) -> None:
        self._observers, self._task, self._steps = observers, models.run.info.settings.task, 0
        first = jobs[0]
        if first.candidate.block is not None:
            count = "1 candidate" if len(jobs) == 1 else f"{len(jobs)} candidates"
            work = "scoring" if first.training is None else "fine-tuning"
            observers.progress.begin(f"iteration {first.candidate.iteration}: {work} {count}", len(jobs))
        elif first.training is not None:
            observers.progress.begin("training the original network", first.training.steps_for(len(models.dataset.train)))

    def losses(self, job: CandidateJob, losses: Iterable[float]) -> None:
        """Report the losses of further training steps; those of candidates, whose trainings are short and many, are not shown."""
        if job.candidate.block is not None:
            return
        for loss in losses:
            self._steps += 1
            self._observers.progress.advance(f"loss {loss:.3f}")
            self._observers.loss(self._steps, loss)

    def again(self, job: CandidateJob) -> None:
        """Report that a lost job is started again, from its first step."""
        if job.candidate.block is None:
            self._steps = 0

    def done(self, job: CandidateJob, result: Result, running: Sequence[str] = ()) -> None:
        """Report the result of a job; `running` are the names of the jobs that are being evaluated now."""
        if job.candidate.block is not None:
            others = f"; at work: {', '.join(running)}" if running else ""
            scores = scores_text(self._task, result.accuracy, result.metrics)
            self._observers.progress.advance(f"{job.name}: {scores}{others}")
