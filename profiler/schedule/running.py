"""The scheduler: checks tables when they are due, records and reports the outcome. One scheduler runs for each file at a time."""

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
from profiler.schedule.config import ScheduleConfig, ScheduledTable
from profiler.schedule.maintain import Outcome, maintain
from profiler.schedule.notify import notify
from profiler.schedule.state import Failure, State, parse_utc, read_state, write_state
from profiler.tables.table import load_table

LONGEST_WAIT_S = 60.0
"""The clock and the file are looked at again at least this often: both may change, and the machine may have slept."""
AHEAD = timedelta(minutes=1)
"""A correction of the clock may set it back by this much without a table being checked again."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """The time and a way to wait; tests replace both."""

    now: Callable[[], datetime] = _now
    sleep: Callable[[float], object] = time.sleep


@dataclass(frozen=True, slots=True)
class Maintainer:
    """Maintains the tables of a schedule."""

    clock: Clock = field(default_factory=Clock)
    say: Callable[[str], object] = print

    def due(self, schedule: ScheduleConfig, *, at_once: bool = False) -> list[ScheduledTable]:
        """Return the tables whose check is due; with `at_once`, all tables."""
        now = self.clock.now()
        return [table for table in schedule.tables if at_once or next_check(table, read_state(table.out), now) <= now]

    def once(
        self, schedule: ScheduleConfig, progress: Mapping[str, ProgressReporter], *, at_once: bool = False
    ) -> dict[str, Outcome]:
        """Maintain the tables that are due, and return the outcome for each by name. `progress` is by device.

        Devices are measured in parallel, but this machine after the others, because driving them would disturb it. A table that
        fails does not stop the others. Raises `TableError` if an outcome cannot be recorded.
        """
        due = self.due(schedule, at_once=at_once)
        outcomes: dict[str, Outcome] = {}

        def on_device(device: str, reporter: ProgressReporter) -> None:
            for table in due:
                if table.target.device == device:
                    outcomes[table.name] = self._maintain(table, schedule, reporter)

        devices = list(dict.fromkeys(table.target.device for table in due))
        # Errors of one table are outcomes; an error that arrives here means that an outcome could not be recorded.
        for error in on_each(devices, on_device, progress, last=["local"]).values():
            if isinstance(error, ToolError):
                raise error
        return outcomes

    def forever(self, read: Callable[[], ScheduleConfig], progress: Callable[[Sequence[str]], Any]) -> None:
        """Maintain tables whenever they are due, until an exception ends it.

        The file is read again before each check. While it contains a mistake, which is reported once, its last good content is
        used.
        """
        # Read once before the loop: a mistake that is there at the start ends the command while the user is watching.
        schedule = read()
        mistake = ""
        while True:
            try:
                schedule = read()
                mistake = ""
            except ConfigError as exc:
                if str(exc) != mistake:
                    mistake = str(exc)
                    self.say(f"{mistake}; the schedule that was read before stays in use")
            devices = list(dict.fromkeys(table.target.device for table in self.due(schedule)))
            if devices:
                with progress(devices) as bars:
                    self.once(schedule, bars)
            now = self.clock.now()
            first = min(next_check(table, read_state(table.out), now) for table in schedule.tables)
            self.clock.sleep(min(LONGEST_WAIT_S, max(0.0, (first - now).total_seconds())))

    def _maintain(self, table: ScheduledTable, schedule: ScheduleConfig, progress: ProgressReporter) -> Outcome:
        """Maintain one table, record the outcome beside it, and notify others if anything was done."""
        before = read_state(table.out)
        started = self.clock.now()
        # Seeded by name and day: a check that is repeated on the same day draws the same audit.
        try:
            outcome = maintain(table, started, progress, Random(f"{table.name} {started.date()}"))
        except ToolError as exc:
            outcome = Outcome("failed", f"{table.name}: {exc}", before.stale)

        # Failures are recorded too: the next check is counted from this one, so a broken device is not retried every minute.
        now = self.clock.now()
        utc = now.isoformat(timespec="seconds")
        failed = outcome.did == "failed"
        state = State(
            looked_utc=utc,
            did=outcome.did,
            stale=outcome.stale if failed else (),
            sentence=outcome.sentence,
            failure=Failure(utc, outcome.sentence) if failed else before.failure,
            next_utc=table.when.next_after(now).isoformat(timespec="seconds"),
            max_age_days=table.max_age_days,
        )
        table.out.parent.mkdir(parents=True, exist_ok=True)
        write_state(table.out, state)

        self.say(outcome.sentence)
        # A table that is still fresh is no news.
        if outcome.did != "fresh":
            for failure in notify(schedule.notifications, notification(table, outcome, self.clock.now())):
                self.say(failure)
        return outcome


def next_check(table: ScheduledTable, state: State, now: datetime) -> datetime:
    """Return when a table is to be checked next; a time in the past means at once.

    A table that was never checked is due at once, and so is one whose last check lies in the future, because the clock was wrong
    then. A check that was missed is made up for.
    """
    checked = parse_utc(state.looked_utc)
    if checked is None or checked > now + AHEAD:
        return datetime.min.replace(tzinfo=UTC)
    return table.when.next_after(checked)


def notification(table: ScheduledTable, outcome: Outcome, now: datetime) -> dict[str, Any]:
    """Return what recipients are sent about an outcome, ready for JSON."""
    try:
        loaded = load_table(table.out)
        error_percent, verified = loaded.info.held_out.mean_error_percent, loaded.verified
    except ToolError:
        error_percent, verified = None, False
    return {
        "table": table.name,
        "file": str(table.out),
        "device": table.target.device,
        "utc": now.isoformat(timespec="seconds"),
        **asdict(outcome),
        "mean_error_percent": error_percent,
        "verified": verified,
    }


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a schedule. Raises `ConfigError`, naming the other process, if it is held already."""
    lock = path.resolve().with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(lock))
        except BlockingIOError as exc:
            process = holder(lock) or "another process"
            raise ConfigError(f"{path} is already being scheduled by {process}; end that process first") from exc
        except OSError as exc:
            raise ConfigError(f"{lock} cannot be opened: {exc.strerror}; make its folder writable") from exc
        yield
