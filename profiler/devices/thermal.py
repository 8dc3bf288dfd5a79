"""Temperatures and batteries of a device, from the kernel's files and, on phones, from Android's services."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from device_agents.support.text import printable
from profiler.devices.snapshot import BATTERY, SUPPLIES, THERMAL, THROTTLES, ZONES, Snapshot

PLAUSIBLE_C = (-40.0, 200.0)
"""Sensors that are not fitted report -273 or -5700 °C, and some thermal zones are not temperatures at all."""
TEMPERATURE_TYPES = {0, 1, 3, 9, 10}
"""Android's sensor types for CPU, GPU, skin, NPU and TPU (android.hardware.thermal, TemperatureType).

The other types are batteries, plugs and radios, or currents and voltages.
"""
CURRENT = re.compile(r"Current temperatures from HAL:\n((?:\s*Temperature\{.*\}\n?)+)")
"""The part of `dumpsys thermalservice` that was read just now."""
CHARGING = {"1": "Unknown", "2": "Charging", "3": "Discharging", "4": "Not charging", "5": "Full"}
"""The states of android.os.BatteryManager, in the words of the kernel."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A place in the device whose temperature is measured."""

    name: str
    temperature_c: float
    limit_c: float | None
    """The temperature from which the device slows down or switches off; None if it is unknown."""


@dataclass(frozen=True, slots=True)
class Battery:
    """A battery of the device. A field is None if it cannot be read."""

    name: str
    status: str | None
    """A word of the kernel: `Charging`, `Discharging`, `Not charging`, `Full` or `Unknown`."""
    charge_percent: float | None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class Heat:
    """A summary of the temperatures. A field is None if it cannot be read."""

    status: int | None
    """Android's thermal status: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown."""
    hottest_c: float | None
    """The temperature of the hottest zone."""
    battery_c: float | None
    """The temperature of the hottest battery."""


def heat(snapshot: Snapshot) -> Heat:
    """The thermal status, the hottest zone and the hottest battery of a snapshot."""
    zone_temperatures = [zone.temperature_c for zone in zones(snapshot) or ()]
    battery_temperatures = [pack.temperature_c for pack in batteries(snapshot) or () if pack.temperature_c is not None]
    return Heat(thermal_status(snapshot), max(zone_temperatures, default=None), max(battery_temperatures, default=None))


def thermal_status(snapshot: Snapshot) -> int | None:
    """Android's thermal status from 0 (none) to 6 (shutdown); None on other devices."""
    found = re.search(r"^\s*Thermal Status: ([0-6])\s*$", snapshot.output(THERMAL) or "", re.MULTILINE)
    return int(found[1]) if found else None


def zones(snapshot: Snapshot) -> tuple[Zone, ...] | None:
    """Android's sensors if it lists any, otherwise the kernel's thermal zones; None if there are neither.

    Android's sensors come first because the names of a phone's kernel zones are rarely meaningful.
    """
    return _android_sensors(snapshot) or _kernel_zones(snapshot) or None


def cached(snapshot: Snapshot) -> bool:
    """True if the temperatures are those that Android has kept of the last change that it was told."""
    return bool(_android_sensors(snapshot)) and not CURRENT.search(snapshot.output(THERMAL) or "")


def _android_sensors(snapshot: Snapshot) -> tuple[Zone, ...]:
    output = snapshot.output(THERMAL) or ""
    # current readings come first: cached ones may be hours old, but they are all that some phones have
    current = CURRENT.search(output)
    pattern = r"Temperature\{mValue=(-?[0-9.]{1,12}), mType=([0-9]{1,3}), mName=([^,}\n]{1,80}), mStatus=[0-9]\}"
    found = []
    for value, sensor_type, name in re.findall(pattern, current[1] if current else output):
        temperature_c = _plausible(value)
        if int(sensor_type) in TEMPERATURE_TYPES and temperature_c:  # exactly 0 °C means that the sensor is not fitted
            found.append(Zone(printable(name, 80), temperature_c, None))
    return tuple(found)


