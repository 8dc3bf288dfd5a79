"""The scheduler's record of a table: TABLE.state.json beside TABLE.parquet, replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from device_agents.support.atomic import write_whole
from device_agents.support.dataclass_json import read_as
from device_agents.support.strict_json import read_json
from profiler.console import age_text
from profiler.errors import TableError
from profiler.tables.check import OLD_DAYS
from profiler.tables.table import Table

FORMAT = 2
MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Failure:
    """A check or build of the scheduler's that failed."""

    utc: str
    """ISO 8601, with its zone."""
    why: str


@dataclass(frozen=True, slots=True)
class State:
    """The scheduler's record of one table after its last check. The defaults are those of a table that was never checked.

    All times are ISO 8601 with their zone.
    """

    looked_utc: str | None = None
    """The time at which the last check and everything that followed from it ended, successfully or not."""
    did: str | None = None
    """The outcome: fresh, refreshed, rebuilt or failed."""
    stale: tuple[str, ...] = ()
    """The reasons for which the table was found stale and still is."""
    sentence: str | None = None
    """The outcome as a sentence."""
    failure: Failure | None = None
    """The last failure; later successes do not remove it."""
    next_utc: str | None = None
    """The time of the next check."""
    max_age_days: float = OLD_DAYS


def state_path(table: Path) -> Path:
    """Return the path of a table's state file."""
    return table.with_name(table.stem + ".state.json")


def read_state(table: Path) -> State:
    """Read a table's state; an empty state if there is none or it is damaged.

    Damage is not an error: the state is only a record, and the next check writes it again.
    """
    path = state_path(table)
    try:
        if path.stat().st_size > MAX_BYTES:
            return State()
        plain = read_json(path.read_bytes())
        if plain["format"] != FORMAT:
            return State()
        state = read_as(State, plain)
        for utc in (state.looked_utc, state.next_utc, None if state.failure is None else state.failure.utc):
            if utc is not None and datetime.fromisoformat(utc).tzinfo is None:
                return State()  # a time without a zone cannot be compared with the clock
        return state
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return State()


def write_state(table: Path, state: State) -> None:
    """Write a table's state. Raises `TableError` if the disk does not allow it."""
    write_whole(state_path(table), json.dumps({"format": FORMAT} | asdict(state), indent=1) + "\n", TableError)


def stale_reason(path: Path, table: Table, now: datetime | None = None) -> str | None:
    """Return why a table is stale, as far as that is known without its device; None if it is fresh.

    Imported tables are never stale: nobody here can measure them again. Nor are modelled ones, which do not age.
    """
    if table.info.imported or table.info.modelled:
        return None
    state = read_state(path)
    checked = parse_utc(state.looked_utc)
    # Reasons that were found before the table was made concern the table that it replaced.
    if state.stale and checked is not None and checked >= datetime.fromisoformat(table.info.created_utc):
        return "; ".join(state.stale)
    age_days = table.info.age_at(now or datetime.now(UTC))
    return f"it is {age_text(age_days)} old" if age_days > state.max_age_days else None


def parse_utc(utc: str | None) -> datetime | None:
    """Parse an ISO 8601 time; None stays None."""
    return None if utc is None else datetime.fromisoformat(utc)
