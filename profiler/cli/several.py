"""Several model files in one command: the error of one of them does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from device_agents.support.errors import ToolError
from profiler.console import print_json
from profiler.errors import ModelError, TableError

T = TypeVar("T")


def each(models: Sequence[Path], act: Callable[[Path], T]) -> dict[Path, T | ToolError]:
    """What `act` gives for each file, or the error of this file. An error of the device is raised, for it is one of all files."""
    found: dict[Path, T | ToolError] = {}
    for model in models:
        try:
            found[model] = act(model)
        except (ModelError, TableError) as exc:
            found[model] = exc
    return found


def tell(
    found: Mapping[Path, T | ToolError], as_json: bool, data: Callable[[T], dict[str, Any]], show: Callable[[T, bool], None]
) -> None:
    """Print the results: as JSON that of one file as an object, and several as a list, in which a file that failed has its `error`.

    The error of each file is a line on standard error, and then the command exits with code 1. `show` is told whether the file is
    one of several.
    """
    objects: list[dict[str, Any]] = []
    for model, result in found.items():
        if not isinstance(result, ToolError):
            if as_json:
                objects.append(data(result))
            else:
                show(result, len(found) > 1)
        elif len(found) == 1:
            raise result
        else:
            objects.append({"model": str(model), "error": str(result)})
            sys.stdout.flush()  # the lines of both appear in the order of the files
            said = str(result)
            print(f"error: {'' if said.startswith(str(model)) else f'{model}: '}{said}", file=sys.stderr)
    if as_json:
        print_json(objects if len(found) > 1 else objects[0])
    if any(isinstance(result, ToolError) for result in found.values()):
        raise typer.Exit(1)
