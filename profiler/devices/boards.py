"""What only phones or only NVIDIA's boards tell about themselves, and where energy can be read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_agents.support.text import printable
from profiler.devices.snapshot import CLOCKS, CPUS, GETPROP, INA, LOW_POWER, NVPMODEL, POWER, POWER_HELP, RAPL, Snapshot

FIXED_PERFORMANCE_SDK = 30
"""Android 11."""


@dataclass(frozen=True, slots=True)
class Phone:
    """An Android device. None is not readable."""

    model: str
    soc: str | None
    release: str | None
    sdk: int | None
    screen_on: bool | None
    low_power: bool | None
    """The battery saver."""
    fixed_performance: bool
    """Whether the system offers its mode of fixed performance; whether the maker built it is only known by trying."""


@dataclass(frozen=True, slots=True)
class Board:
    """A Jetson. None is not readable."""

    release: str | None
    power_mode: str | None
    top_mode: str | None
    """The mode with the most power; None also where the names do not tell."""
    top_mode_id: int | None
    clocks_pinned: bool | None
    """By `jetson_clocks`: the lowest clock of cores and GPU is also the highest."""


@dataclass(frozen=True, slots=True)
class Energy:
    source: str
    """`rapl` or `ina3221`."""
    readable: bool


def properties(snapshot: Snapshot) -> dict[str, str]:
    """Android's."""
    lines = re.findall(r"^\[([a-z0-9._]{1,80})\]: \[(.{0,200})\]\s*$", snapshot.output(GETPROP) or "", re.MULTILINE)
    return {name: printable(value, 80) for name, value in lines if value}


def phone(snapshot: Snapshot) -> Phone | None:
    known = properties(snapshot)
    sdk = known.get("ro.build.version.sdk", "")
    if not known:
        return None
    return Phone(
        model=" ".join(filter(None, map(known.get, ("ro.product.manufacturer", "ro.product.model")))) or "an unnamed device",
        soc=known.get("ro.soc.model"),
        release=known.get("ro.build.version.release"),
        sdk=int(sdk) if re.fullmatch("[0-9]{1,4}", sdk) else None,
        screen_on=_screen_on(snapshot.output(POWER) or ""),
        low_power={"1": True, "0": False, "null": False}.get(snapshot.output(LOW_POWER) or ""),
        fixed_performance="set-fixed-performance-mode-enabled" in (snapshot.output(POWER_HELP) or ""),
    )


def _screen_on(told: str) -> bool | None:
    """By the display itself where it is told, for a phone can be awake behind a dark one."""
    display = re.search(r"Display Power: state=([A-Z_]+)", told)
    awake = re.search(r"mWakefulness=([A-Za-z]+)", told)
    return display[1] == "ON" if display else awake[1] == "Awake" if awake else None


def build(snapshot: Snapshot) -> str | None:
    """What tells one version of the system from another: Android's build fingerprint, a Jetson's release."""
    fingerprint = properties(snapshot).get("ro.build.fingerprint")
    return fingerprint or _tegra_release(snapshot)


def _tegra_release(snapshot: Snapshot) -> str | None:
    text = snapshot.text("/etc/nv_tegra_release") or ""
    found = re.search(r"# (R[0-9]+) \(release\), REVISION: ([0-9.]+)", text)
    return f"L4T {found[1]}.{found[2]}" if found else None


# ---------------------------------------------------------------------------------------------------------------- Jetsons


def board(snapshot: Snapshot) -> Board | None:
    if not snapshot.exists("/etc/nv_tegra_release") and snapshot.output(NVPMODEL) is None:
        return None
    modes = _modes(snapshot)
    top = _top_mode(modes)
    return Board(_tegra_release(snapshot), power_mode(snapshot), None if top is None else modes[top], top, clocks_pinned(snapshot))


def _modes(snapshot: Snapshot) -> dict[int, str]:
    told = snapshot.output("cat /etc/nvpmodel.conf") or ""
    return {int(number): name for number, name in re.findall(r"POWER_MODEL +ID=([0-9]{1,3}) +NAME=([\w.-]{1,40})", told)}


def _top_mode(modes: dict[int, str]) -> int | None:
    """MAXN, of whichever kind, lifts every limit; without one the mode of most watts."""
    free = [number for number, name in modes.items() if name.startswith("MAXN")]
    watts = {number: float(found[1]) for number, name in modes.items() if (found := re.search(r"([0-9]+(?:\.[0-9]+)?)W", name))}
    return max(free, key=lambda number: len(modes[number])) if free else max(watts, key=watts.__getitem__, default=None)


def power_mode(snapshot: Snapshot) -> str | None:
    """As `nvpmodel` says, which some releases let only root ask; else by the file in which it keeps the mode's number."""
    found = re.search(r"NV Power Mode: *(\S{1,40})", snapshot.output(NVPMODEL) or "")
    kept = re.search(r"pmode:([0-9]{1,4})", snapshot.text("/var/lib/nvpmodel/status") or "")
    number = int(kept[1]) if kept else None
    if found is None:
        return None if number is None else _modes(snapshot).get(number, str(number))
    return printable(found[1])


def clocks_pinned(snapshot: Snapshot) -> bool | None:
    """Without the GPU this is not to be told: in the smallest modes the cores have but one clock anyway."""
    told = snapshot.output(CLOCKS)
    if told is not None:
        pairs = re.findall(r"^(?:cpu[0-9]+: +Online=1 .*|GPU +)MinFreq=([0-9]+) +MaxFreq=([0-9]+)", told, re.MULTILINE)
        known = bool(re.search(r"^GPU ", told, re.MULTILINE))
    else:
        cores = _ranges(snapshot, f"{CPUS}/cpu[0-9]*/cpufreq/scaling_min_freq")
        gpus = _ranges(snapshot, "/sys/class/devfreq/*.g*/min_freq")
        pairs, known = cores + gpus, bool(gpus)
    return all(low == high for low, high in pairs) if known and pairs else None


def _ranges(snapshot: Snapshot, pattern: str) -> list[tuple[str | None, str | None]]:
    return [(snapshot.text(path), snapshot.text("max_freq".join(path.rsplit("min_freq", 1)))) for path in snapshot.glob(pattern)]


# ----------------------------------------------------------------------------------------------------------------- energy


def energy(snapshot: Snapshot) -> Energy | None:
    """The counters of the processor's packages, else the board's rails; None where there is neither."""
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
