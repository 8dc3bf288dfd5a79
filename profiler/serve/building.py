"""A build as its growing journal shows it: how far it is, whether it is still going on, and its error so far.

The error is that of the table which the journal makes up to the end of a round. Working it out takes half a second, perhaps of the
very machine that is being measured: so it is done only while somebody looks, once for a round, and in a twentieth of the time.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from device_agents.support.errors import ToolError
from profiler.errors import JournalError
from profiler.measure.state import MeasurementState
from profiler.protocol.events import (
    Conditioning,
    Energy,
    ErrorEstimate,
    Executed,
    Failed,
    Header,
    Hello,
    Idle,
    JournalEvent,
    LayerAdded,
    Measurement,
    NetworkAdded,
    Paused,
    Reference,
    Refresh,
    Round,
    Spent,
    StaircaseRules,
)
from profiler.protocol.journal import read_journal
from profiler.serve.finding import stamp
from profiler.tables.derive import table_of

MOST_BYTES = 200_000_000
LONGEST_SILENCE_S = 120.0
DUTY = 0.05
"""The part of the time that may go into working out errors."""


@dataclass(frozen=True, slots=True)
class ErrorPoint:
    """A table's error so far, in per cent."""

    measuring_s: float
    percent: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What a journal says of the build that writes it, since that was begun or, of a refresh, since it was decided."""

    device: str
    runtime: str
    threads: int
    ended: bool
    """In order; one that was killed, or goes on, has not."""
    begun_utc: str | None
    measuring_s: float
    """Time on the device's clock, without what lay between two starts of the runner."""
    rounds: int
    layers: int
    layers_measured: int
    networks: int
    networks_measured: int
    failed: int
    paused: str | None
    """Why it waits, if that is the last thing it said."""
    silence_s: float
    estimates: tuple[ErrorPoint, ...]
    """The build's own estimates, each recorded when it asked itself whether that is enough."""
    round_ends: tuple[tuple[int, float], ...]
    """Number of lines and measuring_s at the end of each round since the first in which a network was measured."""


def read_progress(path: Path) -> Progress:
    """`JournalError`, in a sentence, for a journal that is damaged."""
    return progress_of(_events(path))


def _events(path: Path) -> list[JournalEvent]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise JournalError(f"{path} is larger than {MOST_BYTES / 1e6:.0f} MB")
        return list(read_journal(path))
    except (OSError, RecursionError) as exc:
        raise JournalError(f"{path} cannot be read: {exc}") from exc


def progress_of(events: Sequence[JournalEvent]) -> Progress:
    """What the events of a journal add up to. `JournalError` if it has none yet."""
    if not events or not isinstance(events[0], Header):
        raise JournalError("nothing has been written into it yet")
    seen = _Seen()
    for number, event in enumerate(events):
        seen.see(number, event)
    return seen.progress(events[0], events[-1])


