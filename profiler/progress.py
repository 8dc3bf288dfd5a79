"""Progress of long work, on standard error, so that standard output stays clean for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

_LINE_EVERY_S = 5.0
"""The least time between two lines of a log, so that work of a second does not fill it with ten."""


class ProgressReporter(Protocol):
    """Something that knows how much there is to do and is told as it gets done."""

    def begin(self, what: str, total: int) -> None:
        """A new piece of work replaces the one before."""
        ...

    def advance(self, note: str = "") -> None: ...

    def say(self, text: str) -> None:
        """Something worth keeping in sight while the work goes on."""
        ...


class Silent:
    """No progress: for tests and for callers that show their own."""

    def begin(self, what: str, total: int) -> None:
        pass

    def advance(self, note: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        pass


class _Bar:
    """A line of a rich display: the only one, or that of the device named."""

    def __init__(self, display: Progress, name: str = "") -> None:
        self._display, self._prefix = display, f"{name}: " if name else ""
        # the lines of several devices are there from the start, in their order
        self._task = display.add_task(f"{name}: waiting", start=False, total=None, note="") if name else None

    def begin(self, what: str, total: int) -> None:
        if self._task is None:
            self._task = self._display.add_task(what, total=total, note="")
        else:
            self._display.reset(self._task, total=total, description=self._prefix + what, note="")

    def advance(self, note: str = "") -> None:
        if self._task is not None:
            self._display.update(self._task, advance=1, note=note)

    def say(self, text: str) -> None:
        self._display.console.print(self._prefix + text, highlight=False, markup=False, soft_wrap=True)


class _Lines:
    """Where nobody watches a bar move, in a log: a line at every tenth of long work, and one at the end of any."""

    def __init__(self, name: str = "") -> None:
        self._prefix = f"{name}: " if name else ""
        self._what, self._total, self._done, self._said, self._said_s = "", 0, 0, 0, 0.0

    def begin(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._said, self._said_s = what, total, 0, 0, time.monotonic()

    def advance(self, note: str = "") -> None:
        self._done += 1
        tenth, now_s = self._done * 10 // max(1, self._total), time.monotonic()
        if tenth > self._said and (self._done == self._total or now_s >= self._said_s + _LINE_EVERY_S):
            self._said, self._said_s = tenth, now_s
            self.say(f"{self._what}: {tenth * 10} %")

    def say(self, text: str) -> None:
        sys.stderr.write(f"{self._prefix}{text}\n")  # in one piece, for another device may write at the same time
        sys.stderr.flush()


@contextmanager
def bar(console: Console | None = None) -> Iterator[ProgressReporter]:
    """A bar with counts, time gone and time left; lines where standard error is neither a terminal nor a notebook's."""
    with _display(console) as display:
        yield _Lines() if display is None else _Bar(display)


Shown = bool | ProgressReporter
"""True for a bar, False for none, or whatever else reports progress."""


@contextmanager
def shown(progress: Shown) -> Iterator[ProgressReporter]:
    """The reporter that a caller has asked for."""
    if progress is False:
        yield Silent()
    elif progress is True:
        with bar() as reporter:
            yield reporter
    else:
        yield progress


@contextmanager
def bars(names: Iterable[str], console: Console | None = None) -> Iterator[Mapping[str, ProgressReporter]]:
    """The same for several devices at once, by name; each may be used from a thread of its own."""
    with _display(console) as display:
        yield {name: _Lines(name) if display is None else _Bar(display, name) for name in names}


@contextmanager
def reporters(names: Sequence[str]) -> Iterator[Mapping[str, ProgressReporter]]:
    """By name: a line for each, or a bar without a name where there is only one."""
    if len(names) == 1:
        with bar() as lone:
            yield {names[0]: lone}
    else:
        with bars(names) as several:
            yield several


@contextmanager
def _display(console: Console | None) -> Iterator[Progress | None]:
    """None where standard error is neither a terminal nor a notebook's."""
    console = console or Console(stderr=True)
    if not console.is_terminal and not console.is_jupyter:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # the note gets what room is left, so that a narrow terminal loses the note and not the numbers
        TextColumn(
            "{task.fields[note]}", style="dim", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        ),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as display:
        yield display
