"""Serving the page: the packages it needs, the address it listens on, and the server itself."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from profiler.errors import ServeError

PACKAGES = ("jinja2", "prometheus_client", "starlette", "uvicorn")
CLOSING_S = 2
NICE = 10
"""The page may be served by the very machine that is being measured."""


def require_packages() -> None:
    """`ServeError`, naming the first one, if a package is not installed that only the page needs."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ServeError(f"the package {package} is not installed; pip install 'netadapt-profiler[serve]'")


def serve_page(
    folders: Sequence[Path], host: str, port: int, token_file: Path | None = None, say: Callable[[str], object] = print
) -> None:
    """Serve until Ctrl-C, after `say` was told the address to open. `ServeError` if that cannot be done."""
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
        # no log of requests: the first one of a browser has the token in it
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=CLOSING_S, server_header=False
        )

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                """The address is only said once the server handles Ctrl-C: before, that would end in a warning of asyncio's."""
                await super().startup(sockets)
                say(f"{_address(host, bound, token, not generated)}\nCtrl-C ends it")

        Server(settings).run(sockets=[listener])


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
