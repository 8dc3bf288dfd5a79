"""What the scheduler remembers of a table: TABLE.parquet has TABLE.state.json beside it, always written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device_agents.support.atomic import write_whole
from device_agents.support.dataclass_json import read_as
from device_agents.support.strict_json import read_json
from profiler.console import age_text
from profiler.errors import TableError
from profiler.tables.check import OLD_DAYS
from profiler.tables.table import LatencyTable

FORMAT = 2
MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Failure:
    utc: str
    why: str


@dataclass(frozen=True, slots=True)
class State:
    """As of the last look; the default is that of a table nobody has looked at."""

    looked_utc: str | None = None
    """When it was last looked at and all that had to be done about it was done, or had failed."""
    did: str | None = None
    """fresh, refreshed, rebuilt or failed."""
    stale: tuple[str, ...] = ()
    """Why it was stale then, and still is."""
    sentence: str | None = None
    """What came of it."""
    failure: Failure | None = None
    """The last one; it stays when later looks succeed."""
    next_utc: str | None = None
    max_age_days: float = OLD_DAYS


def state_path(table: Path) -> Path:
    return table.with_name(table.stem + ".state.json")


def read_state(table: Path) -> State:
    """Empty where there is none, or none that makes sense: it is only a memory, and the next look makes it anew."""
    path = state_path(table)
    try:
        if path.stat().st_size > MOST_BYTES:
            return State()
        return _from_plain(read_json(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return State()


def write_state(table: Path, state: State) -> None:
    write_whole(state_path(table), json.dumps({"format": FORMAT} | asdict(state), indent=1) + "\n", TableError)


def stale_reason(path: Path, table: LatencyTable, now: datetime | None = None) -> str | None:
    """Why a table should not be relied on any more, as far as that is known without its device; None if it is fresh.

    What others have measured does not become stale here.
    """
    if table.info.imported:
        return None
    state, now = read_state(path), now or datetime.now(UTC)
    looked = moment(state.looked_utc)
    if state.stale and looked is not None and looked >= datetime.fromisoformat(table.info.created_utc):
        return "; ".join(state.stale)
    age_days = table.info.age_at(now)
    return f"it is {age_text(age_days)} old" if age_days > state.max_age_days else None


def moment(utc: str | None) -> datetime | None:
    return None if utc is None else datetime.fromisoformat(utc)


def _from_plain(plain: Mapping[str, Any]) -> State:
    """`ValueError`, `KeyError` or `TypeError` for anything else."""
    if plain["format"] != FORMAT:
        raise ValueError("another format")
    state = read_as(State, plain)
    for utc in (state.looked_utc, state.next_utc, None if state.failure is None else state.failure.utc):
        if utc is not None and datetime.fromisoformat(utc).tzinfo is None:
            raise ValueError("a time without a zone")
    return state
