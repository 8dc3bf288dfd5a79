"""What a snapshot of a device says about whether it can be measured well: pure functions, which guess nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from device_agents.support.text import printable
from profiler.devices import boards, cores
from profiler.devices import thermal as heat
from profiler.devices.boards import Board, Energy, Phone
from profiler.devices.snapshot import Snapshot
from profiler.devices.thermal import Battery, Zone

TICKS_PER_S = 100
"""Of the counters in /proc, whatever the kernel's own."""
MOST_PROCESSES = 5
SPELLS = 25


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    name: str
    percent: float
    """Of one core."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device told about itself. None is not readable, but where something else is said."""

    cores: int | None
    affinity: tuple[int, ...] | None
    siblings: tuple[tuple[int, ...], ...] | None
    """Groups of logical processors that share a core."""
    big_cores: tuple[int, ...] | None
    """The fastest; None too where all are alike."""
    governors: tuple[str, ...] | None
    turbo: bool | None
    turbo_file: str
    load_1min: float | None
    busy_percent: float | None
    """Of one core, by all processes while the device was only watched."""
    processes: tuple[Process, ...] | None
    """The busiest, busiest first."""
    steal_percent: float | None
    """Of one core, taken by the host of a virtual machine while it worked."""
    hypervisor: bool | None
    container: str | None
    """Its kind; None where nothing shows that it is one."""
    quota_known: bool
    quota_cores: float | None
    """How many cores' worth of time the control group grants; None for no limit."""
    zones: tuple[Zone, ...] | None
    throttles: int | None
    """How often the processors slowed down for heat while they worked for two seconds."""
    batteries: tuple[Battery, ...] | None
    thermal_status: int | None
    """Android's, 0 (none) to 6 (shutdown); None elsewhere."""
    phone: Phone | None
    """None for what is no Android device."""
    board: Board | None
    """None for what is no Jetson."""
    energy: Energy | None
    """Where its energy is counted; None where nothing counts it."""
    build: str | None
    """What tells one version of its system from another, where it has such a name."""
    speed_ns: tuple[int, ...] | None
    """Times of the same piece of work, one after the other; None where there is no Python to do it."""

    @property
    def speed_change_percent(self) -> float | None:
        """How much longer the work takes in slow spells than in fast ones: their medians' 95th against 5th percentile."""
        if self.speed_ns is None:
            return None
        size = max(1, len(self.speed_ns) // SPELLS)
        spells = sorted(median(self.speed_ns[start : start + size]) for start in range(0, len(self.speed_ns) - size + 1, size))
        trim = len(spells) // 20
        return (spells[-1 - trim] / spells[trim] - 1) * 100

    @property
    def allowed_cores(self) -> int | None:
        return self.cores if self.affinity is None else len(self.affinity)

    @property
    def unreadable(self) -> list[str]:
        named: dict[str, Any] = {
            "number of cores": self.cores,
            "clock governor": self.governors,
            "turbo": self.turbo,
            "temperature": self.zones,
            "battery": self.batteries,
            "load": self.load_1min,
            "other processes": self.processes,
            "steal time": self.steal_percent,
            "whether it is a virtual machine": self.hypervisor,
            "limit of processor time": self.quota_known or None,
            "shared cores": self.siblings,
            "affinity": self.affinity,
            "steadiness of its speed": self.speed_ns,
        }
        if self.phone is not None:
            irrelevant = ("turbo", "steal time", "whether it is a virtual machine")
            named = {name: value for name, value in named.items() if name not in irrelevant}
            named |= {"thermal status": self.thermal_status, "screen": self.phone.screen_on, "battery saver": self.phone.low_power}
        if self.board is not None:
            named |= {"power mode": self.board.power_mode, "jetson_clocks": self.board.clocks_pinned}
        return [name for name, value in named.items() if value is None]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: all but the raw times, which are summed up."""
        plain = asdict(self) | {"speed_change_percent": self.speed_change_percent, "not_readable": self.unreadable}
        return {name: value for name, value in plain.items() if name != "speed_ns"}

    def sentence(self) -> str:
        governor = "not readable" if self.governors is None else "+".join(self.governors)
        load = "not readable" if self.load_1min is None else f"{self.load_1min:.2f}"
        change = self.speed_change_percent
        speed = "whether its speed changes is not readable" if change is None else f"speed changes by {change:.1f} %"
        number = "an unknown number of" if self.cores is None else str(self.cores)
        return f"{number} cores, governor {governor}, load {load}, {speed}"


def facts(quiet: Snapshot, worked: Snapshot | None = None, speed_ns: tuple[int, ...] | None = None) -> Facts:
    """From a snapshot of a device left to itself, and one after it had worked for `speed_ns`."""
    turbo = cores.turbo(quiet)
    quota = granted_cores(quiet)
    throttles = (heat.throttles(quiet), None if worked is None else heat.throttles(worked))
    return Facts(
        cores=cores.count(quiet),
        affinity=cores.allowed(quiet),
        siblings=cores.siblings(quiet),
        big_cores=cores.big_cores(quiet),
        governors=cores.governors(quiet),
        turbo=None if turbo is None else turbo[0],
        turbo_file="" if turbo is None else turbo[1],
        load_1min=load_1min(quiet),
        busy_percent=_percent("busy", _ticks(quiet), _ticks(quiet, again=True)),
        processes=busiest(quiet),
        # a host can only take from a machine that wants to run, so it is looked for while this one works
        steal_percent=None if worked is None else _percent("steal", _ticks(quiet, again=True), _ticks(worked)),
        hypervisor=hypervisor(quiet),
        container=container(quiet),
        quota_known=quota is not None,
        quota_cores=None if not quota else min(quota),
        zones=heat.zones(quiet),
        throttles=None if throttles[0] is None or throttles[1] is None else max(0, throttles[1] - throttles[0]),
        batteries=heat.batteries(quiet),
        thermal_status=heat.thermal_status(quiet),
        phone=boards.phone(quiet),
        board=boards.board(quiet),
        energy=boards.energy(quiet),
        build=boards.build(quiet),
        speed_ns=speed_ns,
    )


# ------------------------------------------------------------------------------------------------------------------- load


def load_1min(snapshot: Snapshot) -> float | None:
    found = re.match(r"[0-9]{1,6}\.[0-9]{1,3}(?= )", snapshot.text("/proc/loadavg") or "")
    return float(found[0]) if found else None


def _uptime_s(snapshot: Snapshot, again: bool) -> float | None:
    found = re.match(r"[0-9]{1,12}\.[0-9]{1,3}(?= )", snapshot.text("/proc/uptime", again=again) or "")
    return float(found[0]) if found else None


def _ticks(snapshot: Snapshot, again: bool = False) -> Mapping[str, float] | None:
    """Of all processors together since the start: busy ones, those that a host took away, and what one core could have had."""
    uptime_s = _uptime_s(snapshot, again)
    found = re.match(r"cpu +((?:[0-9]{1,15} +){7}[0-9]{1,15})", snapshot.text("/proc/stat", again=again) or "")
    if found is None or uptime_s is None:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, found[1].split())
    return {"busy": user + nice + system + irq + softirq, "steal": steal, "core": uptime_s * TICKS_PER_S}


def _percent(name: str, before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> float | None:
    """Of one core."""
    if before is None or after is None or after["core"] <= before["core"]:
        return None
    return 100 * max(0.0, after[name] - before[name]) / (after["core"] - before["core"])


def busiest(snapshot: Snapshot) -> tuple[Process, ...] | None:
    """The processes but our own that took most time between two looks."""
    before, after = _processes(snapshot, again=False), _processes(snapshot, again=True)
    started_s, ended_s = _uptime_s(snapshot, again=False), _uptime_s(snapshot, again=True)
    if not before or not after or started_s is None or ended_s is None or ended_s <= started_s:
        return None
    own = (snapshot.text("/proc/self/stat") or "").partition(" ")[0]
    spent = {pid: ticks - before.get(pid, ("", 0))[1] for pid, (_, ticks) in after.items() if str(pid) != own}
    ranked = sorted((pid for pid in spent if spent[pid] > 0), key=lambda pid: -spent[pid])
    scale = 100 / (TICKS_PER_S * (ended_s - started_s))
    return tuple(Process(pid, printable(after[pid][0], 80), scale * spent[pid]) for pid in ranked[:MOST_PROCESSES])


def _processes(snapshot: Snapshot, again: bool) -> dict[int, tuple[str, int]]:
    """Name and ticks of processor time of every process that can be seen. One may have named itself ') 0 (('."""
    pattern = r"^([0-9]{1,10}) \((.*)\) \S(?: +-?[0-9]+){10} ([0-9]{1,15}) ([0-9]{1,15}) "
    told = snapshot.text("processes", again=again) or ""
    return {int(pid): (name, int(user) + int(system)) for pid, name, user, system in re.findall(pattern, told, re.MULTILINE)}


# ----------------------------------------------------------------------------------------------------------------- limits


def granted_cores(snapshot: Snapshot) -> list[float] | None:
    """How many cores' worth of time each control group of its line grants; empty where nothing limits."""
    limits: list[float] = []
    known = False
    for line in (snapshot.text("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = _mounted(snapshot, controllers)
        known = known or base is not None
        limits += [] if base is None else [found for path in _upwards(base, group) if (found := _granted(snapshot, path))]
    return limits if known else None


def _mounted(snapshot: Snapshot, controllers: str) -> str | None:
    """Where the groups of these controllers are; version 2 of control groups names none and has them all in one place."""
    names = (".", "unified") if controllers == "" else (controllers, "cpu")
    for name in names:
        folder = f"/sys/fs/cgroup/{name}"
        mark = f"{folder.removesuffix('/.')}/cgroup.controllers" if controllers == "" else f"{folder}/cpu.cfs_quota_us"
        if snapshot.exists(mark):
            return folder
    return None


def _granted(snapshot: Snapshot, group: str) -> float | None:
    """'50000 100000' in cpu.max is half a core; 'max 100000', and -1 in version 1, are no limit."""
    text = snapshot.text(f"{group}/cpu.max")
    if text is None:
        text = f"{snapshot.text(f'{group}/cpu.cfs_quota_us')} {snapshot.text(f'{group}/cpu.cfs_period_us')}"
    found = re.fullmatch(r"([1-9][0-9]{0,14}) ([1-9][0-9]{0,14})", text)
    return int(found[1]) / int(found[2]) if found else None


def _upwards(base: str, group: str) -> Iterator[str]:
    """The group's folder and those above it; a container may see its own group as the root."""
    group = group.rstrip("/")
    while group.startswith("/"):
        yield base + group
        group = group.rpartition("/")[0]
    yield base


def hypervisor(snapshot: Snapshot) -> bool | None:
    """Whether this is a virtual machine; on x86 the processor says it, elsewhere only some hypervisors do."""
    flags = re.search(r"^flags\s*:(.*)$", snapshot.text("/proc/cpuinfo") or "", re.MULTILINE)
    if flags:
        return "hypervisor" in flags[1].split()
    marks = ("/sys/hypervisor/type", "/proc/device-tree/hypervisor/compatible")
    return True if any(snapshot.text(mark) for mark in marks) else None


def container(snapshot: Snapshot) -> str | None:
    """The kind of container this is, by the marks that they leave; None where there is no such mark."""
    for mark, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if snapshot.exists(mark):
            return kind
    if named := snapshot.text("/run/systemd/container"):
        return printable(named, 80)
    groups = snapshot.text("/proc/1/cgroup") or ""
    return next((kind for kind in ("docker", "kubepods", "lxc", "containerd") if kind in groups), None)
