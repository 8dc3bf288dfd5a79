"""The journal of a build: append-only JSON lines, one for each thing that happened. The table is derived from it alone.

Lines, by `event`:
  journal   the first line: format, target (device, runtime, threads) and timing settings
  hello     the device and runtime as the runner described them, and the time (utc); again after every restart
  layer     key and spec of a layer about to be measured; network: key, role (fit or check) and graph of a whole network
  round     a round begins: load, clocks, temperature and how often cores were throttled so far
  measurement  raw samples of one measurement: key, round, loops, samples_ns, the disturbed among them (switched), clock_khz,
            started_ns
  reference the same of a short look at the reference layer
  idle, energy  what a watch of the idle device and a long measurement took: round, duration_ns, energy_uj; key and inferences
  conditioning  what the device was set to for measuring, and how it was found
  paused    the link broke off, or the device was left to cool: reason
  failed    a model the runtime refuses (reason), or one that took the runner down (crash)
  refresh   from here on earlier measurements of these keys do not count: they are measured again; utc
  staircases  what sweeps have shown; error: the table's own estimate of its error so far; spent: how long a run of the build took
A process that is killed leaves at most one torn line at the end, which is dropped when the journal is opened again. Only one
process writes at a time: it holds a lock on the file, which the kernel lets go of however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from device_agents.support.dataclass_json import read_value
from device_agents.support.strict_json import read_json
from profiler.errors import JournalError, JournalNotWritable
from profiler.protocol.events import CHECKS

FORMAT = 3


class Journal:
    """An open journal; every line is handed to the operating system before `append` returns, and to the disk on `sync`."""

    def __init__(self, path: Path, header: Mapping[str, Any], *, resume: bool) -> None:
        """Start a journal, or go on with one recorded under the same header. `JournalError` otherwise.

        `JournalNotWritable` if another process writes it now.
        """
        self.path, self._file = path, _locked(path)
        try:
            if os.fstat(self._file).st_size and not resume:
                raise JournalError(f"{path} is left from a build that did not end; add --resume to go on with it, or remove it")
            self.lines: list[dict[str, Any]] = list(read_journal(path))
            if self.lines:
                check_header(path, self.lines[0], header)
            _drop_torn_line(path)
            if not self.lines:
                self.append({"event": "journal", "format": FORMAT, **header})
        except BaseException:
            os.close(self._file)
            raise

    def append(self, line: Mapping[str, Any]) -> None:
        """Whole or not at all: half a line, left by a disk that is full, would spoil the one after it."""
        rest = memoryview((json.dumps(line, separators=(",", ":")) + "\n").encode())
        with _writing(self.path):
            end = os.fstat(self._file).st_size
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except BaseException:
                os.ftruncate(self._file, end)
                raise
        self.lines.append(dict(line))

    def sync(self) -> None:
        with _writing(self.path):
            os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.sync()
        finally:
            os.close(self._file)


@contextmanager
def unwritten(path: Path) -> Iterator[None]:
    """Nobody writes the journal meanwhile. `JournalNotWritable` if somebody does now."""
    file = _locked(path)
    try:
        yield
    finally:
        os.close(file)


def _locked(path: Path) -> int:
    """Open, made if need be, and ours alone until it is closed."""
    while True:
        with _writing(path):
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with _writing(path):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # whoever had it has removed or replaced it meanwhile


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as exc:
        raise JournalNotWritable(f"{path} is being written by another build; wait for that, or end it") from exc
    except OSError as exc:
        raise JournalNotWritable(f"{path} cannot be written: {exc.strerror or exc}; what is in it stays good for --resume") from exc


def journal_path(table: Path) -> Path:
    """Beside the table: TABLE.parquet has TABLE.journal.jsonl."""
    return table.with_name(table.stem + ".journal.jsonl")


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; a torn last one is left out. `JournalError` for damage elsewhere or another format."""
    try:
        text = path.read_text(encoding="utf-8", errors="strict")
    except OSError as exc:
        raise JournalError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise JournalError(f"{path} is damaged: it is not text") from exc
    whole, _, _torn = text.rpartition("\n")
    for number, raw in enumerate(whole.splitlines(), 1):
        try:
            line = read_json(raw)
        except ValueError as exc:
            raise JournalError(f"{path}, line {number} is damaged: {exc}") from exc
        if not isinstance(line, dict) or not isinstance(line.get("event"), str):
            raise JournalError(f"{path}, line {number} is not a journal line")
        if number == 1 and (line["event"] != "journal" or line.get("format") != FORMAT):
            raise JournalError(f"{path} is not a journal of format {FORMAT}; it was written by another version")
        if not _makes_sense(line):
            raise JournalError(f"{path}, line {number} is damaged: a {line['event']!r:.40} line cannot say that")
        yield line


FACTS = Mapping[str, Any]
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "journal": {"target": FACTS, "settings": FACTS},
    "hello": {"utc": str | None},
    "layer": {"key": str, "layer": FACTS},
    "network": {"key": str, "role": str, "graph": FACTS},
    "measurement": {"key": str},
    "reference": {"key": str},
    "energy": {"key": str},
    "conditioning": {"state": FACTS},
    "failed": {"key": str},
    "refresh": {"keys": Sequence[str]},
    "staircases": {"rules": Sequence[FACTS]},
    "spent": {"wall_s": float},
}
"""What a line has beside that which the runner said."""


def _makes_sense(line: Mapping[str, Any]) -> bool:
    check = CHECKS.get(line["event"])
    try:
        for name, kind in FIELDS.get(line["event"], {}).items():
            read_value(kind, line.get(name))
        if line["event"] == "hello" and line.get("utc") is not None:
            datetime.fromisoformat(line["utc"])
    except ValueError:
        return False
    return check is None or check(line)


def check_header(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """`JournalError` naming the first thing that differs: samples taken under other conditions must not be mixed."""
    for group, values in wanted.items():
        for name, value in values.items():
            if found.get(group, {}).get(name) != value:
                before = found.get(group, {}).get(name)
                raise JournalError(
                    f"{path} was recorded with {name} {before!r}, not {value!r}; use another --out or the same {name}"
                )


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(data.rfind(b"\n") + 1)
