"""Progress of long work, on standard error, so that standard output stays clean for results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column


class Work(Protocol):
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
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def begin(self, what: str, total: int) -> None:
        if self._task is not None:
            self._bar.update(self._task, visible=False)
        self._task = self._bar.add_task(what, total=total, note="")

    def advance(self, note: str = "") -> None:
        if self._task is not None:
            self._bar.update(self._task, advance=1, note=note)

    def say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)


class _Lines:
    """Where nobody watches a bar move, in a log: a line at every tenth of the work."""

    def begin(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._said = what, total, 0, 0

    def advance(self, note: str = "") -> None:
        self._done += 1
        tenth = self._done * 10 // max(1, self._total)
        if tenth > self._said:
            self._said = tenth
            print(f"{self._what}: {tenth * 10} %", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def bar() -> Iterator[Work]:
    """A bar with counts, time gone and time left; lines where standard error is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # the note gets what room is left, so that a narrow terminal loses the note and not the numbers
        TextColumn("[dim]{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        yield _Bar(progress)
