"""`profile serve`: the farm on a small local web page."""

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
    folders: Annotated[list[Path] | None, typer.Argument(help="Where tables and runs are; by default here.")] = None,
    config: Annotated[Path | None, typer.Option(help="The file that names devices and the tables wanted.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine's own need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8765,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token to ask for; PROFILE_SERVE_TOKEN does the same.")
    ] = None,
) -> None:
    """Show devices, running builds, tables and NetAdapt runs on a local web page; /metrics is for Prometheus. Ctrl-C ends it."""
    with plain_errors("the page is closed; nothing that measures was stopped"):
        require_packages()
        use_config(config)
        config_path()  # one that was named and is not there is told at once
        serve_page([folder.absolute() for folder in folders or [Path()]], host, port, token_file, partial(print, flush=True))
