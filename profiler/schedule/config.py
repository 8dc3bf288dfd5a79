"""Which tables `profile.toml` wants, when, and who is to be told.

    [tables.mobilenet]
    device = "pixel"                    # a name from [devices], or an address
    plan = "plans/mobilenet.json"       # made by `netadapt plan`, or a model file; or a list of them
    runtime = "litert"
    threads = 1
    until = "2%"                        # stop adding layers at this estimate of the error
    held_out = "5%"                      # put a new table in force only if it misses whole networks by no more than this
    max_age_days = 30
    when = "0 3 * * *"                  # minute, hour, day, month, weekday; local time
    energy = true                       # millijoules of every layer too, where the device counts them
    out = "tables/mobilenet.parquet"    # by default NAME.parquet
    keep = 5                            # how many earlier tables stay in history/

    [schedule]
    webhook = "https://example.org/hook"
    command = ["notify-send", "tables"]     # gets JSON on its standard input

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
from profiler.formats.model_file import RUNTIME_FORMATS
from profiler.latency.validation import LIMIT_PERCENT
from profiler.protocol.settings import Target, TimingSettings
from profiler.runner_names import RUNNERS
from profiler.schedule.when import When, parse_when
from profiler.tables.build import StopCriterion

NIGHTLY = "0 3 * * *"
SECTIONS = ("devices", "tables", "schedule")
TABLE_WORDS = (
    "device", "plan", "runtime", "threads", "runner", "until", "held_out", "max_age_days", "max_layers", "rounds", "energy", "when",
    "out", "keep",
)  # fmt: skip
NEEDED = {"device": '"local"', "plan": '"plan.json"', "runtime": '"litert"'}
TELLING_WORDS = ("webhook", "command")
LIMITS = {"threads": (1, 1024), "max_layers": (1, 100_000), "rounds": (3, 1000), "keep": (0, 10_000)}
MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class WantedTable:
    """One table that is to be kept fresh."""

    name: str
    target: Target
    plans: tuple[Path, ...]
    out: Path
    when: When
    stop: StopCriterion = field(default_factory=StopCriterion)
    settings: TimingSettings = field(default_factory=TimingSettings)
    held_out_percent: float = LIMIT_PERCENT
    max_age_days: float = 30.0
    keep: int = 5
    energy: bool = False


@dataclass(frozen=True, slots=True)
class Telling:
    """Who is told of what happened."""

    webhook: str | None = field(default=None, repr=False)
    """Its address may hold a secret: it is shown to nobody."""
    command: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that the file says of tables."""

    path: Path
    tables: tuple[WantedTable, ...]
    telling: Telling


def read_wanted() -> Wanted:
    """From the file in force. `ConfigError` if there is none, if it wants no table, or for its first mistake, with its line."""
    path = config_path()
    if path is None:
        raise ConfigError("there is no profile.toml that says which tables to keep fresh; write one, or name it with --config")
    return parse_wanted(read_toml(path))


def parse_wanted(file: TomlFile) -> Wanted:
    file.known(file.plain, SECTIONS, (), "the file")
    plain = file.table(file.plain.get("tables", {}), ("tables",))
    if not plain:
        raise ConfigError(f"{file.path} wants no tables; add a section such as [tables.mine] with device, plan and runtime")
    tables = tuple(_table(file, name, value) for name, value in plain.items())
    seen: dict[Path, str] = {}
    for table in tables:
        if (other := seen.setdefault(table.out.resolve(), table.name)) != table.name:
            raise file.fail(("tables", table.name, "out"), f"tables {other!r} and {table.name!r} cannot both be {table.out}")
    return Wanted(file.path, tables, _telling(file, file.table(file.plain.get("schedule", {}), ("schedule",))))


