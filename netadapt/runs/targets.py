"""The targets that a run's networks are measured on: those of its tables, or any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from netadapt.runs.run_folder import RunFolder
from profiler.devices.config import find_device
from profiler.protocol.settings import Target
from profiler.runtimes import MODELLED_RUNTIME
from profiler.tables.table import load_table


def latency_tables(folder: RunFolder) -> dict[str, Path]:
    """The run's own copies of the tables of devices that can be measured, by their names; those of latency budgets come first."""
    tables = folder.info.tables
    named = [goal.table for goal in folder.info.goals if goal.measurable]
    others = [name for name in tables if folder.table_path(name).exists()]
    return {
        name: folder.table_path(name)
        for name in dict.fromkeys((*named, *others))
        if name not in tables or tables[name].runtime != MODELLED_RUNTIME
    }


def choose_target(
    folder: RunFolder, device: str | None = None, runtime: str | None = None, python: str | None = None
) -> tuple[Target, Path | None]:
    """The target with this device, or the table of this name, and this runtime; and the run's table of that target, if any.

    Each argument that is None is taken from the first table that fits. The interpreter on a device without a table is not known.
    A name that no device has raises the error of `find_device`.
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
    find_device(device)  # an unknown name is refused before anything is exported
    return Target(device, runtime, first.threads, python, oversubscribe=first.oversubscribe), None
