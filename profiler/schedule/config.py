"""The schedule in `profile.toml`: which tables to keep fresh, when to check them, and whom to notify.

    [tables.mobilenet]
    device = "pixel"                    # a name from [devices], or an address
    plan = "plans/mobilenet.json"       # a plan by `netadapt plan`, or a model file; or a list of them
    runtime = "litert"
    threads = 1
    oversubscribe = false               # true allows more threads than the device has cores
    target_error = "2%"                 # stop adding layers once the build estimates its error below this
    max_held_out_error = "5%"           # accept a new table only if its mean error on held-out networks is at most this
    max_age_days = 30
    when = "0 3 * * *"                  # minute, hour, day, month, weekday; local time
    energy = true                       # also measure the energy of every layer, in mJ, if the device can
    out = "tables/mobilenet.parquet"    # by default NAME.parquet
    keep = 5                            # the number of earlier tables to keep in history/

    [schedule]
    webhook = "https://example.org/hook"
    command = ["notify-send", "tables"]     # reads a JSON notification from its standard input

Paths are relative to the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from device_agents.support.errors import ConfigError, ToolError
from device_agents.support.toml_file import Place, TomlFile, read_toml
from profiler.console import percent
from profiler.devices.config import config_path, find_device
from profiler.latency.validation import LIMIT_PERCENT
from profiler.protocol.settings import Target, TimingSettings
from profiler.runner_names import RUNNERS
from profiler.runtimes import RUNTIMES
from profiler.schedule.cron import CronSchedule, parse_cron
from profiler.tables.build import StopCriterion

NIGHTLY = "0 3 * * *"
REQUIRED_KEYS = {"device": '"local"', "plan": '"plan.json"', "runtime": '"litert"'}
"""Keys that every table needs, each with an example for the error message."""
OPTIONAL_KEYS = (
    "threads", "oversubscribe", "runner", "target_error", "max_held_out_error", "max_age_days", "max_layers", "rounds", "energy",
    "when", "out", "keep",
)  # fmt: skip
LONGEST_AGE_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class ScheduledTable:
    """One table that the scheduler keeps fresh."""

    name: str
    target: Target
    plans: tuple[Path, ...]
    out: Path
    """The Parquet file of the table in force."""
    when: CronSchedule
    stop: StopCriterion = field(default_factory=StopCriterion)
    settings: TimingSettings = field(default_factory=TimingSettings)
    max_held_out_error_percent: float = LIMIT_PERCENT
    """The greatest mean error on held-out networks with which a new table is accepted."""
    max_age_days: float = 30.0
    keep: int = 5
    """The number of earlier tables, and of rejected ones, that stay in history/."""
    energy: bool = False
    """True if the energy of every layer is measured too."""


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """Recipients of notifications. Both settings may hold a secret, so neither is ever printed."""

    webhook: str | None = field(default=None, repr=False)
    command: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The parts of `profile.toml` that concern tables."""

    path: Path
    tables: tuple[ScheduledTable, ...]
    notifications: NotificationSettings


def read_schedule() -> ScheduleConfig:
    """Read the schedule from the `profile.toml` in use.

    Raises `ConfigError` if there is no such file or it lists no table, and for its first mistake, with the line.
    """
    path = config_path()
    if path is None:
        raise ConfigError("there is no profile.toml that lists the tables to keep fresh; write one, or name it with --config")
    return parse_schedule(read_toml(path))


def parse_schedule(file: TomlFile) -> ScheduleConfig:
    """Check the tables and notification settings of a parsed file. Raises `ConfigError` for the first mistake, with its line."""
    file.known(file.plain, ("devices", "tables", "schedule"), (), "the file")
    plain = file.table(file.plain.get("tables", {}), ("tables",))
    if not plain:
        raise ConfigError(f"{file.path} lists no tables; add a section such as [tables.mine] with device, plan and runtime")
    tables = tuple(_parse_table(file, name, value) for name, value in plain.items())
    # Two tables in one file would also share a journal, and each check would replace the other's table.
    owners: dict[Path, str] = {}
    for table in tables:
        owner = owners.setdefault(table.out.resolve(), table.name)
        if owner != table.name:
            raise file.fail(
                ("tables", table.name, "out"),
                f"tables {owner!r} and {table.name!r} cannot both be written to {table.out}; give one of them another `out`",
            )
    return ScheduleConfig(file.path, tables, _parse_notifications(file))


