"""What a user sees of an executor at work: a bar for the original's training steps, then one for each iteration's candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netadapt.executors import Observers
from netadapt.executors.jobs import CandidateJob
from netadapt.search.types import Result
from netadapt.training.tasks import scores_text
from netadapt.training.types import Dataset


class BatchProgress:
    """The progress of a batch of jobs."""

    def __init__(self, observers: Observers, jobs: Sequence[CandidateJob], dataset: Dataset) -> None:
        self._observers, self._task, self._steps = observers, dataset.task, 0
        first = jobs[0]
        if first.candidate.block is not None:
            observers.progress.begin(f"iteration {first.candidate.iteration}: fine-tuning {_candidates(len(jobs))}", len(jobs))
        elif first.training is not None:
            observers.progress.begin("training the original network", first.training.steps_for(len(dataset.train)))

    def losses(self, job: CandidateJob, losses: Iterable[float]) -> None:
        """After each step of the original's training; candidates are too many and too short to be watched."""
        if job.candidate.block is not None:
            return
        for loss in losses:
            self._steps += 1
            self._observers.progress.advance(f"loss {loss:.3f}")
            self._observers.loss(self._steps, loss)

    def again(self, job: CandidateJob) -> None:
        """A lost job starts anew."""
        if job.candidate.block is None:
            self._steps = 0

    def done(self, job: CandidateJob, result: Result, running: Sequence[str] = ()) -> None:
        """`running` is what the workers are busy with now."""
        if job.candidate.block is not None:
            now = f"; at work: {', '.join(running)}" if running else ""
            said = scores_text(self._task, result.accuracy, result.metrics)
            self._observers.progress.advance(f"{job.name}: {said}{now}")


def _candidates(count: int) -> str:
    return "1 candidate" if count == 1 else f"{count} candidates"
