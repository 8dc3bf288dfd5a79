"""What a worker says while it evaluates a job: a line of JSON each. Nothing is pickled, and nothing that comes is run.

{"losses": [2.3, 2.1]}                      of the training steps since the last such message
{"done": {...}}                             a `Result`; its weights are kept by then
{"failed": "netadapt.training.trainer:TrainingError", "says": "the loss became nan after ..."}
{"lost": "..."}                             the worker cannot go on; another one may
"""

from __future__ import annotations

import importlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from device_agents.support.dataclass_json import read_as, read_value
from device_agents.support.errors import ToolError
from device_agents.support.strict_json import read_json
from netadapt.errors import NetAdaptError
from netadapt.executors.evaluation import Evaluator, OutOfMemory
from netadapt.executors.jobs import CandidateJob
from netadapt.search.types import Result

_OWN = ("device_agents.", "netadapt.", "profiler.")
_EVERY_S = 0.5


class WorkerFailed(Exception):
    """Something went wrong in a worker that is not the user's to put right; the message is the worker's traceback."""


@dataclass(frozen=True, slots=True)
class Losses:
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Evaluating raised this; it would again."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone, or has to go."""

    how: str


Event = Losses | Result | Failed | Lost


def read_event(line: str | bytes) -> Event:
    """`ValueError` if a worker never says that."""
    match read_json(line):
        case {"losses": list(values)}:
            return Losses(read_value(tuple[float, ...], values))
        case {"done": dict(result)}:
            return read_as(Result, result)
        case {"failed": str(kind), "says": str(says)}:
            return Failed(_error(kind, says))
        case {"lost": str(how)}:
            return Lost(how)
    raise ValueError(f"a worker said {str(line)[:80]!r}")


def evaluate_and_report(open_evaluator: Callable[[], Evaluator], job: CandidateJob, say: Callable[[str], None]) -> None:
    """Evaluate a job and say how it goes. Errors are said too, typed if they are ours."""
    losses = _Losses(say)
    try:
        result = open_evaluator()(job, losses.add)
        losses.flush()
        said: dict[str, Any] = {"done": asdict(result)}
    except OutOfMemory as exc:
        said = {"lost": str(exc)}
    except ToolError as exc:
        said = {"failed": f"{type(exc).__module__}:{type(exc).__qualname__}", "says": str(exc)}
    except Exception:
        said = {"failed": "", "says": traceback.format_exc()}
    say(json.dumps(said))


class _Losses:
    """Gathers losses, since a message for each step of a small network would cost more than the step."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._values, self._said = say, list[float](), time.monotonic()

    def add(self, _done: int, _all: int, loss: float) -> None:
        self._values.append(loss)
        if time.monotonic() - self._said > _EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._values:
            self._say(json.dumps({"losses": self._values}))
        self._values, self._said = [], time.monotonic()


def _error(kind: str, says: str) -> Exception:
    """The typed error that it was. One of a user's own package becomes the base class of ours; none of ours is a bug."""
    module, _, name = kind.partition(":")
    if not kind:
        return WorkerFailed(says)
    try:
        found = getattr(importlib.import_module(module), name, None) if module.startswith(_OWN) else None
    except ImportError:  # of another version of ours
        found = None
    return found(says) if isinstance(found, type) and issubclass(found, ToolError) else NetAdaptError(says)
