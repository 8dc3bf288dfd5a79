"""`profile runner`: the native runner, compiled by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from device_agents import native
from profiler.cli.examples import EXAMPLES
from profiler.cli.options import one_of
from profiler.console import Command, Json, examples, plain_errors, print_json

app = typer.Typer(help="Compile the native runner, which measures on devices without Python.", no_args_is_help=True)


@app.command(cls=Command, epilog=examples(EXAMPLES["runner build"]))
def build(
    target: Annotated[
        str, typer.Option(**one_of(lambda: native.TARGETS), help="The kind of machine that the runner is compiled for.")
    ] = native.TARGETS[0],
    ndk: Annotated[
        Path | None, typer.Option(help="The folder of the Android NDK. By default it is the one that ANDROID_NDK_HOME names.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The program to write. One that exists is replaced.")] = Path("measure"),
    as_json: Json = False,
) -> None:
    """Compile the native runner. `native = PATH` in profile.toml has it sent to a device.

    For these targets it is also compiled by itself when a device first needs it.
    """
    with plain_errors():
        built = native.build(target, out, ndk=ndk)
        if as_json:
            print_json(built_data(built))
        else:
            print(f"{built.path}: {built.path.stat().st_size / 1e3:.0f} kB, {built.build}")


def built_data(built: native.Built) -> dict[str, Any]:
    size_bytes = built.path.stat().st_size
    return {"program": str(built.path), "target": built.target, "size_bytes": size_bytes, "build": built.build}
