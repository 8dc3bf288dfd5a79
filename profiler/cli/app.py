"""The `profile` command, put together of a module for each of its commands.

Such a module holds the command, the function `..._data` that makes JSON of its result, and the one that prints the result as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.benchmark import benchmark
from profiler.cli.build import build
from profiler.cli.check import check
from profiler.cli.clean import clean
from profiler.cli.compare import compare
from profiler.cli.devices import devices
from profiler.cli.doctor import doctor
from profiler.cli.estimate import estimate
from profiler.cli.export import export
from profiler.cli.hardware import hardware
from profiler.cli.import_ import import_
from profiler.cli.layers import layers
from profiler.cli.options import use_config
from profiler.cli.plot import plot
from profiler.cli.predict import predict
from profiler.cli.runner import app as runner_app
from profiler.cli.schedule import app as schedule_app
from profiler.cli.serve import serve
from profiler.cli.show import show
from profiler.console import Command, Version, command_group

app = command_group("Measure layers and networks on real devices and build latency tables from them.")


@app.callback()
def main(
    config: Annotated[
        Path | None,
        typer.Option(
            help="The file that names devices and wanted tables. By default it is ./profile.toml or else the user's own, "
            "~/.config/netadapt-profiler/profile.toml."
        ),
    ] = None,
    version: Version = False,
) -> None:
    use_config(config)


app.command(cls=Command)(devices)
app.command(cls=Command)(hardware)
app.command(cls=Command)(layers)
app.command(cls=Command)(benchmark)
app.command(cls=Command)(build)
app.command(cls=Command)(show)
app.command(cls=Command)(predict)
app.command(cls=Command)(estimate)
app.command(cls=Command)(check)
app.command(cls=Command)(compare)
app.command("import", cls=Command)(import_)
app.command(cls=Command)(export)
app.command(cls=Command)(plot)
app.command(cls=Command)(doctor)
app.command(cls=Command)(clean)
app.add_typer(schedule_app, name="schedule")
app.command(cls=Command)(serve)
app.add_typer(runner_app, name="runner")
