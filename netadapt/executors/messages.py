"""The messages of a worker while it evaluates a job, each one line of JSON.

  {"losses": [2.3, 2.1]}   the losses of the training steps since the last such message
  {"done": {...}}          the `Result`; the candidate's weights have been saved
  {"failed": "netadapt.training.trainer:TrainingError", "message": "the loss became nan after ..."}
                           an error that would occur again; an empty class stands for a bug, whose traceback is the message
  {"lost": "..."}          the reason why this worker cannot continue; another one may

Nothing is pickled, so that reading a message never runs code.
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

_OWN_PACKAGES = ("device_agents.", "netadapt.", "profiler.")
_LOSSES_EVERY_S = 0.5


class WorkerFailed(Exception):
    """A bug showed in a worker; the message is the worker's traceback."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of some training steps, in their order."""

    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The evaluation raised this error, and would raise it again."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker has ended, or must be ended; its job can be repeated by another."""

    reason: str
    """A clause that can follow "because"."""


Event = Losses | Result | Failed | Lost


def read_event(line: str | bytes) -> Event:
    """The event of a worker's message. `ValueError` if it is none of the messages above."""
    match read_json(line):
        case {"losses": list(values)}:
            return Losses(read_value(tuple[float, ...], values))
        case {"done": dict(result)}:
            return read_as(Result, result)
        case {"failed": str(kind), "message": str(message)}:
            return Failed(_error(kind, message))
        case {"lost": str(reason)}:
            return Lost(reason)
    raise ValueError(f"a worker sent an unknown message: {str(line)[:80]!r}")


def evaluate_and_report(open_evaluator: Callable[[], Evaluator], job: CandidateJob, send: Callable[[str], None]) -> None:
    """Evaluate a job, and send losses, result and errors as messages; the class of an error is sent too if it is one of ours."""
    losses = _LossSender(send)
    try:
        result = open_evaluator()(job, losses.add)
        losses.flush()
        message: dict[str, Any] = {"done": asdict(result)}
    except OutOfMemory as exc:
        message = {"lost": str(exc)}  # with fewer jobs beside it there may be enough
    except ToolError as exc:
        message = {"failed": f"{type(exc).__module__}:{type(exc).__qualname__}", "message": str(exc)}
    except Exception:  # a bug, whose traceback the process that gave the job raises
        message = {"failed": "", "message": traceback.format_exc()}
    send(json.dumps(message))


class _LossSender:
    """Sends losses together, since a message for each step of a small network would take longer than the step."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send, self._values, self._sent_s = send, list[float](), time.monotonic()

    def add(self, _done: int, _all: int, loss: float) -> None:
        self._values.append(loss)
        if time.monotonic() - self._sent_s > _LOSSES_EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._values:
            self._send(json.dumps({"losses": self._values}))
        self._values, self._sent_s = [], time.monotonic()


def _error(kind: str, message: str) -> Exception:
    """The error of this module:class, `NetAdaptError` for a class that is not of our packages, or `WorkerFailed` without one."""
    module, _, name = kind.partition(":")
    if not kind:
        return WorkerFailed(message)
    try:
        found = getattr(importlib.import_module(module), name, None) if module.startswith(_OWN_PACKAGES) else None
    except ImportError:  # the worker has another version of our packages
        found = None
    return found(message) if isinstance(found, type) and issubclass(found, ToolError) else NetAdaptError(message)
