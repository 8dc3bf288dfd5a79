"""`profile serve`: the dashboard, a local web page."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from profiler.console import plain_errors
from profiler.devices.config import CONFIG_VARIABLE, config_path
from profiler.errors import ServeError

PACKAGES = ("jinja2", "prometheus_client", "starlette", "uvicorn")
CLOSING_S = 2
NICE = 10
"""The page may be served by the very machine that is being measured."""


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
        _require_packages()
        if config is not None:
            os.environ[CONFIG_VARIABLE] = str(config)
        config_path()  # one that was named and is not there is told at once
        _serve([folder.absolute() for folder in folders or [Path()]], host, port, token_file)


def _require_packages() -> None:
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ServeError(f"the package {package} is not installed; pip install 'netadapt-profiler[serve]'")


def _serve(folders: list[Path], host: str, port: int, token_file: Path | None) -> None:
    import uvicorn  # of no use to the other commands, which need not wait for it

    from profiler.serve.access import Access, choose_token
    from profiler.serve.app import make_app
    from profiler.serve.dashboard import Dashboard

    for folder in folders:
        if not folder.is_dir():
            raise ServeError(f"there is no folder {folder}; name those that tables and runs are in")
    token, generated = choose_token(host, token_file)
    with _listening(host, port) as listener:
        bound = listener.getsockname()[1]
        app = make_app(Dashboard(folders), Access(host, bound, token))
        os.nice(NICE)
        print(f"{_address(host, bound, token, not generated)}\nCtrl-C ends it", flush=True)
        # no log of requests: the first one of a browser has the token in it
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=CLOSING_S, server_header=False
        )
        uvicorn.Server(settings).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as exc:
        raise ServeError(f"there is no address {host}; choose another --host") from exc
    try:
        return socket.create_server((host, port), family=family)
    except OSError as exc:
        why = os.strerror(exc.errno or 0).lower()  # its own words repeat the address
        raise ServeError(f"{host}, port {port} cannot be listened on: {why}; choose another --port or --host") from exc


def _address(host: str, port: int, token: str | None, told: bool) -> str:
    """What to open: with the token only if nobody knows it yet."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    if token is None:
        return f"http://{name}:{port}/"
    return f"http://{name}:{port}/?token={'TOKEN' if told else token}"
