"""Tables as they are shown: those that profile.toml wants and those that were found, with age, freshness and held_out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from device_agents.support.errors import ToolError
from profiler.errors import TableError
from profiler.schedule.config import ScheduledTable
from profiler.schedule.maintain import gather_facts, read_plans
from profiler.schedule.running import next_check
from profiler.schedule.staleness import FreshnessFacts, staleness_reasons
from profiler.schedule.state import Failure, read_state, stale_reason
from profiler.serve.finding import Remembered, id_of, stamp
from profiler.tables.table import METADATA_KEY, LatencyTable, TableInfo, load_table

MOST_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TableView:
    """A table. What is None is not known, or there is no table yet."""

    id: str
    name: str
    file: str
    device: str | None = None
    runtime: str | None = None
    threads: int | None = None
    layers: int | None = None
    age_days: float | None = None
    mean_error_percent: float | None = None
    worst_error_percent: float | None = None
    verified: bool = False
    imported: bool = False
    sentence: str = ""
    """How far to trust it."""
    stale: tuple[str, ...] = ()
    """Why; none for a fresh one."""
    broken: str | None = None
    wanted: bool = False
    exists: bool = True
    did: str | None = None
    """What the scheduler last did: fresh, refreshed, rebuilt or failed."""
    next_utc: str | None = None
    last_failure: Failure | None = None

    @property
    def state(self) -> str:
        """In one word."""
        if not self.exists:
            return "missing"
        return "broken" if self.broken else "stale" if self.stale else "imported" if self.imported else "fresh"


@dataclass(frozen=True, slots=True)
class _Read:
    """What does not change while the file does not; no rows are kept in memory."""

    view: TableView
    info: TableInfo | None = None
    foreign: bool = False
    """A Parquet file that never was a table of ours."""


class Tables:
    """Reads each file once, as long as it stays as it is."""

    def __init__(self) -> None:
        self._read: Remembered[_Read] = Remembered()
        self._facts: dict[str, tuple[object, FreshnessFacts | ToolError]] = {}
        """By a wanted table's name: what was seen of it, and in which state of its files."""

    def found(self, path: Path, name: str, now: datetime) -> TableView | None:
        """None for a Parquet file that is no table."""
        read = self._read.get(path, _read)
        if read.foreign:
            return None
        view = _dated(read, name, now)
        if read.info is None or view.imported:
            return view
        why, state = stale_reason(path, LatencyTable({}, read.info), now), read_state(path)
        return replace(view, stale=(why,) if why else (), did=state.did, next_utc=state.next_utc, last_failure=state.failure)

    def wanted(self, table: ScheduledTable, now: datetime) -> TableView:
        """As `profile schedule status` has it, without asking the device."""
        path, state = table.out.resolve(), read_state(table.out)
        view = _dated(self._read.get(path, _read), table.name, now)
        exists = path.exists()
        return replace(
            view, wanted=True, exists=exists, broken=view.broken if exists else None,
            device=view.device or table.target.device, runtime=view.runtime or table.target.runtime,
            stale=self._why(table, now), did=state.did, last_failure=state.failure,
            next_utc=max(next_check(table, state, now), now).isoformat(timespec="seconds"),
        )  # fmt: skip

    def _why(self, table: ScheduledTable, now: datetime) -> tuple[str, ...]:
        """What is known without the device, and what that said when it was last asked."""
        key = (table, stamp(table.out), *map(stamp, table.plans))
        if table.name not in self._facts or self._facts[table.name][0] != key:
            self._facts[table.name] = (key, _facts(table, now))
        facts, read = self._facts[table.name][1], self._read.get(table.out.resolve(), _read)
        if isinstance(facts, ToolError):
            why = [str(facts)]
        else:  # all but the age is as it was
            facts = replace(facts, age_days=read.info.age_at(now)) if read.info else facts
            why = [reason.text for reason in staleness_reasons(facts)]
        return (*why, *(text for text in read_state(table.out).stale if text not in why))


def _facts(table: ScheduledTable, now: datetime) -> FreshnessFacts | ToolError:
    try:
        return gather_facts(table, read_plans(table), now)
    except ToolError as exc:
        return exc


def _dated(read: _Read, name: str, now: datetime) -> TableView:
    return replace(read.view, name=name, age_days=read.info.age_at(now) if read.info else None)


def _read(path: Path) -> _Read:
    view = TableView(id_of(path), path.name, str(path))
    try:
        if _is_foreign(path):
            return _Read(replace(view, broken=f"{path} is a Parquet file, but not a latency table"), foreign=True)
        table = safely_loaded(path)
        return _Read(_described(view, table), table.info)
    except ToolError as exc:
        return _Read(replace(view, broken=str(exc)))


def safely_loaded(path: Path) -> LatencyTable:
    """`TableError` for one that is damaged, too large, or says of itself what cannot be shown."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TableError(f"{path} is larger than {MOST_BYTES / 1e6:.0f} MB")
        table = load_table(path)
        _described(TableView("", "", ""), table)
    except (OSError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as exc:
        raise TableError(f"{path} is damaged: {exc}") from exc
    return table


def _is_foreign(path: Path) -> bool:
    try:
        return METADATA_KEY not in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError):  # reading it says what is wrong
        return False


def _described(view: TableView, table: LatencyTable) -> TableView:
    info = table.info
    return replace(
        view,
        device=str(info.target.device), runtime=str(info.target.runtime),
        threads=None if info.imported else int(info.target.threads), layers=len(table.rows),
        mean_error_percent=_number(info.held_out.mean_error_percent),
        worst_error_percent=_number(info.held_out.worst_error_percent),
        verified=table.verified, imported=bool(info.imported), sentence=table.sentence(),
    )  # fmt: skip


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def all_tables(
    tables: Tables, wanted: Sequence[ScheduledTable], found: dict[Path, str], now: datetime | None = None
) -> list[TableView]:
    """The wanted ones first, in the file's order."""
    now = now or datetime.now(UTC)
    asked = {table.out.resolve(): tables.wanted(table, now) for table in wanted}
    others = [tables.found(path, name, now) for path, name in found.items() if path not in asked]
    return [*asked.values(), *(view for view in others if view is not None)]
