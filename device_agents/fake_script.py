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

import hashlib
import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from device_agents.errors import DeviceError
from device_agents.support.toml_file import Place, TomlFile, read_toml

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
    cores: int = field(default=4, metadata={"least": 1, "most": 4096})
    memory_bytes: int = 4 << 30
    governor: str = "not readable"
    python: str = "3.11"
    clock_khz: int = 0
    temperature_c: float = field(default=0.0, metadata={"most": 1000})


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


def read_script(path: Path) -> Script:
    """`DeviceError` with the line and what was probably meant."""
    file = read_toml(path, DeviceError, f"; `fake:` needs a script such as {EXAMPLE}")
    plain, where = file.plain, "a device's script"
    file.known(plain, SECTIONS, (), where)
    runtimes = file.table(plain.get("runtimes", {}), ("runtimes",))
    if not runtimes:
        raise file.fail(
            ("runtimes",), 'the device has no runtime; add [runtimes] and a line such as litert = "2.3.0" for each that it has'
        )
    faults = plain.get("fault", [])
    if not isinstance(faults, list):
        raise file.fail(("fault",), "a fault must be written as [[fault]]")
    return Script(
        device=_section(file, Device, plain.get("device", {}), ("device",)),
        runtimes={name: file.typed(version, str, ("runtimes", name), "[runtimes]") for name, version in runtimes.items()},
        latency=_section(file, Latency, plain.get("latency", {}), ("latency",)),
        slow=_section(file, Slow, plain.get("slow", {}), ("slow",)),
        energy=_section(file, Energy, plain["energy"], ("energy",)) if "energy" in plain else None,
        faults=tuple(_fault(file, table, ("fault", number)) for number, table in enumerate(faults)),
        seed=file.number(plain.get("seed", 1), int, ("seed",), where, least=0),
        sha256=hashlib.sha256(file.text.encode()).hexdigest(),
    )


def _section(file: TomlFile, cls: type[T], value: Any, place: Place) -> T:
    """A section whose settings are the fields of a dataclass, each of the type of its default and within its limits."""
    table, where = file.table(value, place), f"[{place[0]}]"
    settings = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    file.known(table, settings, place, where)
    for name, setting in table.items():
        default, limits = settings[name].default, settings[name].metadata
        if isinstance(default, str):
            file.typed(setting, str, (*place, name), where)
        else:
            file.number(
                setting,
                int if isinstance(default, int) else float,
                (*place, name),
                where,
                limits.get("least", 0),
                limits.get("most", math.inf),
            )
    return cls(**table)


def _fault(file: TomlFile, value: Any, place: Place) -> Fault:
    found = _section(file, Fault, value, place)
    file.one_of(found.kind, tuple(FAULTS), (*place, "kind"), "[[fault]]")
    needed, *others = FAULTS[found.kind]
    for name in value:
        if name not in ("kind", needed, *others):
            hint = " and ".join((needed, *others))
            raise file.fail((*place, name), f"[[fault]]: a {found.kind} has no {name!r}, only {hint}")
    if needed not in value:
        raise file.fail((*place, "kind"), f"[[fault]]: a {found.kind} needs the number of its {needed}, as in {needed} = 7")
    file.one_of(found.signal, tuple(signal.Signals.__members__), (*place, "signal"), "[[fault]]")
    return found