def _table(file: TomlFile, name: str, value: Any) -> WantedTable:
    section, where = ("tables", name), f"table {name!r}"
    plain = file.table(value, section)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise file.fail(section, f"{where} needs a name of letters, digits, dots, dashes and underlines")
    file.known(plain, TABLE_WORDS, section, where)
    for word, example in NEEDED.items():
        if word not in plain:
            raise file.fail(section, f"{where} needs a {word}, such as {word} = {example}")
    number = {
        word: file.number(plain[word], int, (*section, word), where, *limits) for word, limits in LIMITS.items() if word in plain
    }
    rounds = number.get("rounds", TimingSettings().rounds)
    return WantedTable(
        name,
        _target(file, plain, number.get("threads", 1), section, where),
        _plans(file, plain["plan"], (*section, "plan"), where),
        _out(file, plain.get("out", f"{name}.parquet"), (*section, "out"), where),
        _when(file, plain.get("when", NIGHTLY), (*section, "when"), where),
        StopCriterion(
            _percent(file, plain, "until", StopCriterion().target_error_percent, section),
            number.get("max_layers", StopCriterion().max_layers),
        ),
        TimingSettings(rounds=rounds, max_rounds=3 * rounds, network_rounds=3 * rounds),
        _percent(file, plain, "held_out", LIMIT_PERCENT, section),
        _days(file, plain.get("max_age_days", 30), (*section, "max_age_days"), where),
        number.get("keep", 5),
        file.typed(plain.get("energy", False), bool, (*section, "energy"), where),
    )


def _target(file: TomlFile, plain: Mapping[str, Any], threads: int, section: Place, where: str) -> Target:
    device = file.typed(plain["device"], str, (*section, "device"), where)
    try:
        find_device(device)
    except ConfigError:
        raise  # it is about [devices] and tells its own line
    except ToolError as exc:
        raise file.fail((*section, "device"), f"{where}: {exc}") from exc
    runtime = file.one_of(plain["runtime"], tuple(RUNTIME_FORMATS), (*section, "runtime"), where)
    runner = file.one_of(plain["runner"], tuple(RUNNERS), (*section, "runner"), where) if "runner" in plain else None
    return Target(device, runtime, threads, runner=runner)


def _plans(file: TomlFile, value: Any, place: Place, where: str) -> tuple[Path, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) and item and "\0" not in item for item in values):
        raise file.fail(place, f"{where}: plan must be a path or a list of paths, not {value!r}")
    return tuple(file.path_of(item) for item in values)


def _out(file: TomlFile, value: Any, place: Place, where: str) -> Path:
    path = file.path_of(file.typed(value, str, place, where))
    if path.suffix != ".parquet" or "\0" in str(path):
        raise file.fail(place, f"{where}: out must be a path that ends in .parquet, not {value!r}")
    return path


def _when(file: TomlFile, value: Any, place: Place, where: str) -> When:
    text = file.typed(value, str, place, where)
    try:
        return parse_when(text)
    except ValueError as exc:
        raise file.fail(place, f"{where}: when = {text!r} is no cron expression: {exc}") from exc


def _percent(file: TomlFile, plain: Mapping[str, Any], word: str, otherwise: float, section: Place) -> float:
    """2, 2.0, "2" or "2%"."""
    value = plain.get(word, otherwise)
    if type(value) not in (int, float, str):
        raise file.fail((*section, word), f'table {section[-1]!r}: {word} takes a percentage such as "2%", not {value!r}')
    try:
        return percent(str(value), word)
    except (ToolError, ValueError) as exc:
        raise file.fail((*section, word), f"table {section[-1]!r}: {exc}") from exc


def _days(file: TomlFile, value: Any, place: Place, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value <= MOST_DAYS:
        raise file.fail(place, f"{where}: max_age_days must be a number of days above 0, not {value!r}")
    return float(value)


def _telling(file: TomlFile, plain: Mapping[str, Any]) -> Telling:
    """The values themselves are not repeated in errors: they may be secret."""
    file.known(plain, TELLING_WORDS, ("schedule",), "[schedule]")
    webhook, command = plain.get("webhook"), plain.get("command", [])
    if webhook is not None and not _is_web_address(webhook):
        raise file.fail(("schedule", "webhook"), "[schedule]: webhook must be an address that begins with https:// or http://")
    if not isinstance(command, list) or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise file.fail(("schedule", "command"), '[schedule]: command must be a list of texts, such as ["notify-send", "tables"]')
    return Telling(webhook, tuple(command))


def _is_web_address(value: Any) -> bool:
    if not isinstance(value, str) or re.search(r"[^\x21-\x7e]", value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
