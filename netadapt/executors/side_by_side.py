"""Several jobs at work at the same time, whoever the workers are: what is lost is begun again, what fails ends the work."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from device_agents.support.errors import ToolError
from netadapt.errors import NetAdaptError
from netadapt.executors.jobs import CandidateJob
from netadapt.executors.messages import Event, Failed, Losses, Lost
from netadapt.executors.progress import BatchProgress
from netadapt.search.types import Result

REPEATS = 3
"""How often a job is begun again when its worker was lost; by then it is probably the job that kills workers."""


class Pool(Protocol):
    """Workers. Every job that is started ends with one of `Result`, `Failed` and `Lost`."""

    @property
    def size(self) -> int:
        """So many jobs at most are started and not ended."""
        ...

    def start(self, job: CandidateJob) -> None: ...

    def wait(self) -> Sequence[tuple[CandidateJob, Event]]:
        """Block until there is something to tell of the jobs at work."""
        ...

    def stop(self) -> Sequence[tuple[CandidateJob, Event]]:
        """End all workers at once; what they had said by then and was not waited for."""
        ...


def side_by_side(pool: Pool, jobs: Sequence[CandidateJob], batch: BatchProgress) -> Iterator[Result]:
    """Results as they come. When something ends the work early, those that are finished still come first.

    Raises the error of a job that failed, or `NetAdaptError` naming one whose worker was lost again and again.
    """
    waiting, running, losses, arrived = deque(jobs), list[CandidateJob](), Counter[str](), list[tuple[CandidateJob, Event]]()
    try:
        while waiting or running:
            while waiting and len(running) < pool.size:
                running.append(waiting.popleft())
                pool.start(running[-1])
            arrived += pool.wait()
            while arrived:
                job, event = arrived.pop(0)
                if isinstance(event, Losses):
                    batch.losses(job, event.values)
                    continue
                running.remove(job)
                if isinstance(event, Result):
                    yield event
                    batch.done(job, event, [other.name for other in running])
                elif isinstance(event, Failed):
                    raise event.error
                else:
                    _count(losses, job, event)
                    batch.again(job)
                    waiting.appendleft(job)
    except (KeyboardInterrupt, ToolError):
        yield from (event for _, event in (*arrived, *pool.stop()) if isinstance(event, Result))
        raise


def _count(losses: Counter[str], job: CandidateJob, lost: Lost) -> None:
    losses[job.weights] += 1
    if losses[job.weights] > REPEATS:
        raise NetAdaptError(
            f"the worker with {job.name} was lost {losses[job.weights]} times, last because {lost.how}; "
            "when that is mended, or with fewer --workers, go on with --resume"
        )
