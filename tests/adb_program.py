"""Google's own adb with a server and keys of its own, for tests: the user's server and keys are never touched."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="needs Google's adb; on Debian: apt install adb")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def adb_environment(home: Path) -> Iterator[dict[str, str]]:
    """Variables under which adb, and adbutils, use a server of their own; it is ended on leaving, if it was ever started."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    variables = {
        "HOME": str(home),
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",  # do not look for emulators
        "PATH": "/usr/bin:/bin",
    }
    try:
        yield variables
    finally:
        with socket.socket() as probe:
            runs = probe.connect_ex(("127.0.0.1", port)) == 0
        if runs:
            adb(variables, "kill-server")


def adb(variables: dict[str, str], *argv: str, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["adb", *argv], env=variables, capture_output=True, text=True, timeout=timeout_s)


def connect(variables: dict[str, str], address: str) -> None:
    """And wait until the phone has answered: adb calls it connected before, and it is offline at first."""
    adb(variables, "connect", address)
    adb(variables, "-s", address, "wait-for-device")
