"""The evaluation of several jobs at the same time by a pool of workers: a lost job is repeated, and a failed one ends the batch."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from device_agents.support.errors import ToolError
from netadapt.errors import NetAdaptError
from netadapt.executors.jobs import CandidateJob
from netadapt.executors.messages import Event, Failed, Losses
from netadapt.executors.progress import BatchProgress
from netadapt.search.types import Result

REPEATS = 3
"""The number of times that a job is repeated after its worker was lost; if it is lost once more, the job itself kills workers."""


class Pool(Protocol):
    """A pool of workers. The last event of every job that is started is a `Result`, `Failed` or `Lost`."""

    @property
    def size(self) -> int:
        """The largest number of jobs at the same time."""
        ...

    def start(self, job: CandidateJob) -> None:
        """Give the job to a free worker, of which there must be one."""
        ...

    def wait(self) -> Sequence[tuple[CandidateJob, Event]]:
        """Block until there are events of the running jobs, and return them."""
        ...

    def stop(self) -> Sequence[tuple[CandidateJob, Event]]:
        """End all workers at once, and return the events that had come by then and were not yet returned."""
        ...


def side_by_side(pool: Pool, jobs: Sequence[CandidateJob], batch: BatchProgress) -> Iterator[Result]:
    """Yield results as they come. If an error or Ctrl-C ends the batch early, the results that are there are yielded first.

    Raises the error of a job that failed, or `NetAdaptError` with the name of a job that lost more than `REPEATS` workers.
    """
    waiting, running = deque(jobs), list[CandidateJob]()
    times_lost, events = Counter[str](), list[tuple[CandidateJob, Event]]()
    try:
        while waiting or running:
            while waiting and len(running) < pool.size:
                running.append(waiting.popleft())
                pool.start(running[-1])
            events += pool.wait()
            while events:
                job, event = events.pop(0)
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
                    times_lost[job.weights] += 1
                    if times_lost[job.weights] > REPEATS:
                        raise NetAdaptError(
                            f"the worker that evaluates {job.name} was lost {times_lost[job.weights]} times, the last time because "
                            f"{event.reason}; remove the cause or choose fewer --workers, then continue with --resume"
                        )
                    batch.again(job)
                    waiting.appendleft(job)
    except (KeyboardInterrupt, ToolError):
        yield from (event for _, event in (*events, *pool.stop()) if isinstance(event, Result))
        raise
