"""What would disturb a measurement here: the state of this device's clocks, load, limits and heat, and how steady its speed is.

    python conditions.py            look for about four seconds and say it in one JSON line on standard output

It is pushed to the device and run there, never imported by the host. It needs nothing but the standard library and Python 3.8.
It judges nothing and guesses nothing: what cannot be read is null, and the host says so. It needs no rights but to read.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Iterable  # noqa: UP035  Python 3.8

PROTOCOL = 1
WATCH_S = 1.0
"""How long other processes are watched, while this one sleeps."""
SPEED_S = 2.0
SAMPLE_NS = 2000000
"""The arithmetic loop is made to last about this long: short against a spell of noise, long against a look at the clock."""
MOST_PROCESSES = 5
CPUS = "sys/devices/system/cpu"


# ------------------------------------------------------------------------------------------------------------------- files


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def listing(path: Path, pattern: str) -> list[Path] | None:
    """Sorted; None where the folder itself cannot be read."""
    try:
        if not path.is_dir():
            return None
        return sorted(path.glob(pattern))
    except OSError:
        return None


def cpu_list(text: str) -> list[int]:
    """'0-2,5' as the kernel writes it."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


# ------------------------------------------------------------------------------------------------------------------ clocks


def governors(root: Path) -> list[str] | None:
    paths = listing(root / CPUS, "cpu[0-9]*/cpufreq/scaling_governor") or []
    return sorted({text for text in map(read_text, paths) if text}) or None


def turbo(root: Path) -> dict[str, Any] | None:
    """Whether clocks may rise above their nominal rate for as long as heat allows, and the file that says so."""
    for name, on in (("intel_pstate/no_turbo", 0), ("cpufreq/boost", 1)):
        value = read_number(root / CPUS / name)
        if value is not None:
            return {"enabled": value == on, "file": f"/{CPUS}/{name}"}
    return None


def siblings(root: Path) -> list[list[int]] | None:
    """Groups of logical processors that share a core."""
    paths = listing(root / CPUS, "cpu[0-9]*/topology/thread_siblings_list") or []
    try:
        groups = {tuple(cpu_list(text)) for text in map(read_text, paths) if text}
    except ValueError:
        return None
    return sorted(list(group) for group in groups) or None


# -------------------------------------------------------------------------------------------------------------------- heat


def zones(root: Path) -> list[dict[str, Any]] | None:
    """Each thermal zone's temperature, and the lowest at which something is done about it; None where no zone can be read."""
    found = []
    for path in listing(root / "sys/class/thermal", "thermal_zone*") or []:
        temperature = read_number(path / "temp")
        if temperature is not None:
            found.append(
                {
                    "name": read_text(path / "type") or path.name,
                    "temperature_c": temperature / 1000,
                    "limit_c": _lowest_trip_c(path),
                }
            )
    return found or None


def _lowest_trip_c(zone: Path) -> float | None:
    limits = []
    for path in listing(zone, "trip_point_*_type") or []:
        limit = read_number(zone / path.name.replace("_type", "_temp"))
        if read_text(path) in ("passive", "hot", "critical") and limit is not None and limit > 0:
            limits.append(limit / 1000)
    return min(limits) if limits else None


def throttles(root: Path) -> int | None:
    """How often the processors have slowed themselves down for heat since the start; Intel's count."""
    counts = [read_number(path) for path in listing(root / CPUS, "cpu[0-9]*/thermal_throttle/core_throttle_count") or []]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def batteries(root: Path) -> list[dict[str, Any]] | None:
    """The device's own, not those of a mouse; none is an empty list, None is not readable."""
    supplies = listing(root / "sys/class/power_supply", "*")
    if supplies is None:
        return None
    return [
        {"name": path.name, "status": read_text(path / "status"), "charge_percent": read_number(path / "capacity")}
        for path in supplies
        if read_text(path / "type") == "Battery" and read_text(path / "scope") != "Device"
    ]


# ------------------------------------------------------------------------------------------------------------------ limits


def quota(root: Path) -> dict[str, Any] | None:
    """How many cores' worth of time the control group grants, the strictest of its line; `cores` is null where nothing limits."""
    limits: list[float] = []
    known = False
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = _mounted(root / "sys/fs/cgroup", controllers)
        known = known or base is not None
        limits += [] if base is None else [cores for cores in map(_granted, _upwards(base, path)) if cores is not None]
    return {"cores": min(limits) if limits else None} if known else None


def _mounted(folder: Path, controllers: str) -> Path | None:
    """Where the groups of these controllers are; version 2 of control groups names none and has them all in one place."""
    names = (".", "unified") if controllers == "" else (controllers, "cpu")
    mark = "cgroup.controllers" if controllers == "" else "cpu.cfs_quota_us"
    found = [folder / name for name in names if (folder / name / mark).exists()]
    return found[0] if found else None


def _granted(group: Path) -> float | None:
    """'50000 100000' in cpu.max is half a core; 'max 100000', and -1 in version 1, are no limit."""
    text = read_text(group / "cpu.max")
    if text is None:
        text = "{} {}".format(read_text(group / "cpu.cfs_quota_us"), read_text(group / "cpu.cfs_period_us"))
    granted, _, period = text.partition(" ")
    return int(granted) / int(period) if granted.isdigit() and period.isdigit() and int(granted) and int(period) else None


def _upwards(base: Path, path: str) -> Iterable[Path]:
    """The group's folder and those above it; a container may see its own group as the root."""
    folder = base / path.strip("/")
    while folder != base:
        yield folder
        folder = folder.parent
    yield base


def hypervisor(root: Path) -> bool | None:
    """Whether this is a virtual machine; on x86 the processor says it, elsewhere only some hypervisors do."""
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return "hypervisor" in value.split()
    marks = ("sys/hypervisor/type", "proc/device-tree/hypervisor/compatible")
    return True if any(read_text(root / mark) for mark in marks) else None


