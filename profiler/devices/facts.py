"""The facts in a snapshot of a device that decide how well it can be measured. A fact that cannot be read is never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
"""The unit of the counters in /proc is always 1/100 s (USER_HZ), whatever the kernel's own tick is."""
MOST_PROCESSES = 5
SPELLS = 25
"""The number of groups into which the times of `Facts.speed_change_percent` are divided."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has used processor time."""

    pid: int
    name: str
    percent: float
    """Its processor time in per cent of one core."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a device. A field is None if it cannot be read, unless its description says otherwise."""

    # the processor
    cores: int | None
    """The number of cores that are online."""
    affinity: tuple[int, ...] | None
    """The cores on which our processes may run."""
    siblings: tuple[tuple[int, ...], ...] | None
    """Groups of logical processors that share a physical core."""
    big_cores: tuple[int, ...] | None
    """The fastest cores. None also if all are alike."""
    governors: tuple[str, ...] | None
    """The clock governors in use."""
    turbo: bool | None
    turbo_file: str
    """The file that switches turbo; empty if there is none."""

    # other work on the device
    load_1min: float | None
    """The load average over the last minute."""
    busy_percent: float | None
    """The processor time of all processes while the device was only watched, in per cent of one core."""
    processes: tuple[Process, ...] | None
    """The busiest processes, the busiest one first."""

    # virtual machines and containers
    steal_percent: float | None
    """The time that the host of a virtual machine took away while it worked, in per cent of one core."""
    hypervisor: bool | None
    """True if the device is a virtual machine."""
    container: str | None
    """The kind of container that the device is; None if nothing shows that it is one."""
    quota_known: bool
    """True if the limits of the control groups can be read."""
    quota_cores: float | None
    """The processor time that the control groups grant, in cores; None for no limit."""

    # temperature and power
    zones: tuple[Zone, ...] | None
    throttles: int | None
    """The number of times that the cores throttled for heat during two seconds of work."""
    batteries: tuple[Battery, ...] | None
    thermal_status: int | None
    """Android's thermal status from 0 (none) to 6 (shutdown); None on other devices."""

    # kinds of devices
    phone: Phone | None
    """The facts of an Android device; None for other devices."""
    board: Board | None
    """The facts of a Jetson board; None for other devices."""
    energy: Energy | None
    """The energy counters; None if there are none."""
    build: str | None
    """The version of the whole system, on devices that have such a name."""

    speed_ns: tuple[int, ...] | None
    """The times of the same piece of work, one after the other, in nanoseconds; None if it could not be timed."""
    speed_obstacle: str | None = None
    """Why the work could not be timed, and what to do; None if it was, and on a device without a Python interpreter."""

    @property
    def speed_change_percent(self) -> float | None:
        """The additional time that the work takes in slow periods, in per cent of its time in fast ones.

        The times are divided into 25 periods; the 95th percentile of their medians is compared with the 5th.
        """
        if self.speed_ns is None:
            return None
        # medians of periods, because a single interruption is no change of speed
        size = max(1, len(self.speed_ns) // SPELLS)
        spells = sorted(median(self.speed_ns[start : start + size]) for start in range(0, len(self.speed_ns) - size + 1, size))
        trim = len(spells) // 20
        return (spells[-1 - trim] / spells[trim] - 1) * 100

    @property
    def allowed_cores(self) -> int | None:
        """The number of cores on which our processes may run."""
        return self.cores if self.affinity is None else len(self.affinity)

    @property
    def unreadable(self) -> list[str]:
        """The names of all facts that this kind of device should have and that could not be read."""
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
            # phones are neither virtual machines nor have a turbo switch
            irrelevant = ("turbo", "steal time", "whether it is a virtual machine")
            named = {name: value for name, value in named.items() if name not in irrelevant}
            named |= {"thermal status": self.thermal_status, "screen": self.phone.screen_on, "battery saver": self.phone.low_power}
        if self.board is not None:
            named |= {"power mode": self.board.power_mode, "jetson_clocks": self.board.clocks_pinned}
        return [name for name, value in named.items() if value is None]

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready; `speed_change_percent` stands for the raw times."""
        plain = asdict(self) | {"speed_change_percent": self.speed_change_percent, "not_readable": self.unreadable}
        return {name: value for name, value in plain.items() if name != "speed_ns"}

    def sentence(self) -> str:
        """A summary in one line."""
        governor = "not readable" if self.governors is None else "+".join(self.governors)
        load = "not readable" if self.load_1min is None else f"{self.load_1min:.2f}"
        change = self.speed_change_percent
        speed = "whether its speed changes is not readable" if change is None else f"speed changes by {change:.1f} %"
        number = "an unknown number of" if self.cores is None else str(self.cores)
        return f"{number} cores, governor {governor}, load {load}, {speed}"


def facts(
    quiet: Snapshot,
    worked: Snapshot | None = None,
    speed_ns: tuple[int, ...] | None = None,
    speed_obstacle: str | None = None,
) -> Facts:
    """The facts in a snapshot of the device at rest.

    `worked` is a snapshot after the work that took `speed_ns`: it shows throttling, and the time that a host takes away from a
    virtual machine. Both are None if the work could not be done.
    """
    turbo = cores.turbo(quiet)
    quota = granted_cores(quiet)
    throttles = None
    if worked is not None:
        before = heat.throttles(quiet)
        after = heat.throttles(worked)
        if before is not None and after is not None:
            throttles = max(0, after - before)
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
        # a host can take time only from a machine that wants to run, so steal time is read while this one works
        steal_percent=None if worked is None else _percent("steal", _ticks(quiet, again=True), _ticks(worked)),
        hypervisor=hypervisor(quiet),
        container=container(quiet),
        quota_known=quota is not None,
        quota_cores=None if not quota else min(quota),
        zones=heat.zones(quiet),
        throttles=throttles,
        batteries=heat.batteries(quiet),
        thermal_status=heat.thermal_status(quiet),
        phone=boards.phone(quiet),
        board=boards.board(quiet),
        energy=boards.energy(quiet),
        build=boards.build(quiet),
        speed_ns=speed_ns,
        speed_obstacle=speed_obstacle,
    )


# ------------------------------------------------------------------------------------------------------------------- load


def load_1min(snapshot: Snapshot) -> float | None:
    """The load average over the last minute; None if it cannot be read."""
    found = re.match(r"[0-9]{1,6}\.[0-9]{1,3}(?= )", snapshot.text("/proc/loadavg") or "")
    return float(found[0]) if found else None


def _uptime_s(snapshot: Snapshot, again: bool) -> float | None:
    found = re.match(r"[0-9]{1,12}\.[0-9]{1,3}(?= )", snapshot.text("/proc/uptime", again=again) or "")
    return float(found[0]) if found else None


def _ticks(snapshot: Snapshot, again: bool = False) -> Mapping[str, float] | None:
    """Ticks since the start: `busy` and `steal` of all cores together, and `core`, which is all the time of one core."""
    uptime_s = _uptime_s(snapshot, again)
    found = re.match(r"cpu +((?:[0-9]{1,15} +){7}[0-9]{1,15})", snapshot.text("/proc/stat", again=again) or "")
    if found is None or uptime_s is None:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, found[1].split())
    return {"busy": user + nice + system + irq + softirq, "steal": steal, "core": uptime_s * TICKS_PER_S}


def _percent(name: str, before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> float | None:
    """The increase of a counter between two readings, in per cent of one core."""
    if before is None or after is None or after["core"] <= before["core"]:
        return None
    return 100 * max(0.0, after[name] - before[name]) / (after["core"] - before["core"])


def busiest(snapshot: Snapshot) -> tuple[Process, ...] | None:
    """The processes, apart from our own, that used most processor time between the two readings; None if it cannot be read."""
    before = _processes(snapshot, again=False)
    after = _processes(snapshot, again=True)
    started_s = _uptime_s(snapshot, again=False)
    ended_s = _uptime_s(snapshot, again=True)
    if not before or not after or started_s is None or ended_s is None or ended_s <= started_s:
        return None
    own_pid = (snapshot.text("/proc/self/stat") or "").partition(" ")[0]
    # a process that started in between has used no time before
    spent = {pid: ticks - before.get(pid, ("", 0))[1] for pid, (_, ticks) in after.items() if str(pid) != own_pid}
    ranked = sorted((pid for pid in spent if spent[pid] > 0), key=lambda pid: -spent[pid])
    percent_per_tick = 100 / (TICKS_PER_S * (ended_s - started_s))
    return tuple(Process(pid, printable(after[pid][0], 80), percent_per_tick * spent[pid]) for pid in ranked[:MOST_PROCESSES])


def _processes(snapshot: Snapshot, again: bool) -> dict[int, tuple[str, int]]:
    """The name and the processor time in ticks of every visible process, by pid (proc_pid_stat(5))."""
    # the name ends at the last parenthesis of the line: a process may call itself ') 0 (('
    pattern = r"^([0-9]{1,10}) \((.*)\) \S(?: +-?[0-9]+){10} ([0-9]{1,15}) ([0-9]{1,15}) "
    lines = snapshot.text("processes", again=again) or ""
    return {int(pid): (name, int(user) + int(system)) for pid, name, user, system in re.findall(pattern, lines, re.MULTILINE)}


# ----------------------------------------------------------------------------------------------------------------- limits


def granted_cores(snapshot: Snapshot) -> list[float] | None:
    """The limits of processor time, in cores, of all control groups that we are in; empty for no limit, None if unreadable."""
    limits: list[float] = []
    readable = False
    for line in (snapshot.text("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = _cgroup_root(snapshot, controllers)
        if base is None:
            continue
        readable = True
        # a limit of any group above ours counts too; a container may see its own group as the root
        group = group.rstrip("/")
        folders = [base]
        while group.startswith("/"):
            folders.insert(-1, base + group)
            group = group.rpartition("/")[0]
        for folder in folders:
            text = snapshot.text(f"{folder}/cpu.max")
            if text is None:
                text = f"{snapshot.text(f'{folder}/cpu.cfs_quota_us')} {snapshot.text(f'{folder}/cpu.cfs_period_us')}"
            # '50000 100000' is half a core; 'max 100000', and a quota of -1 in version 1, are no limit
            found = re.fullmatch(r"([1-9][0-9]{0,14}) ([1-9][0-9]{0,14})", text)
            if found is not None:
                limits.append(int(found[1]) / int(found[2]))
    return limits if readable else None


def _cgroup_root(snapshot: Snapshot, controllers: str) -> str | None:
    """The folder of the control groups with these controllers; version 2 names no controllers and has one folder for all."""
    names = (".", "unified") if controllers == "" else (controllers, "cpu")
    for name in names:
        folder = f"/sys/fs/cgroup/{name}"
        mark = f"{folder.removesuffix('/.')}/cgroup.controllers" if controllers == "" else f"{folder}/cpu.cfs_quota_us"
        if snapshot.exists(mark):
            return folder
    return None


def hypervisor(snapshot: Snapshot) -> bool | None:
    """True if the device is a virtual machine; None if that is unknown."""
    # on x86 the processor reports it; elsewhere only some hypervisors leave a mark
    flags = re.search(r"^flags\s*:(.*)$", snapshot.text("/proc/cpuinfo") or "", re.MULTILINE)
    if flags:
        return "hypervisor" in flags[1].split()
    marks = ("/sys/hypervisor/type", "/proc/device-tree/hypervisor/compatible")
    return True if any(snapshot.text(mark) for mark in marks) else None


def container(snapshot: Snapshot) -> str | None:
    """The kind of container that the device is, by the marks that containers leave; None if there is no such mark."""
    for mark, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if snapshot.exists(mark):
            return kind
    if named := snapshot.text("/run/systemd/container"):
        return printable(named, 80)
    groups = snapshot.text("/proc/1/cgroup") or ""
    return next((kind for kind in ("docker", "kubepods", "lxc", "containerd") if kind in groups), None)
