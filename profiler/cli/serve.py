"""`profile serve`: the dashboard, a local web page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.options import use_config
from profiler.console import plain_errors
from profiler.devices.config import config_path
from profiler.serve.server import require_packages, serve_page


def serve(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="The folders that hold tables and runs. By default it is the current folder.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The file that names devices and wanted tables. By default it is the same as for the other commands."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Any but this machine's own loopback addresses requires a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The TCP port to listen on. 0 takes any that is free.")] = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that holds the token to ask visitors for. By default it is the value of PROFILE_SERVE_TOKEN; where that "
            "is not set either and a token is required, one is made up and shown."
        ),
    ] = None,
) -> None:
    """Show devices, running builds, tables and NetAdapt runs on a web page, with /metrics for Prometheus. Ctrl-C ends it."""
    with plain_errors("the page is closed; nothing that measures was stopped"):
        require_packages()
        use_config(config)
        config_path()  # one that was named and is not there is told at once
        serve_page([folder.absolute() for folder in folders or [Path()]], host, port, token_file, partial(print, flush=True))
