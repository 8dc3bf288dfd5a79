"""Files that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agents.support.errors import ToolError
from device_agents.support.locks import process_lives


@contextmanager
def whole(path: Path, error: type[ToolError], advice: str = "") -> Iterator[Path]:
    """Write to the path that this yields: it takes the place of `path` when all is written, and is gone if not all was.

    A reader sees the old file or the new one. `error`, in a sentence that `advice` ends, if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}.{os.getpid()}.tmp")
    try:
        remove_leftovers(path)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        raise error(f"{path} cannot be written: {exc.strerror or exc}{advice}") from exc
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str, error: type[ToolError], advice: str = "") -> None:
    """Bytes, or text in UTF-8."""
    with whole(path, error, advice) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_leftovers(path: Path) -> None:
    """Half-written ones of processes that were killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not process_lives(int(pid)):
            left.unlink(missing_ok=True)
