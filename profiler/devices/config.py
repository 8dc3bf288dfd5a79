"""Devices by name, as `profile.toml` configures them. A device can also be given by its address, such as `ssh:jetson`.

    [devices.pixel]
    address = "adb:1A2B3C4D"
    runner = "native"
    cpus = "big"                                # or "all", or a list of cores
    libraries.onnxruntime = "~/aar/libonnxruntime.so"
    cool = { below_c = 40, wait_s = 900 }

The file is the one that --config or PROFILE_CONFIG names, otherwise ./profile.toml, otherwise
~/.config/netadapt-profiler/profile.toml.
"""

from __future__ import annotations

import os
import re
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
from profiler.runner_names import RUNNERS
from profiler.runtimes import RUNTIMES

CONFIG_VARIABLE = "PROFILE_CONFIG"
SECTIONS = ("devices", "tables", "schedule")
"""What profile.toml may hold; profiler.schedule reads the last two."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device and the settings for measuring on it. For a field that is None the command line or a default decides."""

    name: str
    address: str
    runner: str | None = None
    python: str | None = None
    """A Python interpreter on the device."""
    native: Path | None = None
    """A native runner on this host that was built for the device; None to build one."""
    libraries: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Shared libraries on this host, by runtime, that are sent with the native runner; the last is the runtime itself."""
    tools: Mapping[str, Path] = field(default_factory=dict)
    """Benchmark programs of vendors on this host, by the name of the runner that uses them."""
    cpus: str | tuple[int, ...] = "big"
    """The cores to run on: `all`, core numbers, or `big` for the fastest ones if the device has several kinds."""
    fixed_performance: bool = True
    """True to switch Android's fixed-performance mode on while measuring, on devices that have it."""
    cool: Cooling = field(default_factory=Cooling)
    folder: str | None = None
    """The folder on the device for our files."""
    ssh_config: str | None = None
    """A configuration file for `ssh -F`."""

    @property
    def options(self) -> Options:
        """The options with which the agent of the device is opened."""
        return Options(self.folder, self.ssh_config)


def find_device(name: str) -> Device:
    """The device with this name in the file, or with this address. Raises `UnknownDevice` with the nearest name otherwise."""
    known = configured_devices()
    if name in known:
        return known[name]
    if name.split(":", 1)[0] in AGENTS:
        by_address = [device for device in known.values() if device.address == name]
        return by_address[0] if by_address else Device(name, name)
    kind, colon, rest = name.partition(":")
    if not nearest(name, known) and (way := _meant_device(name)):
        raise UnknownDevice(f"there is no device called {name!r}; {way}")
    if not nearest(name, known) and (near := nearest(kind, AGENTS)):
        raise UnknownDevice(f"there is no device called {name!r}; did you mean {near + colon + rest!r}?")
    raise UnknownDevice(f"there is no device called {name!r}; {did_you_mean(name, [*known, *(f'{kind}:...' for kind in AGENTS)])}")


def _meant_device(name: str) -> str | None:
    """What other tools call by this name, as the end of a sentence; None if it looks like none of their names."""
    word = name.lower()
    if word in ("cpu", "localhost", "127.0.0.1", "::1", "host", "here", "this"):
        return "did you mean 'local'? --runtime and profile.toml say which part of it computes"
    if re.fullmatch(r"(cuda|gpu|rocm|mps|tpu|npu|dsp)(:\d+)?", word):
        return "the part of a device that computes is named by --runtime, such as onnxruntime-cuda on --device local"
    if word.partition(":")[0] == "model":
        return "modelled accelerators such as model:eyeriss are for `profile build` and `profile estimate`"
    if word in ("android", "phone", "usb"):
        return "did you mean 'adb:SERIAL', as `profile devices` lists it?"
    if re.fullmatch(r"[\w.-]+@[\w.-]+(:\d+)?", name) or re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}(:22)?|[\w-]+\.(local|lan)", word):
        return f"did you mean {f'ssh:{name}'!r}?"
    if re.fullmatch(r"(\d{1,3}(\.\d{1,3}){3}:\d+|emulator-\d+)", word):
        return f"did you mean {f'adb:{name}'!r}?"
    return None


def configured_devices() -> dict[str, Device]:
    """All devices of the file by name, in its order; none if there is no file. Raises `ConfigError` with the line of a mistake."""
    path = config_path()
    if path is None:
        return {}
    reader = _Reader(read_toml(path))
    reader.file.known(reader.file.plain, SECTIONS, (), "the file")
    devices = reader.file.table(reader.file.plain.get("devices", {}), ("devices",))
    return {name: reader.device(name, table) for name, table in devices.items()}


def config_path() -> Path | None:
    """The configuration file that applies; None if there is none. Raises `ConfigError` if a file was named that does not exist."""
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
    """Turns the plain values of the file into devices. Raises `ConfigError` with the line of the first mistake."""

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
                    self.file.known(plain, RUNTIMES, place, f"{where}: libraries")
                    yield word, {runtime: self._paths(paths, (*place, runtime), where) for runtime, paths in plain.items()}
                case "tools":
                    plain = self.file.table(value, place)
                    self.file.known(plain, RUNNERS, place, f"{where}: tools")
                    yield word, {tool: self._paths(path, (*place, tool), where)[-1] for tool, path in plain.items()}
                case "native":
                    yield word, self._paths(value, place, where)[-1]
                case "cpus":
                    yield word, self._cpus(value, place, where)
                case "cool":
                    yield word, self._cooling(self.file.table(value, place), place, where)
                case "runner":
                    yield word, self.file.one_of(value, tuple(RUNNERS), place, where)
                case "fixed_performance":
                    yield word, self.file.typed(value, bool, place, where)
                case _:
                    yield word, self.file.typed(value, str, place, where)

    def _paths(self, value: Any, place: tuple[str, ...], where: str) -> tuple[Path, ...]:
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(item, str) for item in values):
            raise self.file.fail(place, f"{where}: {'.'.join(place[2:])} must be a path or a list of paths, not {value!r}")
        for item in values:
            if not item.isprintable() or (os.name != "nt" and re.match(r"[A-Za-z]:[\\/]|\\\\", item)):
                raise self.file.fail(
                    place,
                    f"{where}: {'.'.join(place[2:])} is a path of Windows, {item!r}; give one of this host, such as /mnt/c/...",
                )
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
