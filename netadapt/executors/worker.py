"""A worker process: it reads jobs as lines of JSON from standard input and writes messages to standard output.

A line is {"job": {...}, "cores": [...]}; netadapt.executors.messages describes the messages. The process ends when its input ends,
even in the middle of a job: the process that gave the job is gone then, and nothing may be written to the run any more.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from device_agents.support.dataclass_json import read_as
from netadapt.executors.evaluation import Evaluator
from netadapt.executors.jobs import CandidateJob
from netadapt.executors.messages import evaluate_and_report
from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import RunFolder

_TASKS = Path("/proc/self/task")


def main() -> None:
    messages = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the messages
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    while True:
        request = requests.get()
        stay_on(request["cores"])
        job = read_as(CandidateJob, request["job"])
        evaluate_and_report(lambda run=job.run: _evaluator(run), job, lambda line: print(line, file=messages))  # type: ignore[misc]


def _read_requests(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    # a file of its own: a thread that waits for a line of sys.stdin holds its lock, and a forked process would wait to close it
    with os.fdopen(os.dup(0), encoding="utf-8") as lines:
        for line in lines:
            requests.put(json.loads(line))
    os._exit(0)  # the only way to end the main thread in the middle of a job


@lru_cache(maxsize=1)
def _evaluator(run: str) -> Evaluator:
    """The evaluator of the run in this folder, which is kept between jobs."""
    return Evaluator(RunModels(RunFolder.open(Path(run))))


def stay_on(cores: Collection[int]) -> None:
    """Bind all threads of this process to these cores; without cores, or on a system that cannot bind threads, do nothing."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    for thread in [int(path.name) for path in _TASKS.iterdir()] if _TASKS.exists() else [0]:
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            continue  # the thread has ended since it was listed


if __name__ == "__main__":
    main()
