"""Facts that only Android phones or NVIDIA Jetson boards report, and the energy counters of a device."""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_agents.support.text import printable
from profiler.devices.snapshot import CLOCKS, CPUS, GETPROP, INA, LOW_POWER, NVPMODEL, POWER, POWER_HELP, RAPL, Snapshot

FIXED_PERFORMANCE_SDK = 30
"""The first Android API level with the fixed-performance mode (Android 11)."""


@dataclass(frozen=True, slots=True)
class Phone:
    """An Android device. A field is None if it cannot be read."""

    model: str
    soc: str | None
    release: str | None
    """The Android version, such as `13`."""
    sdk: int | None
    """The Android API level."""
    screen_on: bool | None
    low_power: bool | None
    """True if the battery saver is on."""
    fixed_performance: bool
    """True if `cmd power` offers the fixed-performance mode. Only a trial shows if the manufacturer implemented it."""


@dataclass(frozen=True, slots=True)
class Board:
    """A Jetson board. A field is None if it cannot be read."""

    release: str | None
    """The release of Jetson Linux, such as `L4T R36.4.3`."""
    power_mode: str | None
    top_mode: str | None
    """The power mode with the highest limits. None also if the names of the modes do not show which one that is."""
    top_mode_id: int | None
    clocks_pinned: bool | None
    """True if `jetson_clocks` is active: the lowest clock of the cores and of the GPU equals the highest."""


@dataclass(frozen=True, slots=True)
class Energy:
    """The counters from which the energy of a device can be measured."""

    source: str
    """`rapl` (Intel and AMD processors) or `ina3221` (the power monitor on Jetson boards)."""
    readable: bool
    """True if the current user may read the counters."""


# ----------------------------------------------------------------------------------------------------------------- phones


def properties(snapshot: Snapshot) -> dict[str, str]:
    """Android's system properties by name, as `getprop` prints them; empty properties are left out."""
    lines = re.findall(r"^\[([a-z0-9._]{1,80})\]: \[(.{0,200})\]\s*$", snapshot.output(GETPROP) or "", re.MULTILINE)
    return {name: printable(value, 80) for name, value in lines if value}


def phone(snapshot: Snapshot) -> Phone | None:
    """The facts of an Android device; None for any other device."""
    known = properties(snapshot)
    if not known:
        return None
    model = [known[name] for name in ("ro.product.manufacturer", "ro.product.model") if name in known]
    sdk = known.get("ro.build.version.sdk", "")
    # the state of the display counts before wakefulness: a phone can be awake while its display is off
    power = snapshot.output(POWER) or ""
    screen_on = None
    if display := re.search(r"Display Power: state=([A-Z_]+)", power):
        screen_on = display[1] == "ON"
    elif wakefulness := re.search(r"mWakefulness=([A-Za-z]+)", power):
        screen_on = wakefulness[1] == "Awake"
    return Phone(
        model=" ".join(model) or "an unnamed device",
        soc=known.get("ro.soc.model"),
        release=known.get("ro.build.version.release"),
        sdk=int(sdk) if re.fullmatch("[0-9]{1,4}", sdk) else None,
        screen_on=screen_on,
        low_power={"1": True, "0": False, "null": False}.get(snapshot.output(LOW_POWER) or ""),
        fixed_performance="set-fixed-performance-mode-enabled" in (snapshot.output(POWER_HELP) or ""),
    )


def build(snapshot: Snapshot) -> str | None:
    """The version of the whole system: Android's build fingerprint or a Jetson's release; None for other devices."""
    return properties(snapshot).get("ro.build.fingerprint") or _jetson_release(snapshot)


# ---------------------------------------------------------------------------------------------------------------- Jetsons


def board(snapshot: Snapshot) -> Board | None:
    """The facts of a Jetson board; None for any other device."""
    if not snapshot.exists("/etc/nv_tegra_release") and snapshot.output(NVPMODEL) is None:
        return None
    modes = _power_modes(snapshot)
    unlimited = [number for number, name in modes.items() if name.startswith("MAXN")]
    watts = {number: float(found[1]) for number, name in modes.items() if (found := re.search(r"([0-9]+(?:\.[0-9]+)?)W", name))}
    top: int | None
    if unlimited:
        # MAXN lifts every limit; where there are several variants, the longer name (MAXN_SUPER) is the faster one
        top = max(unlimited, key=lambda number: len(modes[number]))
    else:
        top = max(watts, key=watts.__getitem__, default=None)
    return Board(
        release=_jetson_release(snapshot),
        power_mode=power_mode(snapshot),
        top_mode=None if top is None else modes[top],
        top_mode_id=top,
        clocks_pinned=clocks_pinned(snapshot),
    )


