"""Where a run's networks are measured: on the devices of its tables, or anywhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from netadapt.runs.run_folder import RunFolder
from profiler.devices.config import find_device
from profiler.protocol.settings import Target
from profiler.tables.table import load_table


def latency_tables(folder: RunFolder) -> dict[str, Path]:
    """The run's own copies of the tables behind its latency budgets, by their names."""
    return {goal.table: folder.table_path(goal.table) for goal in folder.info.goals if goal.resource == "latency"}


def where(
    folder: RunFolder, device: str | None = None, runtime: str | None = None, python: str | None = None
) -> tuple[Target, Path | None]:
    """What is meant by a device, or the name of one of the run's tables, and a runtime: a target, and the run's table of it.

    What is not named is as for the first table. Of another device than the tables' no interpreter is known. An error of the
    device's if there is none of that name.
    """
    tables = {name: (path, load_table(path).info.target) for name, path in latency_tables(folder).items()}
    for name, (path, target) in tables.items():
        if device in (None, name, target.device) and runtime in (None, target.runtime):
            return replace(target, python=python or target.python), path
    named = next((target for name, (_, target) in tables.items() if device in (name, target.device)), None)
    first = named or next((target for _, target in tables.values()), Target())
    runtime = runtime or first.runtime
    if named is not None or device is None:
        return replace(first, runtime=runtime, python=python or first.python), None
    find_device(device)  # a slip is told before anything is exported
    return Target(device, runtime, first.threads, python), None
