"""The state of the dashboard, collected from files when a page is requested. No device is contacted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from device_agents.device_lock import holder
from device_agents.discovery import agent_kind
from device_agents.support.errors import ConfigError, ToolError
from device_agents.support.toml_file import read_toml
from profiler.devices.config import config_path, configured_devices, find_device
from profiler.errors import JournalError
from profiler.latency.validation import LIMIT_PERCENT
from profiler.protocol.journal import journal_path
from profiler.schedule.config import ScheduledTable, parse_schedule
from profiler.schedule.replacement import new_path
from profiler.serve.building import ErrorPoint, LiveErrors, Progress, read_progress
from profiler.serve.finding import JOURNAL, FileCache, find, id_of
from profiler.serve.runs import RunView, SupernetView, run_view, supernet_view
from profiler.serve.tables import Tables, TableView, all_tables

QUIET_S = 20.0
"""A build that has not written for this long, and whose device nobody has reserved, is not running any more."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device as it is shown."""

    name: str
    address: str
    holder: str | None
    """The process that has reserved the device; None if it is free."""
    builds: tuple[str, ...]
    """The names of the running builds on it."""

    @property
    def busy(self) -> bool:
        """True if a process measures on the device."""
        return self.holder is not None or bool(self.builds)


@dataclass(frozen=True, slots=True)
class BuildView:
    """A build as it is shown: a journal that does not, or does not only, belong to a finished table."""

    id: str
    name: str
    file: str
    state: str
    """running, interrupted or broken."""
    silent_s: float
    """Seconds since the journal was last written."""
    limit_percent: float
    """The mean held-out error that the table must not exceed."""
    wanted: bool = False
    """True if the table is in the schedule; the scheduler then resumes the build by itself."""
    broken: str | None = None
    """The reason why the journal cannot be read."""
    progress: Progress | None = None
    errors: tuple[ErrorPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class DashboardState:
    """All that the dashboard shows, at one moment."""

    utc: str
    """ISO 8601, with its zone."""
    devices: tuple[DeviceView, ...] = ()
    builds: tuple[BuildView, ...] = ()
    tables: tuple[TableView, ...] = ()
    runs: tuple[RunView, ...] = ()
    supernets: tuple[SupernetView, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences about what could not be read."""

    @property
    def running(self) -> tuple[BuildView, ...]:
        """The running builds."""
        return tuple(build for build in self.builds if build.state == "running")


@dataclass(slots=True)
class Dashboard:
    """Collects the state from folders and profile.toml on request; between two requests it does nothing."""

    folders: Sequence[Path]
    live: LiveErrors = field(default_factory=LiveErrors)
    now: Callable[[], float] = time.time
    """Seconds since 1970; tests replace it."""
    _tables: Tables = field(default_factory=Tables)
    _journals: FileCache[Progress | JournalError] = field(default_factory=FileCache)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self, *, watched: bool = True) -> DashboardState:
        """Collect the state. Errors of running builds, which cost computing time, are only computed if somebody watches."""
        # One request at a time: a second one would only read the same files at the same time.
        with self._lock:
            moment = datetime.fromtimestamp(self.now(), UTC)
            found = find(self.folders)
            schedule: tuple[ScheduledTable, ...] = ()
            named: dict[str, str] = {}
            notes = list(found.notes)
            try:
                path = config_path()
                if path is not None:
                    named = {device.name: device.address for device in configured_devices().values()}
                    file = read_toml(path)
                    schedule = parse_schedule(file).tables if file.plain.get("tables") else ()
            except ConfigError as exc:
                # A mistake in profile.toml must not hide what lies in the folders.
                named = {}
                notes.append(str(exc))
            builds = tuple(self._builds(found.journals, schedule, watched))
            return DashboardState(
                utc=moment.isoformat(timespec="seconds"),
                devices=_devices(named, schedule, builds),
                builds=builds,
                tables=tuple(all_tables(self._tables, schedule, found.tables, moment)),
                runs=tuple(run_view(folder, name) for folder, name in found.runs.items()),
                supernets=tuple(supernet_view(folder, name) for folder, name in found.supernets.items()),
                notes=tuple(notes),
            )

    def _builds(self, found: Mapping[Path, str], schedule: Sequence[ScheduledTable], watched: bool) -> Iterator[BuildView]:
        """Yield the builds among the journals found and those of scheduled tables."""
        scheduled: dict[Path, ScheduledTable] = {}
        for table in schedule:
            for journal in (journal_path(new_path(table.out)), journal_path(table.out)):
                scheduled[journal.resolve()] = table
        # A scheduled table goes by its name in profile.toml, even if it was also found in a folder.
        names = {path: name.removesuffix(JOURNAL) for path, name in found.items()}
        names |= {path: table.name for path, table in scheduled.items() if path.is_file()}
        for path, name in names.items():
            build = self._build(path, name, scheduled.get(path), watched)
            if build is not None:
                yield build

    def _build(self, path: Path, name: str, scheduled: ScheduledTable | None, watched: bool) -> BuildView | None:
        """Describe the build that writes a journal; None if the journal belongs to a finished table."""
        try:
            silent_s = self.now() - path.stat().st_mtime
        except OSError:  # deleted since it was found
            return None
        progress = self._journals.get(path, _read_progress)
        errors: tuple[ErrorPoint, ...] = ()
        if isinstance(progress, JournalError):
            state = "broken"
        elif _is_running(progress, silent_s, self.now()):
            state = "running"
            errors = self.live.of(path, progress, watched=watched)
        elif progress.ended and path.with_name(path.name.removesuffix(JOURNAL) + ".parquet").exists():
            return None
        else:
            state = "interrupted"
        return BuildView(
            id=id_of(path),
            name=name,
            file=str(path),
            state=state,
            silent_s=silent_s,
            limit_percent=LIMIT_PERCENT if scheduled is None else scheduled.max_held_out_error_percent,
            wanted=scheduled is not None,
            broken=str(progress) if isinstance(progress, JournalError) else None,
            progress=None if isinstance(progress, JournalError) else progress,
            errors=errors,
        )


def _read_progress(path: Path) -> Progress | JournalError:
    """Read a journal. The error is returned, so that it is cached too."""
    try:
        return read_progress(path)
    except JournalError as exc:
        return exc


def _is_running(progress: Progress, silent_s: float, now_s: float) -> bool:
    """True if a build that has not ended still runs."""
    if progress.ended:
        return False
    address = _address(progress.device)
    if address is None or agent_kind(address).shared:
        # Shared devices, such as simulated ones, are not locked: only the journal shows that the build lives.
        return silent_s < progress.silence_s
    process = holder(address)
    # A build may be silent for long, for example while the device cools. Whoever reserved the device before the journal's
    # last line is that build.
    return silent_s < QUIET_S or (process is not None and process.since_s <= now_s - silent_s)


def _address(device: str) -> str | None:
    """Return the address of a device; None if profile.toml does not name it any more."""
    try:
        return find_device(device).address
    except ToolError:
        return None


def _devices(named: Mapping[str, str], schedule: Sequence[ScheduledTable], builds: Sequence[BuildView]) -> tuple[DeviceView, ...]:
    """Describe the devices in profile.toml, this machine, and the devices of scheduled tables and running builds."""
    running = [(build.progress.device, build.name) for build in builds if build.progress and build.state == "running"]
    addresses = dict(named)
    if "local" not in named.values():
        addresses["local"] = "local"
    for device in (*(table.target.device for table in schedule), *(device for device, _ in running)):
        if device not in addresses and device not in addresses.values():
            addresses[device] = _address(device) or device
    views = []
    for name, address in addresses.items():
        process = holder(address)
        on_it = tuple(build for device, build in running if device in (name, address))
        views.append(DeviceView(name, address, None if process is None else str(process), on_it))
    return tuple(views)