def container(root: Path) -> str | None:
    """The kind of container this is, by the marks that they leave; None where there is no such mark."""
    for mark, kind in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / mark).exists():
            return kind
    named = read_text(root / "run/systemd/container")
    if named:
        return named
    groups = read_text(root / "proc/1/cgroup") or ""
    return next((kind for kind in ("docker", "kubepods", "lxc", "containerd") if kind in groups), None)


def affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


# -------------------------------------------------------------------------------------------------------------------- load


def load_1min(root: Path) -> float | None:
    text = read_text(root / "proc/loadavg")
    try:
        return float(text.split()[0]) if text else None
    except ValueError:
        return None


def ticks(root: Path) -> dict[str, int] | None:
    """Of all processors together since the start: busy ones, and those that the host of this virtual machine took away."""
    for line in (read_text(root / "proc/stat") or "").splitlines():
        name, *values = line.split()
        if name == "cpu" and len(values) >= 8 and all(value.isdigit() for value in values):
            user, nice, system, _, _, irq, softirq, steal = map(int, values[:8])
            return {"busy": user + nice + system + irq + softirq, "steal": steal}
    return None


def processes(root: Path) -> dict[int, tuple[str, int]] | None:
    """Name and ticks of processor time of every process that can be seen."""
    found = {}
    for path in listing(root / "proc", "[0-9]*/stat") or []:
        text = read_text(path)
        before, _, after = (text or "").rpartition(")")  # a process may have named itself ') 0 (('
        fields = after.split()
        if len(fields) > 12 and fields[11].isdigit() and fields[12].isdigit():
            found[int(path.parent.name)] = (before.partition("(")[2], int(fields[11]) + int(fields[12]))
    return found or None


def busiest(
    before: dict[int, tuple[str, int]], after: dict[int, tuple[str, int]], ticks_per_core: float, own: int
) -> list[dict[str, Any]]:
    """The processes but this one that took most time between two looks; 100 per cent is one core."""
    spent = {pid: count - before.get(pid, (name, 0))[1] for pid, (name, count) in after.items() if pid != own}
    ranked = sorted((pid for pid in spent if spent[pid] > 0), key=lambda pid: -spent[pid])
    return [{"pid": pid, "name": after[pid][0], "percent": 100 * spent[pid] / ticks_per_core} for pid in ranked[:MOST_PROCESSES]]


def watch(root: Path, watch_s: float) -> dict[str, Any]:
    """What the others do while this process sleeps."""
    hertz = os.sysconf("SC_CLK_TCK")
    started, ticks_before, before = time.monotonic(), ticks(root), processes(root)
    time.sleep(watch_s)
    ticks_after, after, elapsed_s = ticks(root), processes(root), time.monotonic() - started
    return {
        "busy_percent": _percent(ticks_before, ticks_after, "busy", elapsed_s * hertz),
        "processes": None if before is None or after is None else busiest(before, after, elapsed_s * hertz, os.getpid()),
    }


def _percent(before: dict[str, int] | None, after: dict[str, int] | None, name: str, ticks_per_core: float) -> float | None:
    """Of one core."""
    return None if before is None or after is None else 100 * max(0, after[name] - before[name]) / ticks_per_core


# ------------------------------------------------------------------------------------------------------------------- speed


def clock_ns() -> int:
    """A clock that no time server steps or slews."""
    return time.clock_gettime_ns(CLOCK)


CLOCK = getattr(time, "CLOCK_MONOTONIC_RAW", getattr(time, "CLOCK_MONOTONIC", 1))


def work(loops: int) -> int:
    """The same arithmetic each time; returns the nanoseconds it took."""
    before, value = clock_ns(), 1
    for _ in range(loops):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return clock_ns() - before


def speed(speed_s: float) -> list[int]:
    """Nanoseconds of the same work, again and again for so long."""
    gc.disable()
    loops = 1000
    while min(work(loops) for _ in range(3)) < SAMPLE_NS:
        loops *= 2
    samples_ns, started = [work(loops)], clock_ns()
    while clock_ns() - started < speed_s * 1e9:
        samples_ns.append(work(loops))
    gc.enable()
    return samples_ns


def conditions(root: Path, watch_s: float, speed_s: float) -> dict[str, Any]:
    """Everything, read below `root`."""
    load = load_1min(root)  # before this program adds to it
    seen = watch(root, watch_s)
    hertz = os.sysconf("SC_CLK_TCK")
    started, ticks_before, throttles_before = time.monotonic(), ticks(root), throttles(root)
    samples_ns = speed(speed_s)
    elapsed_s, ticks_after, throttles_after = time.monotonic() - started, ticks(root), throttles(root)
    return {
        "cores": os.cpu_count(),
        "affinity": affinity(),
        "siblings": siblings(root),
        "governors": governors(root),
        "turbo": turbo(root),
        "load_1min": load,
        "busy_percent": seen["busy_percent"],
        "processes": seen["processes"],
        # a hypervisor can only take from a machine that wants to run, so it is looked for while this one works
        "steal_percent": _percent(ticks_before, ticks_after, "steal", elapsed_s * hertz),
        "hypervisor": hypervisor(root),
        "container": container(root),
        "quota": quota(root),
        "zones": zones(root),
        "throttles": None if throttles_before is None or throttles_after is None else throttles_after - throttles_before,
        "batteries": batteries(root),
        "speed_ns": samples_ns,
    }


if __name__ == "__main__":
    found = conditions(Path("/"), WATCH_S, SPEED_S)
    sys.stdout.write(json.dumps(dict(found, event="doctor", protocol=PROTOCOL), separators=(",", ":")) + "\n")
