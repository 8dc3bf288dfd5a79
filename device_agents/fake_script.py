"""The script of a simulated device, a small TOML file.

Every name has a default but the runtimes. One that says it all:

    seed = 1                    # of all that is random
    [device]
    cpu = "Cortex-A55"
    cores = 4
    clock_khz = 1800000         # 0: not readable; so are memory_bytes and temperature_c
    [runtimes]                  # name and version of those that it has
    litert = "2.3.0"
    [latency]
    base_us = 20                # of a model, ...
    us_per_kilobyte = 1.5       # ... and for every 1000 bytes of its file
    noise_percent = 2           # only ever added
    [slow]                      # spells during which all takes longer, by the device's own clock
    every_s = 60
    for_s = 5
    percent = 30
    [energy]                    # without it, the device has no counter
    idle_w = 1.2
    busy_w = 3.5
    [[fault]]                   # what goes wrong at a measurement, counted from 1 over the session without reference runs
    measurement = 7
    kind = "crash"              # signal = "SIGSEGV"
                                # hang; out_of_memory; garbage: line = what is sent in place of the measurement's;
                                # hot: rounds = how many to come are; link_lost, reboot: reconnects = how many attempts fail
    [[fault]]                   # or at a push of files
    push = 2
    kind = "short_push"         # attempts = how many of them arrive short
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
import re
import signal
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from device_agents.errors import DeviceError

EXAMPLE = '[runtimes] litert = "2.3.0", [latency] base_us = 20 and us_per_kilobyte = 1.5, each on a line of its own'
FAULTS: dict[str, tuple[str, ...]] = {
    "crash": ("measurement", "signal"),
    "hang": ("measurement",),
    "out_of_memory": ("measurement",),
    "garbage": ("measurement", "line"),
    "hot": ("measurement", "rounds"),
    "link_lost": ("measurement", "reconnects"),
    "reboot": ("measurement", "reconnects"),
    "short_push": ("push", "attempts"),
}
"""What may be said of each kind, that which is needed first."""
SPOILT = '{"event":"measurement","model":null,"round":-1,"samples_ns":[-1]}'


@dataclass(frozen=True, slots=True)
class Device:
    system: str = "Linux"
    kernel: str = "simulated"
    machine: str = "simulated"
    cpu: str = "processor"
    cores: int = field(default=4, metadata={"least": 1})
    memory_bytes: int = 4 << 30
    governor: str = "not readable"
    python: str = "3.11"
    clock_khz: int = 0
    temperature_c: float = 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    base_us: float = field(default=20.0, metadata={"least": 0.001})
    us_per_kilobyte: float = 1.0
    noise_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Slow:
    every_s: float = field(default=60.0, metadata={"least": 0.001})
    for_s: float = 0.0
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Energy:
    idle_w: float = 1.0
    busy_w: float = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str = ""
    measurement: int = field(default=0, metadata={"least": 1})
    push: int = field(default=0, metadata={"least": 1})
    signal: str = "SIGSEGV"
    line: str = SPOILT
    rounds: int = field(default=1, metadata={"least": 1})
    reconnects: int = 0
    attempts: int = field(default=1, metadata={"least": 1})


@dataclass(frozen=True, slots=True)
class Script:
    device: Device
    runtimes: Mapping[str, str]
    latency: Latency
    slow: Slow
    energy: Energy | None
    faults: tuple[Fault, ...]
    seed: int
    sha256: str


T = TypeVar("T")
SECTIONS = ("seed", "device", "runtimes", "latency", "slow", "energy", "fault")
KINDS = {str: "a text", int: "a whole number", float: "a number", dict: "a [table]", list: "written as [[fault]]"}


def read_script(path: Path) -> Script:
    """`DeviceError` with the line and what was probably meant."""
    try:
        text = path.read_text(encoding="utf-8")
        plain = tomllib.loads(text)
    except OSError as exc:
        raise DeviceError(f"{path} cannot be read: {exc.strerror}; `fake:` needs a script such as {EXAMPLE}") from exc
    except UnicodeDecodeError as exc:
        raise DeviceError(f"{path} is not text; `fake:` needs a script such as {EXAMPLE}") from exc
    except RecursionError as exc:
        raise DeviceError(f"{path} is nested too deeply; `fake:` needs a script such as {EXAMPLE}") from exc
    except ValueError as exc:  # no TOML, or a number of thousands of digits
        raise DeviceError(f"{path} is not TOML: {str(exc)[:200]}; mend that place") from exc
    return _Reader(path, text).script(plain)


class _Reader:
    """Checks what was parsed; the text is there to say the line of what is wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text

    def script(self, plain: Mapping[str, Any]) -> Script:
        self._known("", plain, SECTIONS)
        energy = plain.get("energy")
        return Script(
            device=self._section(Device, "device", plain.get("device", {})),
            runtimes=self._runtimes(plain.get("runtimes", {})),
            latency=self._section(Latency, "latency", plain.get("latency", {})),
            slow=self._section(Slow, "slow", plain.get("slow", {})),
            energy=None if energy is None else self._section(Energy, "energy", energy),
            faults=self._faults(plain.get("fault", [])),
            seed=self._value("", "seed", plain.get("seed", 1), int, 0),
            sha256=hashlib.sha256(self._text.encode()).hexdigest(),
        )

    def _runtimes(self, plain: Any) -> dict[str, str]:
        self._fits("runtimes", "", plain, dict)
        for name, version in plain.items():
            self._fits("runtimes", name, version, str)
        if not plain:
            raise self._error("runtimes", "", 'the device has no runtime; add [runtimes] and a line such as litert = "2.3.0"')
        return dict(plain)

    def _section(self, cls: type[T], section: str, plain: Any, place: int = 0) -> T:
        self._fits(section, "", plain, dict)
        fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
        self._known(section, plain, fields, place)
        return cls(
            **{
                name: self._value(section, name, value, type(fields[name].default), fields[name].metadata.get("least", 0), place)
                for name, value in plain.items()
            }
        )

    def _faults(self, plain: Any) -> tuple[Fault, ...]:
        self._fits("fault", "", plain, list)
        return tuple(self._fault(entry, place) for place, entry in enumerate(plain))

    def _fault(self, plain: Any, place: int) -> Fault:
        found = self._section(Fault, "fault", plain, place)
        if found.kind not in FAULTS:
            raise self._error("fault", "kind", f"there is no fault {found.kind!r}; {_meant(found.kind, FAULTS)}", place)
        needed = FAULTS[found.kind][0]
        for name in plain:
            if name not in ("kind", *FAULTS[found.kind]):
                hint = " and ".join(FAULTS[found.kind])
                raise self._error("fault", name, f"a {found.kind} has no {name!r}, only {hint}", place)
        if needed not in plain:
            raise self._error("fault", "kind", f"a {found.kind} needs the number of its {needed}, as in {needed} = 7", place)
        if found.signal not in signal.Signals.__members__:
            near = _meant(found.signal, signal.Signals.__members__)
            raise self._error("fault", "signal", f"there is no signal {found.signal!r}; {near}", place)
        return found

    # -------------------------------------------------------------------------------------------------------------- checking

    def _known(self, section: str, plain: Mapping[str, Any], known: Iterable[str], place: int = 0) -> None:
        for name in plain:
            if name not in known:
                where = f" in [{section}]" if section else ""
                raise self._error(section or name, name, f"there is no {name!r}{where}; {_meant(name, known)}", place)

    def _value(self, section: str, name: str, value: Any, kind: type, least: float, place: int = 0) -> Any:
        self._fits(section, name, value, kind, place)
        if kind in (int, float) and not least <= value < math.inf:
            raise self._error(section, name, f"{name} must be at least {least:g}, got {value!r}", place)
        return value

    def _fits(self, section: str, name: str, value: Any, kind: type, place: int = 0) -> None:
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self._error(section, name, f"{name or section} must be {KINDS[kind]}, got {value!r:.60}", place)

    def _error(self, section: str, name: str, what: str, place: int = 0) -> DeviceError:
        return DeviceError(f"{self._path}, line {_line(self._text, section, name, place)}: {what}")


def _line(text: str, section: str, name: str, place: int) -> int:
    """Where a name is, or else where its section begins; the `place`-th of that section, from 0."""
    begun, seen, here = 1, -1 if section else 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w-]+)", line):
            here = header[1]
            seen += here == section
            begun = number if here == section and seen == place else begun
        key = re.match(r"""\s*["']?([\w-]+)["']?\s*[=.]""", line)
        if key and here == section and seen == place and key[1] == name:
            return number
        if key and here == "" and key[1] == section:
            begun = number
    return begun


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(list(known)[:12])}"