def _jetson_release(snapshot: Snapshot) -> str | None:
    text = snapshot.text("/etc/nv_tegra_release") or ""
    found = re.search(r"# (R[0-9]+) \(release\), REVISION: ([0-9.]+)", text)
    return f"L4T {found[1]}.{found[2]}" if found else None


def _power_modes(snapshot: Snapshot) -> dict[int, str]:
    """The names of all power modes by their numbers."""
    lines = snapshot.output("cat /etc/nvpmodel.conf") or ""
    return {int(number): name for number, name in re.findall(r"POWER_MODEL +ID=([0-9]{1,3}) +NAME=([\w.-]{1,40})", lines)}


def power_mode(snapshot: Snapshot) -> str | None:
    """The name of the current power mode, or its number if it has no known name; None if it cannot be read."""
    found = re.search(r"NV Power Mode: *(\S{1,40})", snapshot.output(NVPMODEL) or "")
    if found is not None:
        return printable(found[1], 80)
    # some releases let only root run `nvpmodel -q`, but anyone may read the file in which it keeps the number
    kept = re.search(r"pmode:([0-9]{1,4})", snapshot.text("/var/lib/nvpmodel/status") or "")
    if kept is None:
        return None
    number = int(kept[1])
    return _power_modes(snapshot).get(number, str(number))


def clocks_pinned(snapshot: Snapshot) -> bool | None:
    """True if the lowest and the highest clock of every core and of the GPU are the same; None if that is unknown.

    The clocks of the cores alone do not show it: in the smallest power modes the cores have only one clock anyway.
    """
    clocks = snapshot.output(CLOCKS) or ""
    gpu = re.findall(r"^GPU +MinFreq=([0-9]+) +MaxFreq=([0-9]+)", clocks, re.MULTILINE)
    core = re.findall(r"^cpu[0-9]+: +Online=1 .*MinFreq=([0-9]+) +MaxFreq=([0-9]+)", clocks, re.MULTILINE)
    if not gpu or not core:  # many releases refuse an ordinary user, some after a part of it; anyone may read the kernel's files
        gpu = _clock_limits(snapshot, "/sys/class/devfreq/*.g*/min_freq")
        core = _clock_limits(snapshot, f"{CPUS}/cpu[0-9]*/cpufreq/scaling_min_freq")
    known = [low == high for low, high in gpu + core if low is not None and high is not None]
    if not gpu or len(known) < len(gpu + core):
        return False if gpu and False in known else None
    return all(known)


def _clock_limits(snapshot: Snapshot, pattern: str) -> list[tuple[str | None, str | None]]:
    """The lowest and the highest clock, as text, for every `min_freq` file of the pattern, except those of cores that are off.

    None stands for one of the two that cannot be read.
    """
    ends = [(snapshot.text(path), snapshot.text("max_freq".join(path.rsplit("min_freq", 1)))) for path in snapshot.glob(pattern)]
    return [pair for pair in ends if pair != (None, None)]


# ----------------------------------------------------------------------------------------------------------------- energy


def energy(snapshot: Snapshot) -> Energy | None:
    """The counters of the processor packages or, failing that, the power rails of the board; None if there are neither."""
    packages = [
        path.removesuffix("name") + "energy_uj"
        for path in snapshot.glob(f"{RAPL}/intel-rapl:*/name")
        if (snapshot.text(path) or "").startswith("package")
    ]
    rails = [*snapshot.glob(f"{INA}/hwmon/hwmon*/curr[0-9]_input"), *snapshot.glob(f"{INA}/iio:device*/in_power[0-9]_input")]
    for source, paths in (("rapl", packages), ("ina3221", rails)):
        if paths:
            return Energy(source, any(snapshot.number(path) is not None for path in paths))
    return None
