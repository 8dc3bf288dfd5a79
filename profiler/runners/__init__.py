"""What measures on a device: a program on it, ours or a vendor's, a simulation, or a recording; see profiler.runner_names."""

from __future__ import annotations

import importlib

from profiler.errors import RunnerError
from profiler.runner_names import RUNNERS
from profiler.runners.program import Runner

__all__ = ["Runner", "runner_named"]


def runner_named(name: str) -> type[Runner]:
    """`RunnerError`, naming those there are, for any other."""
    if name not in RUNNERS:
        raise RunnerError(f"there is no runner {name!r}; known are {', '.join(RUNNERS)}")
    module, class_name = RUNNERS[name].split(":")
    found: type[Runner] = getattr(importlib.import_module(module), class_name)
    return found
