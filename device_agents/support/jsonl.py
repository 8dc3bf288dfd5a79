"""Files of JSON lines that a process may be killed while writing: at most the last line is torn then, and that one is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from device_agents.support.errors import ToolError
from device_agents.support.strict_json import read_json


def append_line(file: int, line: Mapping[str, Any]) -> None:
    """Append a line to a file opened with O_APPEND, whole or not at all: half a line, left by a disk that is full, would spoil the
    line after it. `OSError` if it cannot be written. It is on the disk only after an `os.fsync`."""
    rest = memoryview((json.dumps(line, separators=(",", ":")) + "\n").encode())
    end = os.fstat(file).st_size
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except BaseException:
        os.ftruncate(file, end)
        raise


def read_lines(path: Path, error: type[ToolError], advice: str = "") -> Iterator[tuple[str, Any]]:
    """The value of each whole line, with its place for messages, `PATH, line 3`; a torn last line is left out.

    `error`, in a sentence that `advice` ends, if the file cannot be read, or at the first line that is not JSON.
    """
    try:
        whole, _, _torn = path.read_bytes().rpartition(b"\n")
        lines = whole.decode().split("\n") if whole else []
    except OSError as exc:
        raise error(f"{path} cannot be read: {exc.strerror or exc}{advice}") from exc
    except UnicodeDecodeError as exc:
        raise error(f"{path} is damaged: it is not text{advice}") from exc
    for number, raw in enumerate(lines, 1):
        place = f"{path}, line {number}"
        try:
            value = read_json(raw)
        except ValueError as exc:
            raise error(f"{place} is damaged: {exc}{advice}") from exc
        yield place, value


def drop_torn_line(path: Path) -> None:
    """Cut off what a process killed while writing left after the last whole line, so that more lines can be appended."""
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