def _parse_table(file: TomlFile, name: str, value: Any) -> ScheduledTable:
    place = ("tables", name)
    section = _Section(file, place, file.table(value, place))
    # The name becomes part of file names.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise file.fail(place, f"{section.label} needs a name of letters, digits, dots, dashes and underscores")
    # Unknown keys come first, so that a misspelt key is reported as such and not as a missing one.
    file.known(section.values, (*REQUIRED_KEYS, *OPTIONAL_KEYS), place, section.label)
    for key, example in REQUIRED_KEYS.items():
        if key not in section.values:
            raise file.fail(place, f"{section.label} needs a {key}, such as {key} = {example}")

    # An unknown device is an error now, while the user is watching, and not at three o'clock in the morning.
    device = section.text("device")
    try:
        find_device(device)
    except ConfigError:
        raise  # the mistake is in [devices], and the message already has that line
    except ToolError as exc:
        raise section.fail("device", str(exc)) from exc

    plans = section.values["plan"]
    if not isinstance(plans, list):
        plans = [plans]
    if not plans or not all(isinstance(plan, str) and plan and "\0" not in plan for plan in plans):
        raise section.fail("plan", f"plan must be a path or a list of paths, not {section.values['plan']!r}")

    out = file.path_of(section.text("out", f"{name}.parquet"))
    if out.suffix != ".parquet" or "\0" in str(out):
        raise section.fail("out", f"out must be a path that ends in .parquet, not {section.values.get('out')!r}")

    when = section.text("when", NIGHTLY)
    try:
        schedule = parse_cron(when)
    except ValueError as exc:
        raise section.fail("when", f"when = {when!r} is not a cron expression: {exc}") from exc

    max_age_days = section.values.get("max_age_days", 30)
    if type(max_age_days) not in (int, float) or not 0 < max_age_days <= LONGEST_AGE_DAYS:
        raise section.fail("max_age_days", f"max_age_days must be a number of days above 0, not {max_age_days!r}")

    # the same multiples as `profile build --rounds`, so that both make comparable tables
    rounds = section.whole_number("rounds", 3, 1000, TimingSettings().rounds)
    return ScheduledTable(
        name=name,
        target=Target(
            device,
            section.choice("runtime", tuple(RUNTIMES)),
            section.whole_number("threads", 1, 1024, 1),
            runner=section.choice("runner", tuple(RUNNERS)) if "runner" in section.values else None,
            oversubscribe=section.flag("oversubscribe"),
        ),
        plans=tuple(file.path_of(plan) for plan in plans),
        out=out,
        when=schedule,
        stop=StopCriterion(
            section.percentage("target_error", StopCriterion().target_error_percent),
            section.whole_number("max_layers", 1, 100_000, StopCriterion().max_layers),
        ),
        settings=TimingSettings(rounds=rounds, max_rounds=3 * rounds, network_rounds=3 * rounds),
        max_held_out_error_percent=section.percentage("max_held_out_error", LIMIT_PERCENT),
        max_age_days=float(max_age_days),
        keep=section.whole_number("keep", 0, 10_000, 5),
        energy=section.flag("energy"),
    )


@dataclass(frozen=True, slots=True)
class _Section:
    """A `[tables.NAME]` section. Its methods raise `ConfigError`, with the line of the key, for values that cannot be used."""

    file: TomlFile
    place: Place
    values: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The section's name in error messages."""
        return f"table {self.place[-1]!r}"

    def fail(self, key: str, why: str) -> ToolError:
        return self.file.fail((*self.place, key), f"{self.label}: {why}")

    def text(self, key: str, default: str = "") -> str:
        return str(self.file.typed(self.values.get(key, default), str, (*self.place, key), self.label))

    def choice(self, key: str, names: tuple[str, ...]) -> str:
        """Return the value of `key` if it is one of `names`; the error suggests the nearest name."""
        return self.file.one_of(self.values[key], names, (*self.place, key), self.label)

    def flag(self, key: str) -> bool:
        return bool(self.file.typed(self.values.get(key, False), bool, (*self.place, key), self.label))

    def whole_number(self, key: str, low: int, high: int, default: int) -> int:
        if key not in self.values:
            return default
        return int(self.file.number(self.values[key], int, (*self.place, key), self.label, low, high))

    def percentage(self, key: str, default: float) -> float:
        """Return the value of `key` in per cent; it may be written as 2, 2.0, "2" or "2%"."""
        value = self.values.get(key, default)
        if type(value) not in (int, float, str):
            raise self.fail(key, f'{key} takes a percentage such as "2%", not {value!r}')
        try:
            return percent(str(value), key)
        except (ToolError, ValueError) as exc:
            raise self.fail(key, str(exc)) from exc


def _parse_notifications(file: TomlFile) -> NotificationSettings:
    """Check the `[schedule]` section. Error messages do not repeat its values, which may be secret."""
    plain = file.table(file.plain.get("schedule", {}), ("schedule",))
    file.known(plain, ("webhook", "command"), ("schedule",), "[schedule]")
    webhook = plain.get("webhook")
    if webhook is not None and not _is_web_address(webhook):
        raise file.fail(("schedule", "webhook"), "[schedule]: webhook must be an address that begins with https:// or http://")
    command = plain.get("command", [])
    if not isinstance(command, list) or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise file.fail(("schedule", "command"), '[schedule]: command must be a list of texts, such as ["notify-send", "tables"]')
    return NotificationSettings(webhook, tuple(command))


def _is_web_address(value: Any) -> bool:
    """True if the value is an http or https address in printable ASCII, with a host and a valid port."""
    if not isinstance(value, str) or re.search(r"[^\x21-\x7e]", value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is not a number, or brackets that do not close
        return False
