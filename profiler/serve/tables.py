"""Tables as they are shown: scheduled ones and those found in the folders, with age, freshness and held-out error."""

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
from profiler.serve.finding import FileCache, id_of, stamp
from profiler.tables.table import METADATA_KEY, Table, TableInfo, load_table
from profiler.tables.trust import origin_of, trust_sentence

MAX_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TableView:
    """A table as it is shown. A field is None if it is unknown or the table does not exist."""

    id: str
    name: str
    file: str
    device: str | None = None
    runtime: str | None = None
    threads: int | None = None
    layers: int | None = None
    """The number of measured layers."""
    age_days: float | None = None
    mean_error_percent: float | None = None
    worst_error_percent: float | None = None
    verified: bool = False
    imported: bool = False
    modelled: bool = False
    """True if it was computed from a description of hardware."""
    origin: str = ""
    """Where its latencies are from, if no device of ours was measured for them, as part of a sentence."""
    sentence: str = ""
    """The table's accuracy as a sentence."""
    stale: tuple[str, ...] = ()
    """The reasons why it is stale; none for a fresh table."""
    broken: str | None = None
    """The reason why it cannot be read."""
    wanted: bool = False
    """True if it is in the schedule."""
    exists: bool = True
    did: str | None = None
    """The outcome of the scheduler's last check: fresh, refreshed, rebuilt or failed."""
    next_utc: str | None = None
    """The time of the scheduler's next check."""
    last_failure: Failure | None = None

    @property
    def state(self) -> str:
        """One of missing, broken, stale, imported, modelled and fresh. Only what was measured here can be fresh."""
        if not self.exists:
            return "missing"
        if self.broken:
            return "broken"
        if self.stale:
            return "stale"
        if self.imported:
            return "imported"
        return "modelled" if self.modelled else "fresh"

    @property
    def unverified(self) -> bool:
        """True if it is there and cannot be relied on."""
        return self.exists and not self.broken and not self.verified

    @property
    def needs_care(self) -> bool:
        """True if something ought to be done: it is missing, broken or stale, or measured here and yet unverified."""
        return self.state in ("missing", "broken", "stale") or (self.state == "fresh" and self.unverified)


@dataclass(frozen=True, slots=True)
class _TableFile:
    """What depends on a table's file alone. The rows are not kept in memory."""

    view: TableView
    info: TableInfo | None = None
    foreign: bool = False
    """True for a Parquet file that is not a latency table."""


class Tables:
    """Describes tables; each file is read once for as long as it does not change."""

    def __init__(self) -> None:
        self._files: FileCache[_TableFile] = FileCache()
        self._facts: dict[str, tuple[object, FreshnessFacts | ToolError]] = {}
        """By a scheduled table's name: the state of its files, and the facts gathered from them or the error."""

    def found(self, path: Path, name: str, now: datetime) -> TableView | None:
        """Describe a table found in a folder; None for a Parquet file that is not a latency table."""
        file = self._files.get(path, _read_file)
        if file.foreign:
            return None
        view = _dated(file, name, now)
        if file.info is None or view.imported or view.modelled:
            return view
        reason = stale_reason(path, Table({}, file.info), now)
        state = read_state(path)
        return replace(view, stale=(reason,) if reason else (), did=state.did, next_utc=state.next_utc, last_failure=state.failure)

    def scheduled(self, table: ScheduledTable, now: datetime) -> TableView:
        """Describe a scheduled table as `profile schedule status` does, without contacting the device."""
        path = table.out.resolve()
        state = read_state(table.out)
        view = _dated(self._files.get(path, _read_file), table.name, now)
        exists = path.exists()
        return replace(
            view,
            wanted=True,
            exists=exists,
            broken=view.broken if exists else None,
            device=view.device or table.target.device,
            runtime=view.runtime or table.target.runtime,
            stale=self._stale(table, now),
            did=state.did,
            last_failure=state.failure,
            next_utc=max(next_check(table, state, now), now).isoformat(timespec="seconds"),
        )

    def _stale(self, table: ScheduledTable, now: datetime) -> tuple[str, ...]:
        """Return the reasons why a scheduled table is stale: those known without its device, and those of its last check."""
        # Gathering the facts means to predict every network of the plans, so it is only repeated when a file has changed.
        key = (table, stamp(table.out), *map(stamp, table.plans))
        if table.name not in self._facts or self._facts[table.name][0] != key:
            facts: FreshnessFacts | ToolError
            try:
                facts = gather_facts(table, read_plans(table), now)
            except ToolError as exc:
                facts = exc
            self._facts[table.name] = (key, facts)
        facts = self._facts[table.name][1]
        if isinstance(facts, ToolError):
            reasons = [str(facts)]
        else:
            info = self._files.get(table.out.resolve(), _read_file).info
            if info is not None:  # of all facts, only the age changes while the files do not
                facts = replace(facts, age_days=info.age_at(now))
            reasons = [reason.text for reason in staleness_reasons(facts)]
        return (*reasons, *(text for text in read_state(table.out).stale if text not in reasons))


