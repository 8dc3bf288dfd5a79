"""Devices by name: what `profile.toml` says about them. An address such as `ssh:jetson` needs no file.

    [devices.pixel]
    address = "adb:1A2B3C4D"
    runner = "native"
    cpus = "big"                                # or "all", or a list of cores
    libraries.onnxruntime = "~/aar/libonnxruntime.so"
    cool = { below_c = 40, wait_s = 900 }

The file is the one named by --config or PROFILE_CONFIG, else ./profile.toml, else ~/.config/netadapt-profiler/profile.toml.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from device_agents.agent import Options
from device_agents.discovery import AGENTS
from device_agents.errors import UnknownDevice
from device_agents.support.errors import ConfigError
from device_agents.support.numbers import is_whole
from device_agents.support.text import did_you_mean, nearest
from device_agents.support.toml_file import TomlFile, read_toml
from profiler.devices.conditioning import Cooling

RUNNERS = ("python", "native", "benchmark_model", "onnxruntime_perf_test", "simulated", "replay")
"""The names of profiler.runners, which needs this module."""
CONFIG_VARIABLE = "PROFILE_CONFIG"


@dataclass(frozen=True, slots=True)
class Device:
    """A device and how to measure on it. What is None is left to the command line, or to us."""

    name: str
    address: str
    runner: str | None = None
    python: str | None = None
    """An interpreter on the device."""
    native: Path | None = None
    """A native runner built for the device; None to build one."""
    libraries: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Shared libraries of each runtime on this host, sent along with the native runner; the runtime itself is the last."""
    tools: Mapping[str, Path] = field(default_factory=dict)
    """Vendors' benchmark programs on this host, by the name of the runner that drives them."""
    cpus: str | tuple[int, ...] = "big"
    """Cores to stay on: `big` are the fastest ones where a device has several kinds."""
    fixed_performance: bool = True
    """Switch Android's fixed-performance mode on while measuring, where there is one."""
    cool: Cooling = field(default_factory=Cooling)
    folder: str | None = None
    ssh_config: str | None = None

    @property
    def options(self) -> Options:
        return Options(self.folder, self.ssh_config)


def find_device(name: str) -> Device:
    """By its name in the file, or by its address. `UnknownDevice` otherwise, with what may have been meant."""
    known = configured_devices()
    if name in known:
        return known[name]
    if name.split(":", 1)[0] in AGENTS:
        by_address = [device for device in known.values() if device.address == name]
        return by_address[0] if by_address else Device(name, name)
    kind, colon, rest = name.partition(":")
    if not nearest(name, known) and (near := nearest(kind, AGENTS)):
        raise UnknownDevice(f"there is no device called {name!r}; did you mean {near + colon + rest!r}?")
    raise UnknownDevice(f"there is no device called {name!r}; {did_you_mean(name, [*known, *(f'{kind}:...' for kind in AGENTS)])}")


def configured_devices() -> dict[str, Device]:
    """Those of the file, in its order; none if there is no file. `ConfigError` with the line of the first mistake."""
    path = config_path()
    if path is None:
        return {}
    reader = _Reader(read_toml(path))
    devices = reader.file.table(reader.file.plain.get("devices", {}), ("devices",))
    return {name: reader.device(name, table) for name, table in devices.items()}


def config_path() -> Path | None:
    """The file in force. `ConfigError` if one was named that is not there."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"there is no file {named}, which --config or {CONFIG_VARIABLE} names")
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    found = [path for path in (Path("profile.toml"), home / "netadapt-profiler" / "profile.toml") if path.is_file()]
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns plain values into devices; every mistake is told with its line."""

    file: TomlFile

    def device(self, name: str, value: Any) -> Device:
        section = ("devices", name)
        table = self.file.table(value, section)
        where = f"device {name!r}"
        self.file.known(table, tuple(part.name for part in fields(Device) if part.name != "name"), section, where)
        if "address" not in table:
            raise self.file.fail(section, f'{where} needs an address, such as address = "adb:SERIAL" or "ssh:HOST"')
        if not isinstance(table["address"], str) or table["address"].split(":", 1)[0] not in AGENTS:
            raise self.file.fail(
                (*section, "address"), f"{where}: an address begins with {', '.join(AGENTS)}, not {table['address']!r}"
            )
        return Device(name, **dict(self._settings(table, section, where)))

    def _settings(self, table: Mapping[str, Any], section: tuple[str, ...], where: str) -> Iterator[tuple[str, Any]]:
        for word, value in table.items():
            place = (*section, word)
            match word:
                case "libraries":
                    plain = self.file.table(value, place)
                    yield word, {runtime: self._paths(paths, (*place, runtime), where) for runtime, paths in plain.items()}
                case "tools":
                    plain = self.file.table(value, place)
                    yield word, {tool: self._paths(path, (*place, tool), where)[-1] for tool, path in plain.items()}
                case "native":
                    yield word, self._paths(value, place, where)[-1]
                case "cpus":
                    yield word, self._cpus(value, place, where)
                case "cool":
                    yield word, self._cooling(self.file.table(value, place), place, where)
                case "runner":
                    yield word, self.file.one_of(value, RUNNERS, place, where)
                case "fixed_performance":
                    yield word, self.file.typed(value, bool, place, where)
                case _:
                    yield word, self.file.typed(value, str, place, where)

    def _paths(self, value: Any, place: tuple[str, ...], where: str) -> tuple[Path, ...]:
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(item, str) for item in values):
            raise self.file.fail(place, f"{where}: {'.'.join(place[2:])} must be a path or a list of paths, not {value!r}")
        return tuple(self.file.path_of(item) for item in values)

    def _cpus(self, value: Any, place: tuple[str, ...], where: str) -> str | tuple[int, ...]:
        if value in ("big", "all"):
            return str(value)
        if isinstance(value, list) and value and all(is_whole(cpu, 0) for cpu in value):
            return tuple(sorted(set(value)))
        raise self.file.fail(place, f'{where}: cpus must be "big", "all" or a list of cores such as [4, 5], not {value!r}')

    def _cooling(self, table: Mapping[str, Any], place: tuple[str, ...], where: str) -> Cooling:
        self.file.known(table, tuple(part.name for part in fields(Cooling)), place, f"{where}: cool")
        for word, value in table.items():
            self.file.number(value, float, (*place, word), f"{where}: cool")
        return Cooling(**table)
