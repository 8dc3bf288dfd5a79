"""The command `netadapt measure`."""

from __future__ import annotations

from typing import Annotated

import typer

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from profiler.console import Json, print_json
from profiler.progress import bar


def measure(
    run: options.Run,
    device: options.Device = None,
    runtime: options.Runtime = None,
    step: Annotated[list[int] | None, typer.Option(help="A step to measure; repeatable. Default: every step.")] = None,
    python: Annotated[
        str | None, typer.Option(help="The Python interpreter on the device that has the runtime. Default: that of the table.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the run's networks whole on the device, and compare with the table's predictions."""
    with needs_torch("nothing was recorded of this measurement"):
        from netadapt.actions import MeasureRequest
        from netadapt.actions import measure as measure_steps

        with bar() as progress:
            found = measure_steps(MeasureRequest(run, step or (), device, runtime, python), progress)
        if as_json:
            print_json([printing.verified_data(item) for item in found])
        else:
            printing.print_verified(found)
