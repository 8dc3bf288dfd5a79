"""The command `netadapt resume`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from netadapt.cli import options
from netadapt.cli.errors import needs_torch
from netadapt.errors import RunError
from profiler.console import Json


def resume(
    ctx: typer.Context,
    run: options.Run,
    max_iterations: Annotated[
        int | None, typer.Option(help="Largest number of iterations. Default: the one that the run was begun with.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Networks that are trained at the same time. Default: as the run was begun with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Go on with an interrupted run: its `netadapt run` is repeated with --resume, in the folder that it was typed in."""
    with needs_torch():
        from netadapt.runs.run_folder import RunFolder

        with RunFolder.open(run) as folder:
            started = folder.info.started
        if started is None:
            raise RunError(f"{run} was begun from Python; go on with it there with resume=True")
        path = run.resolve()
        try:
            os.chdir(started.folder)
        except OSError as exc:
            raise RunError(
                f"{run} was begun in {started.folder}, which cannot be opened: {exc.strerror}; repeat its `netadapt run`, with "
                "--resume"
            ) from exc
        changes = (("--max-iterations", max_iterations), ("--workers", workers))
        more = [text for option, value in changes if value is not None for text in (option, str(value))]
        command = ctx.find_root().command
        assert isinstance(command, typer.core.TyperGroup)
        again = command.commands["run"]
    again.main([*started.arguments, "--out", str(path), "--resume", *more, *(["--json"] if as_json else [])], "netadapt run")
