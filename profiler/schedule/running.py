"""Doing what is due, once or for ever, and remembering and telling what came of it. One scheduler for each file at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from device_agents.support.errors import ConfigError, ToolError
from device_agents.support.locks import hold, holder
from profiler.devices.fleet import on_each
from profiler.progress import ProgressReporter
from profiler.schedule.config import Wanted, WantedTable
from profiler.schedule.maintain import Outcome, tend
from profiler.schedule.notify import tell
from profiler.schedule.state import Failure, State, moment, read_state, write_state
from profiler.tables.table import load_table

LONGEST_WAIT_S = 60.0
"""Between two looks at the clock, which may jump or have stood still with the machine, and at the file."""


AHEAD = timedelta(minutes=1)
"""A clock that is set right may go back by so much."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, for tests to replace."""

    now: Callable[[], datetime] = _now
    sleep: Callable[[float], object] = time.sleep


@dataclass(frozen=True, slots=True)
class Keeper:
    """Tends the tables of a file."""

    clock: Clock = field(default_factory=Clock)
    say: Callable[[str], object] = print

    def due(self, wanted: Wanted, *, at_once: bool = False) -> list[WantedTable]:
        """Those never looked at, and those whose time has come since they last were."""
        now = self.clock.now()
        return [table for table in wanted.tables if at_once or next_look(table, read_state(table.out), now) <= now]

    def once(self, wanted: Wanted, progress: Mapping[str, ProgressReporter], *, at_once: bool = False) -> dict[str, Outcome]:
        """Do what is due; what became of each table. Devices are measured side by side, this very machine after the others."""
        due = self.due(wanted, at_once=at_once)
        found: dict[str, Outcome] = {}

        def on_device(device: str, work: ProgressReporter) -> None:
            for table in due:
                if table.target.device == device:
                    found[table.name] = self._tended(table, wanted, work)

        devices = list(dict.fromkeys(table.target.device for table in due))
        for lost in on_each(devices, on_device, progress, last=["local"]).values():
            if isinstance(lost, ToolError):
                raise lost  # what was found could not be remembered
        return found

    def forever(self, read: Callable[[], Wanted], progress: Callable[[Sequence[str]], Any]) -> None:
        """Until an exception ends it. The file is read again each time; while it has a mistake, what it said before goes on."""
        wanted, mistake = read(), ""
        while True:
            try:
                wanted, mistake = read(), ""
            except ConfigError as exc:
                if str(exc) != mistake:
                    mistake = str(exc)
                    self.say(f"{mistake}; going on with what was read before")
            devices = list(dict.fromkeys(table.target.device for table in self.due(wanted)))
            if devices:
                with progress(devices) as bars:
                    self.once(wanted, bars)
            now = self.clock.now()
            moments = [next_look(table, read_state(table.out), now) for table in wanted.tables]
            self.clock.sleep(min(LONGEST_WAIT_S, max(0.0, (min(moments) - now).total_seconds())))

    def _tended(self, table: WantedTable, wanted: Wanted, progress: ProgressReporter) -> Outcome:
        before, started = read_state(table.out), self.clock.now()
        try:
            outcome = tend(table, started, progress, Random(f"{table.name} {started.date()}"))
        except ToolError as exc:
            outcome = Outcome("failed", f"{table.name}: {exc}", before.stale)
        self._remember(table, outcome, before)
        self.say(outcome.sentence)
        if outcome.did != "fresh":
            for trouble in tell(wanted.telling, news(table, outcome, self.clock.now())):
                self.say(trouble)
        return outcome

    def _remember(self, table: WantedTable, outcome: Outcome, before: State) -> None:
        now, failed = self.clock.now(), outcome.did == "failed"
        utc, later = (when.isoformat(timespec="seconds") for when in (now, table.when.after(now)))
        failure = Failure(utc, outcome.sentence) if failed else before.failure
        stale = outcome.stale if failed else ()
        state = State(utc, outcome.did, stale, outcome.sentence, failure, later, table.max_age_days)
        table.out.parent.mkdir(parents=True, exist_ok=True)
        write_state(table.out, state)


def next_look(table: WantedTable, state: State, now: datetime) -> datetime:
    """At once for a table that was never looked at, or by a clock that was ahead; a moment that was missed is made up for."""
    looked = moment(state.looked_utc)
    if looked is None or looked > now + AHEAD:
        return datetime.min.replace(tzinfo=UTC)
    return table.when.after(looked)


def news(table: WantedTable, outcome: Outcome, now: datetime) -> dict[str, Any]:
    """What others are told, JSON-ready."""
    try:
        loaded = load_table(table.out)
        error, verified = loaded.info.held_out.mean_error_percent, loaded.verified
    except ToolError:
        error, verified = None, False
    told = {"table": table.name, "file": str(table.out), "device": table.target.device, "utc": now.isoformat(timespec="seconds")}
    plain = asdict(outcome) | {"stale": list(outcome.stale)}
    return told | plain | {"mean_error_percent": error, "verified": verified}


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """`ConfigError`, saying who it is, if another process schedules what this file says."""
    lock = path.resolve().with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(lock))
        except BlockingIOError as exc:
            who = holder(lock) or "another process"
            raise ConfigError(f"{path} is being scheduled by {who}; end that first, or leave it to it") from exc
        except OSError as exc:
            raise ConfigError(f"{lock} cannot be locked: {exc.strerror}") from exc
        yield
