"""Exclusive locks on files (`flock`), and who holds them.

The kernel releases a lock when the process that holds it ends, however it ends, so no lock is ever stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from device_agents.support.dataclass_json import read_as
from device_agents.support.strict_json import read_json


def process_lives(pid: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # there is one, of another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def locked(path: Path, flags: int = os.O_CREAT, mode: int = 0o600) -> int:
    """The descriptor of the file, opened for reading and writing; its lock is held until the descriptor is closed.

    `BlockingIOError` if another process, or another descriptor of this one, holds the lock; any other `OSError` if the file cannot
    be opened. A lock file must not be removed, except by a process that holds its lock.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, mode)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # whoever held the lock has removed or replaced the file meanwhile: ours is not the one others see


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock, as it describes itself in the locked file."""

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
def hold(path: Path) -> Iterator[None]:
    """Hold the lock of a file in which it stands meanwhile who does. Errors are those of `locked`."""
    file = locked(path)
    try:
        _write(file, json.dumps(asdict(Holder.this_process())).encode())
        yield
    finally:
        _write(file, b"")
        os.close(file)


def holder(path: Path) -> Holder | None:
    """Who holds the lock of a file. None if nobody does, or it cannot be read: it may be written at this moment."""
    try:
        found = read_as(Holder, read_json(path.read_bytes()))
        str(found)  # the time may be one that no calendar has
    except (OSError, ValueError, OverflowError):
        return None
    return found if process_lives(found.pid) else None  # a process that was killed could not remove what it wrote


def _write(file: int, data: bytes) -> None:
    os.pwrite(file, data, 0)
    os.ftruncate(file, len(data))
