"""One job at a time on a device, from this host: two at once would measure each other.

A lease is an exclusive flock on a file of the device in the user's cache folder. The kernel lets go of it when the process ends,
however it ends, so there are no stale ones. What the file says (JSON) tells others who holds it; it can be read all the while.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from device_agents.errors import DeviceBusy, DeviceError
from device_agents.support.locks import process_lives
from device_agents.support.strict_json import read_json

FREE_KINDS = ("replay", "fake")
"""Nothing is measured there, so that as many may use one as like."""
LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Holder:
    """Who measures on a device."""

    pid: int
    command: str
    """The first words of its command line."""
    since_s: float
    """Seconds since 1970, UTC."""

    @classmethod
    def this_process(cls) -> Holder:
        words = [Path(sys.argv[0]).name or "python", *(word for word in sys.argv[1:2] if not word.startswith("-"))]
        return cls(os.getpid(), " ".join(words), time.time())

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since_s)
        today = since.date() == datetime.now().date()
        return f"`{self.command}` (pid {self.pid}) since {since.strftime('%H:%M' if today else '%Y-%m-%d %H:%M')}"


@contextmanager
def lease(address: str, *, wait_s: float = 0.0, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Have the device to oneself; waits up to `wait_s` for whoever has it now, and says so once.

    `DeviceBusy` if it does not become free, `DeviceError` if the lease cannot be kept.
    """
    if address.split(":", 1)[0] in FREE_KINDS:
        yield
        return
    path = lease_path(address)
    with _file(path) as file:
        _take(file, address, wait_s, say)
        with _explained(path):
            _write(file, json.dumps(asdict(Holder.this_process())).encode())
        try:
            yield
        finally:
            _write(file, b"")


def holder(address: str) -> Holder | None:
    """Who has the device; None if nobody has, or it cannot be told."""
    try:
        plain = read_json(lease_path(address).read_bytes())
        found = Holder(int(plain["pid"]), str(plain["command"]), float(plain["since_s"]))
        str(found)  # it may be a time that no calendar has
    except (OSError, ValueError, KeyError, TypeError, OverflowError):  # it may be read while it is written
        return None
    return found if process_lives(found.pid) else None  # one that was killed could not take its name out


def lease_path(address: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", address)[:40]
    return folder / "netadapt-profiler" / "leases" / f"{plain}-{hashlib.sha256(address.encode()).hexdigest()[:12]}.json"


@contextmanager
def _file(path: Path) -> Iterator[int]:
    """Open, and closed afterwards, which lets go of the lock. It stays there: another may be waiting for this very file."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DeviceError(f"{path} cannot be locked: {exc.strerror}; set XDG_CACHE_HOME to a folder where it can be") from exc


def _take(file: int, address: str, wait_s: float, say: Callable[[str], None] | None) -> None:
    deadline = time.monotonic() + wait_s
    while not _locked(file, lease_path(address)):
        who = holder(address) or "another run"
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DeviceBusy(f"{address} is measured by {who}; wait for it, or add --wait")
        if say is not None:
            say(f"{address} is measured by {who}; waiting for it")
            say = None
        time.sleep(min(LOOK_EVERY_S, left_s))


def _locked(file: int, path: Path) -> bool:
    with _explained(path):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _write(file: int, data: bytes) -> None:
    os.pwrite(file, data, 0)
    os.ftruncate(file, len(data))