class _Seen:
    """Follows a journal event by event."""

    def __init__(self) -> None:
        self.layers: set[str] = set()
        self.networks: set[str] = set()
        self.measured: set[str] = set()
        self.failed: set[str] = set()
        self.estimates: list[ErrorPoint] = []
        self.ends: list[tuple[int, float]] = []
        self.rounds = 0
        self.begun_utc: str | None = None
        self._before_s, self._life_s = 0.0, 0.0
        self._first_ns: int | None = None

    @property
    def measuring_s(self) -> float:
        return self._before_s + self._life_s

    def see(self, number: int, event: JournalEvent) -> None:
        match event:
            case Hello():
                self._before_s, self._life_s, self._first_ns = self.measuring_s, 0.0, None
                self.begun_utc = self.begun_utc or event.utc
            case LayerAdded():
                self.layers.add(event.model)
            case NetworkAdded():
                self.networks.add(event.model)
            case Failed():
                self.failed.add(event.model)
            case Refresh():
                self._begin_again(event)
            case Round():
                self._end_of_round(number)
                self.rounds += 1
                if event.clock_ns is not None:
                    self._clock(event.clock_ns)
            case Measurement() | Reference():
                self._clock(event.started_ns + sum(event.samples_ns))
                if isinstance(event, Measurement):
                    self.measured.add(event.model)
            case ErrorEstimate():
                if event.error_percent is not None and math.isfinite(event.error_percent):
                    self.estimates.append(ErrorPoint(self.measuring_s, event.error_percent))
            case Spent():
                self._end_of_round(number)
            case Header() | Idle() | Energy() | Executed() | Conditioning() | Paused() | StaircaseRules():
                pass
            case _:
                assert_never(event)

    def _begin_again(self, refresh: Refresh) -> None:
        """What was measured before is only carried over."""
        self.measured -= set(refresh.models)
        self.failed -= set(refresh.models)
        self.estimates, self.ends, self.rounds, self.begun_utc = [], [], 0, refresh.utc
        self._before_s, self._life_s, self._first_ns = 0.0, 0.0, None

    def _end_of_round(self, number: int) -> None:
        new = not self.ends or self.ends[-1][1] < self.measuring_s
        if new and self.rounds and self.measured & self.networks:
            self.ends.append((number, self.measuring_s))

    def _clock(self, now_ns: int) -> None:
        self._first_ns = now_ns if self._first_ns is None else self._first_ns
        self._life_s = max(self._life_s, (now_ns - self._first_ns) / 1e9)

    def progress(self, header: Header, last: JournalEvent) -> Progress:
        return Progress(
            device=header.target.device, runtime=header.target.runtime, threads=header.target.threads,
            ended=isinstance(last, Spent),
            begun_utc=self.begun_utc,
            measuring_s=self.measuring_s, rounds=self.rounds,
            layers=len(self.layers), layers_measured=len(self.layers & self.measured),
            networks=len(self.networks), networks_measured=len(self.networks & self.measured), failed=len(self.failed),
            paused=last.reason if isinstance(last, Paused) else None,
            # after this the build itself takes its runner for dead
            silence_s=min(max(header.settings.silence_s, 0.0) or LONGEST_SILENCE_S, LONGEST_SILENCE_S),
            estimates=tuple(self.estimates),
            round_ends=tuple(self.ends),
        )  # fmt: skip


class LiveErrors:
    """The errors worked out so far, of each journal. A round that has ended stays as it was: journals only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[Path, int, int], dict[int, float | None]] = {}
        """By journal and number of lines: per cent, or None where no network could be checked yet."""
        self._free_at = -math.inf
        self._lock = threading.Lock()

    def of(self, path: Path, progress: Progress, *, watched: bool = True) -> tuple[ErrorPoint, ...]:
        """Those known; if somebody watches, after working out one more if there is one to be and enough time has passed."""
        seen = stamp(path)
        if seen is None:
            return ()
        with self._lock:
            known = self._known.setdefault((path, *seen[:2]), {})
            number = most_telling([number for number, _ in progress.round_ends], known)
            if watched and number is not None and self._clock() >= self._free_at:
                started = self._clock()
                known[number] = _error_percent(path, number)
                now = self._clock()
                self._free_at = now + (now - started) / DUTY
            points = [(measuring_s, known.get(number)) for number, measuring_s in progress.round_ends]
        return tuple(ErrorPoint(measuring_s, percent) for measuring_s, percent in points if percent is not None)


def most_telling(ends: Sequence[int], known: Mapping[int, object]) -> int | None:
    """Which end of a round to work out next: the last, or else the one that is furthest from those that are known."""
    left = [place for place, number in enumerate(ends) if number not in known]
    if not left:
        return None
    if ends[-1] not in known:
        return ends[-1]
    done = [place for place, number in enumerate(ends) if number in known]

    def distance(place: int) -> int:
        after = bisect_left(done, place)
        return min(abs(place - done[near]) for near in (after - 1, after) if 0 <= near < len(done))

    return ends[max(left, key=distance)]


def _error_percent(path: Path, number: int) -> float | None:
    try:
        percent = table_of(MeasurementState.of(_events(path)[:number])).info.held_out.mean_error_percent
    except ToolError:  # too little has been measured for a table
        return None
    return percent if percent is not None and math.isfinite(percent) else None
