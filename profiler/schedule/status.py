"""How each wanted table is: its age, how well it predicts, whether it is stale and why, and when it is looked at next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from device_agents.support.errors import ToolError
from profiler.progress import ProgressReporter
from profiler.schedule import replacement
from profiler.schedule.config import Wanted, WantedTable
from profiler.schedule.maintain import look, plans_of
from profiler.schedule.running import next_look
from profiler.schedule.staleness import reasons
from profiler.schedule.state import Failure, State, read_state, write_state
from profiler.tables.table import load_table


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One wanted table, as it lies there now."""

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
    next_look: datetime
    state: State
    """What the last look has left."""
    interrupted: bool
    """A build was begun and is to be gone on with."""

    @property
    def failure(self) -> Failure | None:
        return self.state.failure


def statuses(wanted: Wanted, progress: Mapping[str, ProgressReporter]) -> list[TableStatus]:
    """Of every table, in the file's order. Those whose name is in `progress` have their device asked too, some ten seconds each."""
    return [_status(table, progress.get(table.name)) for table in wanted.tables]


def _status(table: WantedTable, progress: ProgressReporter | None) -> TableStatus:
    state, now = read_state(table.out), datetime.now(UTC)
    try:
        stale = [reason.text for reason in reasons(look(table, plans_of(table), now, progress))]
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
        pass  # why is among the reasons
    else:
        age_days, error_percent, verified = loaded.info.age_at(now), loaded.info.held_out.mean_error_percent, loaded.verified
    return TableStatus(
        table.name, table.out, table.target.device, age_days, error_percent, verified, tuple(stale),
        max(next_look(table, state, now), now), state, replacement.unfinished(table.out) is not None,
    )  # fmt: skip


def first_due(wanted: Wanted, now: datetime) -> tuple[datetime, str]:
    """When the next look is due, and the name of the table that it is at; a moment before `now` is one that was missed."""
    return min((next_look(table, read_state(table.out), now), table.name) for table in wanted.tables)


def failed_last(wanted: Wanted) -> list[str]:
    """The names of the tables whose last look failed."""
    return [table.name for table in wanted.tables if read_state(table.out).did == "failed"]
