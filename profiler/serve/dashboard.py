"""What is on the disk, gathered when somebody looks: devices, builds, tables and runs. Nothing is asked of a device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from device_agents.lease import FREE_KINDS, Holder, holder
from device_agents.support.errors import ConfigError, ToolError
from device_agents.support.toml_file import read_toml
from profiler.devices.config import config_path, configured_devices, find_device
from profiler.errors import JournalError
from profiler.latency.validation import LIMIT_PERCENT
from profiler.measure.journal import journal_path
from profiler.schedule.config import ScheduledTable, parse_schedule
from profiler.schedule.replacement import new_path
from profiler.serve.building import ErrorPoint, LiveErrors, Progress, read_progress
from profiler.serve.finding import JOURNAL, Remembered, find, id_of
from profiler.serve.runs import RunView, run_view
from profiler.serve.tables import Tables, TableView, all_tables

QUIET_S = 20.0
"""A build that has not written for so long, and whose device nobody has, is not going on any more."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    name: str
    address: str
    holder: str | None
    """Who measures there now."""
    builds: tuple[str, ...]
    """Those of the builds shown that go on there."""

    @property
    def busy(self) -> bool:
        return self.holder is not None or bool(self.builds)


@dataclass(frozen=True, slots=True)
class BuildView:
    """A journal that is not, or not only, that of a table which is ready."""

    id: str
    name: str
    file: str
    state: str
    """running, interrupted or broken."""
    silent_s: float
    """Since it was last written."""
    limit_percent: float
    """The error that is asked for."""
    wanted: bool = False
    """The scheduler goes on with it by itself."""
    broken: str | None = None
    progress: Progress | None = None
    errors: tuple[ErrorPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Farm:
    utc: str
    devices: tuple[DeviceView, ...] = ()
    builds: tuple[BuildView, ...] = ()
    tables: tuple[TableView, ...] = ()
    runs: tuple[RunView, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be looked at, in sentences."""

    @property
    def running(self) -> tuple[BuildView, ...]:
        return tuple(build for build in self.builds if build.state == "running")


@dataclass(slots=True)
class Lookout:
    """Looks at the folders and at profile.toml when asked; between two looks it does nothing."""

    folders: Sequence[Path]
    live: LiveErrors = field(default_factory=LiveErrors)
    now: Callable[[], float] = time.time
    """Seconds since 1970; for tests to replace."""
    _tables: Tables = field(default_factory=Tables)
    _journals: Remembered[Progress | JournalError] = field(default_factory=Remembered)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def farm(self, *, watched: bool = True) -> Farm:
        """Errors of running builds are only worked out for somebody who watches."""
        with self._lock:
            return self._farm(watched)

    def _farm(self, watched: bool) -> Farm:
        moment = datetime.fromtimestamp(self.now(), UTC)
        things = find(self.folders)
        wanted, named, notes = _named()
        builds = list(self._builds(things.journals, wanted, watched))
        return Farm(
            moment.isoformat(timespec="seconds"),
            _devices(named, wanted, builds),
            tuple(builds),
            tuple(all_tables(self._tables, wanted, things.tables, moment)),
            tuple(run_view(folder, name) for folder, name in things.runs.items()),
            (*things.notes, *notes),
        )

    def _builds(self, found: Mapping[Path, str], wanted: Sequence[ScheduledTable], watched: bool) -> Iterable[BuildView]:
        limits: dict[Path, tuple[str, float]] = {}
        for table in wanted:
            for journal in (journal_path(new_path(table.out)), journal_path(table.out)):
                limits[journal.resolve()] = (table.name, table.max_held_out_error_percent)
        named = {path: name for path, (name, _) in limits.items() if path.is_file()}
        for path, shown in ({path: shown.removesuffix(JOURNAL) for path, shown in found.items()} | named).items():
            build = self._build(path, shown, limits.get(path), watched)
            if build is not None:
                yield build

    def _build(self, path: Path, name: str, asked: tuple[str, float] | None, watched: bool) -> BuildView | None:
        """None for the journal of a table that is ready."""
        try:
            silent_s = self.now() - path.stat().st_mtime
        except OSError:  # it was there a moment ago
            return None
        limit = LIMIT_PERCENT if asked is None else asked[1]
        about = (id_of(path), name, str(path))
        progress = self._journals.get(path, _progress)
        if isinstance(progress, JournalError):
            return BuildView(*about, "broken", silent_s, limit, asked is not None, str(progress))
        if _goes_on(progress, silent_s, self.now()):
            errors = self.live.of(path, progress, watched=watched)
            return BuildView(*about, "running", silent_s, limit, asked is not None, None, progress, errors)
        if progress.ended and path.with_name(path.name.removesuffix(JOURNAL) + ".parquet").exists():
            return None
        return BuildView(*about, "interrupted", silent_s, limit, asked is not None, None, progress)


def _progress(path: Path) -> Progress | JournalError:
    try:
        return read_progress(path)
    except JournalError as exc:
        return exc


def _goes_on(progress: Progress, silent_s: float, now_s: float) -> bool:
    """Of what did not end: something has been heard lately, or somebody has had the device since before it was."""
    if progress.ended:
        return False
    address = _address(progress.device)
    if address is None or address.split(":", 1)[0] in FREE_KINDS:
        return silent_s < progress.silence_s
    who = holder(address)
    return silent_s < QUIET_S or (who is not None and who.since_s <= now_s - silent_s)


def _address(device: str) -> str | None:
    try:
        return find_device(device).address
    except ToolError:
        return None


def _named() -> tuple[tuple[ScheduledTable, ...], dict[str, str], tuple[str, ...]]:
    """The tables that profile.toml wants and the devices it names, by name their addresses; or what is wrong with it."""
    try:
        path = config_path()
        if path is None:
            return (), {}, ()
        named, file = {device.name: device.address for device in configured_devices().values()}, read_toml(path)
        return (parse_schedule(file).tables if file.plain.get("tables") else ()), named, ()
    except ConfigError as exc:
        return (), {}, (str(exc),)


def _devices(named: Mapping[str, str], wanted: Sequence[ScheduledTable], builds: Sequence[BuildView]) -> tuple[DeviceView, ...]:
    """Those with a name, this machine, and those that tables are wanted of or that are being measured."""
    at_work = [(build.progress.device, build.name) for build in builds if build.progress and build.state == "running"]
    addresses = dict(named) | ({} if "local" in named.values() else {"local": "local"})
    for device in (*(table.target.device for table in wanted), *(device for device, _ in at_work)):
        if device not in addresses and device not in addresses.values():
            addresses[device] = _address(device) or device
    return tuple(
        DeviceView(name, address, _said(holder(address)), tuple(build for device, build in at_work if device in (name, address)))
        for name, address in addresses.items()
    )


def _said(who: Holder | None) -> str | None:
    return None if who is None else str(who)
