"""A worker process: takes jobs as lines of JSON on standard input, evaluates them, and says on standard output how it goes.

It ends when its input does, in the middle of a job too: whoever asked is gone then, and nobody must go on writing to the run.
"""

from __future__ import annotations

import json
import os
import queue
import sys
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
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    while True:
        plain = asked.get()
        stay_on(plain["cores"])
        job = read_as(CandidateJob, plain["job"])
        evaluate_and_report(lambda run=job.run: _evaluator(run), job, lambda line: print(line, file=answers))  # type: ignore[misc]


def _listen(asked: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        asked.put(json.loads(line))
    os._exit(0)


@lru_cache(maxsize=1)
def _evaluator(run: str) -> Evaluator:
    return Evaluator(RunModels(RunFolder.open(Path(run))))


def stay_on(cores: Collection[int]) -> None:
    """Keep to these cores, with all threads there are; anywhere for none, and where the system knows no such thing."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    for thread in [int(path.name) for path in _TASKS.iterdir()] if _TASKS.exists() else [0]:
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            continue  # it ended since it was listed


if __name__ == "__main__":
    main()