def _dated(file: _TableFile, name: str, now: datetime) -> TableView:
    """Return the view with its name and its age at this moment."""
    return replace(file.view, name=name, age_days=file.info.age_at(now) if file.info else None)


def _read_file(path: Path) -> _TableFile:
    """Read a table's file. Damage is not an error; the view has the reason."""
    view = TableView(id_of(path), path.name, str(path))
    try:
        foreign = METADATA_KEY not in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        foreign = False  # it is damaged, and loading it says in which way
    if foreign:
        return _TableFile(replace(view, broken=f"{path} is a Parquet file, but not a latency table"), foreign=True)
    try:
        table = load_checked(path)
    except ToolError as exc:
        return _TableFile(replace(view, broken=str(exc)))
    return _TableFile(_described(view, table), table.info)


def load_checked(path: Path) -> Table:
    """Load a table, and check that all that is shown of it has the right types.

    Raises `TableError` if it is damaged or larger than 100 MB.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TableError(f"{path} is larger than {MAX_BYTES / 1e6:.0f} MB, so it is not shown")
        # A valid Parquet file can still hold text in place of a number. Computing all that is shown finds that here.
        table = load_table(path)
        _described(TableView("", "", ""), table)
    except (OSError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as exc:
        raise TableError(f"{path} is damaged: {exc}; build it again") from exc
    return table


def _described(view: TableView, table: Table) -> TableView:
    """Return the view with the facts that do not change with time. Raises `TypeError` or `ValueError` for wrong types."""
    info = table.info
    return replace(
        view,
        device=str(info.target.device),
        runtime=str(info.target.runtime),
        threads=None if info.imported else int(info.target.threads),
        layers=len(table.rows),
        mean_error_percent=_finite(info.held_out.mean_error_percent),
        worst_error_percent=_finite(info.held_out.worst_error_percent),
        verified=table.verified,
        imported=bool(info.imported),
        modelled=bool(info.modelled),
        origin=origin_of(info.device).removesuffix(": "),
        sentence=trust_sentence(table),
    )


def _finite(value: float | None) -> float | None:
    """Return the number; None if it is missing or cannot be written as JSON."""
    return None if value is None or not math.isfinite(value) else float(value)


def all_tables(
    tables: Tables, schedule: Sequence[ScheduledTable], found: dict[Path, str], now: datetime | None = None
) -> list[TableView]:
    """Describe all tables: first the scheduled ones, in the order of profile.toml, then the others."""
    now = now or datetime.now(UTC)
    scheduled = {table.out.resolve(): tables.scheduled(table, now) for table in schedule}
    others = [tables.found(path, name, now) for path, name in found.items() if path not in scheduled]
    return [*scheduled.values(), *(view for view in others if view is not None)]
