"""Files that are replaced as a whole or not at all, whatever ends the process that writes them."""

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
def writing(path: Path, error: type[ToolError], advice: str = "") -> Iterator[None]:
    """Turn every `OSError` into an `error` which says that the path cannot be written, in a sentence that `advice` ends."""
    try:
        yield
    except OSError as exc:
        raise error(f"{path} cannot be written: {exc.strerror or exc}{advice}") from exc


@contextmanager
def whole(path: Path, error: type[ToolError], advice: str = "") -> Iterator[Path]:
    """A temporary path to write to. It takes the place of `path` at the end, and is removed instead after an exception.

    A reader sees the old file or the new one. `error`, in a sentence that `advice` ends, if the file cannot be written. What is
    not a file, such as /dev/null, is never replaced, and neither is a link, but the file that it leads to.
    """
    with writing(path, error, advice):
        if path.exists() and not path.is_file():
            raise OSError("it is a folder" if path.is_dir() else "it is no file")
        target = Path(os.path.realpath(path))  # which, unlike Path.resolve, takes links that go in circles
        temporary = target.with_name(f".{target.name}.{threading.get_ident()}.{os.getpid()}.tmp")
        try:
            remove_leftovers(target)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str, error: type[ToolError], advice: str = "") -> None:
    """Write bytes, or text in UTF-8, as `whole` does."""
    with whole(path, error, advice) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed had written of this file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not process_lives(int(pid)):
            left.unlink(missing_ok=True)
