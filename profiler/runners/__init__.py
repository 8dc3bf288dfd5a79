"""What measures on a device: a program on it, ours or a vendor's, a simulation, or a recording; see profiler.runner_names."""

from __future__ import annotations

from device_agents.support.loading import load
from profiler.errors import RunnerError
from profiler.runner_names import RUNNERS
from profiler.runners.program import Runner

__all__ = ["Runner", "runner_named"]


def runner_named(name: str) -> type[Runner]:
    """`RunnerError`, naming those there are, for any other."""
    if name not in RUNNERS:
        raise RunnerError(f"there is no runner {name!r}; known are {', '.join(RUNNERS)}")
    found: type[Runner] = load(RUNNERS[name])
    return found
