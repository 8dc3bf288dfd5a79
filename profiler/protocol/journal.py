"""The journal of a build: append-only JSON lines, one for each thing that happened. The table is derived from it alone.

The lines are the events of profiler.protocol.events, each under its name in `JOURNAL_EVENTS`; the first is the header, with the
format, the target and the timing settings. A process that is killed leaves at most one torn line at the end, which is dropped when
the journal is opened again. Only one process writes at a time: it holds a lock on the file, which the kernel lets go of however the
process ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self

from device_agents.support.jsonl import append_line, drop_torn_line, read_lines
from device_agents.support.locks import locked
from profiler.errors import JournalError, JournalNotWritable
from profiler.protocol.events import Header, JournalEvent
from profiler.protocol.lines import event_data, read_event
from profiler.protocol.settings import Target, TimingSettings

FORMAT = 6


class Journal:
    """An open journal; every line is handed to the operating system before `append` returns, and to the disk on `sync`."""

    def __init__(self, path: Path, target: Target, settings: TimingSettings, *, resume: bool) -> None:
        """Start a journal, or go on with one that was recorded for the same target with the same settings.

        `JournalError` otherwise, and for a journal that is damaged or of another format; `JournalNotWritable` if another process
        writes it now.
        """
        header = Header(FORMAT, target, settings)
        self.path, self._file = path, _locked(path)
        try:
            if os.fstat(self._file).st_size and not resume:
                raise JournalError(f"{path} is left from a build that did not end; add --resume to go on with it, or remove it")
            self.recorded: Sequence[JournalEvent] = tuple(read_journal(path))
            """The events of the journal when it was opened; a new one has its header."""
            if self.recorded:
                check_header(path, self.recorded[0], header)
            drop_torn_line(path)
            if not self.recorded:
                self.append(header)
                self.recorded = (header,)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, event: JournalEvent) -> None:
        """Write the event whole or not at all: half a line, left by a disk that is full, would spoil the one after it."""
        with _writing(self.path):
            append_line(self._file, event_data(event))

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
    """The descriptor of the journal, made if need be, which nobody else writes until it is closed."""
    with _writing(path):
        return locked(path, os.O_CREAT | os.O_APPEND, 0o666)


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
    return table.parent / f"{table.stem}.journal.jsonl"


def read_journal(path: Path) -> Iterator[JournalEvent]:
    """The event of every whole line; a torn last one is left out. `JournalError` for damage elsewhere or another format."""
    for number, (place, plain) in enumerate(read_lines(path, JournalError)):
        if number == 0 and not (isinstance(plain, dict) and plain.get("event") == "journal" and plain.get("format") == FORMAT):
            raise JournalError(f"{path} is not a journal of format {FORMAT}; it was written by another version")
        try:
            event = read_event(plain)
            if (number == 0) != isinstance(event, Header):
                raise ValueError("the first line, and no other, is the header")
        except ValueError as exc:
            raise JournalError(f"{place} is damaged: {exc}") from exc
        yield event


def check_header(path: Path, found: JournalEvent, wanted: Header) -> None:
    """`JournalError` naming the first thing that differs: samples taken under other conditions must not be mixed."""
    assert isinstance(found, Header)
    # a runner and an interpreter that are named in profile.toml are no part of what was asked for: see Identity
    pairs = [(name, getattr(found.target, name), getattr(wanted.target, name)) for name in ("runtime", "threads", "device")]
    pairs += [
        (item.name, getattr(found.settings, item.name), getattr(wanted.settings, item.name)) for item in fields(TimingSettings)
    ]
    for name, before, now in pairs:
        if before != now:
            raise JournalError(f"{path} was recorded with {name} {before!r}, not {now!r}; use another --out or the same {name}")