def _kernel_zones(snapshot: Snapshot) -> tuple[Zone, ...]:
    found = []
    for path in snapshot.glob(f"{ZONES}/thermal_zone*/temp"):
        folder = path.removesuffix("/temp")
        name = snapshot.text(f"{folder}/type") or folder.rpartition("/")[2]
        temperature_c = milli(snapshot, path)
        if temperature_c is None or (name == "PMIC-Die" and temperature_c == 100):  # on Jetsons this is a constant
            continue
        limits = []
        for trip in snapshot.glob(f"{folder}/trip_point_*_type"):
            limit_c = milli(snapshot, trip.removesuffix("_type") + "_temp")
            if snapshot.text(trip) in ("passive", "hot", "critical") and limit_c is not None and limit_c > 0:
                limits.append(limit_c)
        found.append(Zone(printable(name, 80), temperature_c, min(limits, default=None)))
    return tuple(found)


def milli(snapshot: Snapshot, path: str) -> float | None:
    """The temperature in °C of a file in thousandths of a degree; None if it is missing or not plausible."""
    value = snapshot.number(path)
    if value is None or not PLAUSIBLE_C[0] < value / 1000 < PLAUSIBLE_C[1]:
        return None
    return value / 1000


def _plausible(text: str) -> float | None:
    """The temperature in °C that the text gives; None if it is not a number or not plausible."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and PLAUSIBLE_C[0] < value < PLAUSIBLE_C[1] else None


def throttles(snapshot: Snapshot) -> int | None:
    """The number of times that the cores have throttled for heat since the start, added up; only Intel counts them."""
    counts = [count for path in snapshot.glob(THROTTLES) if (count := snapshot.number(path)) is not None]
    return sum(counts) if counts else None


def batteries(snapshot: Snapshot) -> tuple[Battery, ...] | None:
    """The batteries of the device itself; an empty tuple means that it has none, None that they cannot be read."""
    output = snapshot.output(BATTERY)
    if output is not None and (pack := _android_battery(output)) is not None:
        return (pack,)
    if not snapshot.exists(SUPPLIES) and not snapshot.glob(f"{SUPPLIES}/*/type"):
        return None
    found = []
    for path in snapshot.glob(f"{SUPPLIES}/*/type"):
        folder = path.removesuffix("/type")
        if snapshot.text(path) != "Battery" or snapshot.text(f"{folder}/scope") == "Device":
            continue  # the scope "Device" marks the battery of a peripheral, such as a mouse
        status = snapshot.text(f"{folder}/status")
        tenths = snapshot.number(f"{folder}/temp")
        found.append(
            Battery(
                name=printable(folder.rpartition("/")[2], 80),
                status=None if status is None else printable(status, 80),
                charge_percent=_percent(snapshot.number(f"{folder}/capacity"), 100),
                temperature_c=None if tenths is None else _plausible(str(tenths / 10)),
            )
        )
    return tuple(found)


def _android_battery(output: str) -> Battery | None:
    """The battery that `dumpsys battery` describes; None for a device without one, such as a television."""
    lines = re.findall(r"^ *([A-Za-z ]{1,40}): (\S{1,40})\s*$", output, re.MULTILINE)
    # some manufacturers append lines of their own with the same names, so the first line of a name counts
    fields = dict(reversed(lines))
    number = {
        name: int(fields[name]) for name in ("level", "scale", "temperature") if re.fullmatch(r"-?[0-9]{1,9}", fields.get(name, ""))
    }
    if fields.get("present") == "false" or "level" not in number:
        return None
    tenths = number.get("temperature")
    return Battery(
        name="battery",
        status=CHARGING.get(fields.get("status", "")),
        charge_percent=_percent(number["level"], number.get("scale", 100)),
        temperature_c=None if tenths is None else _plausible(str(tenths / 10)),
    )


def _percent(part: int | None, whole: int) -> float | None:
    if part is None or whole <= 0 or not 0 <= part <= whole:
        return None
    return 100 * part / whole
