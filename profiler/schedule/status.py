"""The state of each scheduled table: its age, its held-out error, the reasons why it is stale, and its next check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from device_agents.support.errors import ToolError
from profiler.progress import ProgressReporter
from profiler.schedule import replacement
from profiler.schedule.config import ScheduleConfig, ScheduledTable
from profiler.schedule.maintain import gather_facts, read_plans
from profiler.schedule.running import next_check
from profiler.schedule.staleness import staleness_reasons
from profiler.schedule.state import Failure, State, read_state, write_state
from profiler.tables.table import load_table


@dataclass(frozen=True, slots=True)
class TableStatus:
    """The state of one scheduled table."""

    name: str
    file: Path
    device: str
    age_days: float | None
    """None, as the error, where there is no table yet."""
    mean_error_percent: float | None
    """Of held-out networks; None also where none were measured."""
    verified: bool
    stale: tuple[str, ...]
    """Why; empty for a fresh table."""
    next_check: datetime
    state: State
    """What the last check recorded."""
    interrupted: bool
    """True if a build was interrupted and will be resumed."""

    @property
    def failure(self) -> Failure | None:
        return self.state.failure


def statuses(schedule: ScheduleConfig, progress: Mapping[str, ProgressReporter]) -> list[TableStatus]:
    """The states of all tables, in the file's order. The devices of tables named in `progress` are spot-checked (10 s each)."""
    return [_status(table, progress.get(table.name)) for table in schedule.tables]


def _status(table: ScheduledTable, progress: ProgressReporter | None) -> TableStatus:
    state, now = read_state(table.out), datetime.now(UTC)
    try:
        stale = [reason.text for reason in staleness_reasons(gather_facts(table, read_plans(table), now, progress))]
    except ToolError as exc:
        stale = [str(exc)]
    else:
        if progress is not None and state.looked_utc is not None:  # so that runs are warned, or no longer are
            state = replace(state, stale=tuple(stale))
            write_state(table.out, state)
    if progress is None:  # what the device said last still holds
        stale += [text for text in state.stale if text not in stale]
    age_days, error_percent, verified = None, None, False
    try:
        loaded = load_table(table.out)
    except ToolError:
        pass  # why is among the staleness_reasons
    else:
        age_days, error_percent, verified = loaded.info.age_at(now), loaded.info.held_out.mean_error_percent, loaded.verified
    return TableStatus(
        table.name, table.out, table.target.device, age_days, error_percent, verified, tuple(stale),
        max(next_check(table, state, now), now), state, replacement.unfinished_journal(table.out) is not None,
    )  # fmt: skip


def first_due(schedule: ScheduleConfig, now: datetime) -> tuple[datetime, str]:
    """When the next check is due, and the name of its table. A time before `now` is a check that was missed."""
    return min((next_check(table, read_state(table.out), now), table.name) for table in schedule.tables)


def failed_last(schedule: ScheduleConfig) -> list[str]:
    """The names of the tables whose last check failed."""
    return [table.name for table in schedule.tables if read_state(table.out).did == "failed"]
