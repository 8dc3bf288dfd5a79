"""How warm a device is, and what its battery says: from the kernel's files, and from Android's services where there are any."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from device_agents.support.text import printable
from profiler.devices.snapshot import BATTERY, SUPPLIES, THERMAL, THROTTLES, ZONES, Snapshot

PLAUSIBLE_C = (-40.0, 200.0)
"""Sensors that are not fitted tell -273 or -5700 °C, and some zones are no temperatures at all."""
TEMPERATURE_TYPES = {0, 1, 3, 9, 10}
"""Android's for CPU, GPU, skin, NPU and TPU; others are batteries, plugs, radios, or currents and voltages."""
CHARGING = {"1": "Unknown", "2": "Charging", "3": "Discharging", "4": "Not charging", "5": "Full"}
"""android.os.BatteryManager's, in the kernel's words."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A place in the device whose temperature is measured."""

    name: str
    temperature_c: float
    limit_c: float | None
    """At which the device does something about it."""


@dataclass(frozen=True, slots=True)
class Battery:
    name: str
    status: str | None
    charge_percent: float | None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class Heat:
    """None is not readable."""

    status: int | None
    """Android's: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown."""
    hottest_c: float | None
    battery_c: float | None


def heat(snapshot: Snapshot) -> Heat:
    temperatures = [zone.temperature_c for zone in zones(snapshot) or ()]
    of_batteries = [pack.temperature_c for pack in batteries(snapshot) or () if pack.temperature_c is not None]
    return Heat(thermal_status(snapshot), max(temperatures, default=None), max(of_batteries, default=None))


def thermal_status(snapshot: Snapshot) -> int | None:
    found = re.search(r"^\s*Thermal Status: ([0-6])\s*$", snapshot.output(THERMAL) or "", re.MULTILINE)
    return int(found[1]) if found else None


def zones(snapshot: Snapshot) -> tuple[Zone, ...] | None:
    """Android's sensors where it names some, for many of its kernel's zones are named for nobody to understand."""
    return _sensors(snapshot) or _kernel_zones(snapshot) or None


def _sensors(snapshot: Snapshot) -> tuple[Zone, ...]:
    """Those that the hardware tells now; what is cached may be hours old, and is all that some phones have."""
    told = snapshot.output(THERMAL) or ""
    now = re.search(r"Current temperatures from HAL:\n((?:\s*Temperature\{.*\}\n?)+)", told)
    pattern = r"Temperature\{mValue=(-?[0-9.]{1,12}), mType=([0-9]{1,3}), mName=([^,}\n]{1,80}), mStatus=[0-9]\}"
    found = []
    for value, kind, name in re.findall(pattern, now[1] if now else told):
        temperature_c = _plausible(value)
        if int(kind) in TEMPERATURE_TYPES and temperature_c:  # exactly 0 is a sensor that is not fitted
            found.append(Zone(printable(name, 80), temperature_c, None))
    return tuple(found)


def _kernel_zones(snapshot: Snapshot) -> tuple[Zone, ...]:
    found = []
    for path in snapshot.glob(f"{ZONES}/thermal_zone*/temp"):
        folder = path.removesuffix("/temp")
        temperature_c, name = milli(snapshot, path), snapshot.text(f"{folder}/type") or folder.rpartition("/")[2]
        fixed = name == "PMIC-Die" and temperature_c == 100  # on Jetsons this is no measurement
        if temperature_c is not None and not fixed:
            found.append(Zone(printable(name, 80), temperature_c, _lowest_trip_c(snapshot, folder)))
    return tuple(found)


def _lowest_trip_c(snapshot: Snapshot, zone: str) -> float | None:
    limits = []
    for path in snapshot.glob(f"{zone}/trip_point_*_type"):
        limit_c = milli(snapshot, path.removesuffix("_type") + "_temp")
        if snapshot.text(path) in ("passive", "hot", "critical") and limit_c is not None and limit_c > 0:
            limits.append(limit_c)
    return min(limits, default=None)


def milli(snapshot: Snapshot, path: str) -> float | None:
    """°C from thousandths."""
    value = snapshot.number(path)
    return None if value is None or not PLAUSIBLE_C[0] < value / 1000 < PLAUSIBLE_C[1] else value / 1000


def _plausible(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and PLAUSIBLE_C[0] < value < PLAUSIBLE_C[1] else None


def throttles(snapshot: Snapshot) -> int | None:
    """How often the processors have slowed themselves down for heat since the start; Intel's count."""
    counts = [snapshot.number(path) for path in snapshot.glob(THROTTLES)]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def batteries(snapshot: Snapshot) -> tuple[Battery, ...] | None:
    """The device's own, not those of a mouse; none is an empty list, None is not readable."""
    told = snapshot.output(BATTERY)
    if told is not None and (pack := _android_battery(told)) is not None:
        return (pack,)
    if not snapshot.exists(SUPPLIES) and not snapshot.glob(f"{SUPPLIES}/*/type"):
        return None
    return tuple(
        _supply(snapshot, path.removesuffix("/type"))
        for path in snapshot.glob(f"{SUPPLIES}/*/type")
        if snapshot.text(path) == "Battery" and snapshot.text(path.removesuffix("type") + "scope") != "Device"
    )


def _supply(snapshot: Snapshot, folder: str) -> Battery:
    status, tenths = snapshot.text(f"{folder}/status"), snapshot.number(f"{folder}/temp")
    temperature_c = None if tenths is None else _plausible(str(tenths / 10))
    charge = _percent(snapshot.number(f"{folder}/capacity"), 100)
    name = printable(folder.rpartition("/")[2], 80)
    return Battery(name, None if status is None else printable(status, 80), charge, temperature_c)


def _android_battery(told: str) -> Battery | None:
    """None for what has no battery, such as a television."""
    lines = re.findall(r"^ *([A-Za-z ]{1,40}): (\S{1,40})\s*$", told, re.MULTILINE)
    fields = dict(reversed(lines))  # makers append lines of their own
    number = {
        name: int(fields[name]) for name in ("level", "scale", "temperature") if re.fullmatch(r"-?[0-9]{1,9}", fields.get(name, ""))
    }
    if fields.get("present") == "false" or "level" not in number:
        return None
    tenths = number.get("temperature")
    temperature_c = None if tenths is None else _plausible(str(tenths / 10))
    charge = _percent(number["level"], number.get("scale", 100))
    return Battery("battery", CHARGING.get(fields.get("status", "")), charge, temperature_c)


def _percent(part: int | None, whole: int) -> float | None:
    return None if part is None or whole <= 0 or not 0 <= part <= whole else 100 * part / whole
