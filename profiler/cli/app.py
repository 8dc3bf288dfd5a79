"""The `profile` command, put together of a module for each of its commands.

Such a module holds the command, the function `..._data` that makes JSON of its result, and the one that prints the result as text.
"""

from __future__ import annotations

from collections.abc import Callable
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
from profiler.cli.examples import EXAMPLES
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
from profiler.console import Command, Version, command_group, examples

app = command_group("Measure layers and networks on real devices and build latency tables from them.")


@app.callback()
def main(
    config: Annotated[
        Path | None,
        typer.Option(
            help="The file that names devices and wanted tables. By default it is profile.toml in the current folder, "
            "or else in ~/.config/netadapt-profiler."
        ),
    ] = None,
    version: Version = False,
) -> None:
    use_config(config)


COMMANDS: tuple[tuple[str, Callable[..., None] | typer.Typer], ...] = (
    ("devices", devices), ("hardware", hardware), ("layers", layers), ("benchmark", benchmark), ("build", build), ("show", show),
    ("predict", predict), ("estimate", estimate), ("check", check), ("compare", compare), ("import", import_), ("export", export),
    ("plot", plot), ("doctor", doctor), ("clean", clean), ("schedule", schedule_app), ("serve", serve), ("runner", runner_app),
)  # fmt: skip
"""In the order of the help, each with its name."""
for name, command in COMMANDS:
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name, cls=Command, epilog=examples(EXAMPLES.get(name, ())))(command)
