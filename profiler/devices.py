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

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from device_agents import AGENTS, Options
from device_agents.errors import UnknownDevice
from profiler.errors import ConfigError
from profiler.steady import Cooling

RUNNERS = ("python", "native", "benchmark_model", "onnxruntime_perf_test")
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
    near = difflib.get_close_matches(name, known, n=1) or [
        found + colon + rest for found in difflib.get_close_matches(kind, AGENTS, n=1)
    ]
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join([*known, *(f'{kind}:...' for kind in AGENTS)])}"
    raise UnknownDevice(f"there is no device called {name!r}; {hint}")


def configured_devices() -> dict[str, Device]:
    """Those of the file, in its order; none if there is no file. `ConfigError` with the line of the first mistake."""
    path = config_path()
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        plain = tomllib.loads(text)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    reader = _Reader(path, text)
    return {name: reader.device(name, table) for name, table in reader.table(plain.get("devices", {}), "devices").items()}


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

    path: Path
    text: str

    def fail(self, word: str, why: str) -> ConfigError:
        lines = [number for number, line in enumerate(self.text.splitlines(), 1) if word in line]
        return ConfigError(f"{self.path}{f', line {lines[0]}' if lines else ''}: {why}")

    def table(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(name, f"{name} must be a table, not {value!r}")
        return value

    def known(self, table: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
        for word in table:
            if word not in names:
                near = difflib.get_close_matches(word, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
                raise self.fail(word, f"{where} has no setting {word!r}; {hint}")

    def device(self, name: str, value: Any) -> Device:
        table = self.table(value, name)
        where = f"device {name!r}"
        self.known(table, tuple(part.name for part in fields(Device) if part.name != "name"), where)
        if "address" not in table:
            raise self.fail(name, f'{where} needs an address, such as address = "adb:SERIAL" or "ssh:HOST"')
        if not isinstance(table["address"], str) or table["address"].split(":", 1)[0] not in AGENTS:
            raise self.fail("address", f"{where}: an address begins with {', '.join(AGENTS)}, not {table['address']!r}")
        return Device(name, **dict(self._settings(table, where)))

    def _settings(self, table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        for word, value in table.items():
            match word:
                case "libraries":
                    plain = self.table(value, word)
                    yield word, {runtime: self._paths(paths, f"{where}: libraries.{runtime}") for runtime, paths in plain.items()}
                case "tools":
                    plain = self.table(value, word)
                    yield word, {tool: self._paths(path, f"{where}: tools.{tool}")[-1] for tool, path in plain.items()}
                case "native":
                    yield word, self._paths(value, f"{where}: {word}")[-1]
                case "cpus":
                    yield word, self._cpus(value, where)
                case "cool":
                    yield word, self._cooling(self.table(value, word), where)
                case "runner":
                    if value not in RUNNERS:
                        raise self.fail(word, f"{where}: there is no runner {value!r}; known are {', '.join(RUNNERS)}")
                    yield word, value
                case "fixed_performance":
                    yield word, self._typed(value, bool, word, where)
                case _:
                    yield word, self._typed(value, str, word, where)

    def _typed(self, value: Any, kind: type, word: str, where: str) -> Any:
        if not isinstance(value, kind):
            raise self.fail(word, f"{where}: {word} must be {'true or false' if kind is bool else 'a text'}, not {value!r}")
        return value

    def _paths(self, value: Any, where: str) -> tuple[Path, ...]:
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(item, str) for item in values):
            raise self.fail(where.split()[-1].split(".")[0], f"{where} must be a path or a list of paths, not {value!r}")
        return tuple(Path(self.path.parent, Path(item).expanduser()) for item in values)

    def _cpus(self, value: Any, where: str) -> str | tuple[int, ...]:
        if value in ("big", "all"):
            return str(value)
        if isinstance(value, list) and value and all(type(cpu) is int and cpu >= 0 for cpu in value):
            return tuple(sorted(set(value)))
        raise self.fail("cpus", f'{where}: cpus must be "big", "all" or a list of cores such as [4, 5], not {value!r}')

    def _cooling(self, table: Mapping[str, Any], where: str) -> Cooling:
        self.known(table, tuple(part.name for part in fields(Cooling)), f"{where}: cool")
        for word, value in table.items():
            if type(value) not in (int, float):
                raise self.fail(word, f"{where}: cool.{word} must be a number, not {value!r}")
        return Cooling(**table)
