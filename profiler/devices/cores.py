"""The processor cores of a device: their number, the ones that may be used, and the fastest ones."""

from __future__ import annotations

import re

from profiler.devices.snapshot import CORES, CPUS, Snapshot

MOST_CPUS = 4096
SAME_CLUSTER = 0.95
"""Cores at this fraction of the fastest core's speed belong to its cluster.

The cores of one cluster may differ by a few per cent; clusters differ by ten per cent and more.
"""


def cpu_list(text: str | None) -> tuple[int, ...] | None:
    """The numbers in a CPU list of the kernel, such as '0-2,5'; None for any other text."""
    found: list[int] = []
    for part in (text or "").strip().split(","):
        ends = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if ends is None:
            return None
        first = int(ends[1])
        last = int(ends[2] or first)
        if max(first, last) >= MOST_CPUS:
            return None
        found += range(first, last + 1)
    return tuple(found)


def online(snapshot: Snapshot) -> tuple[int, ...] | None:
    """The numbers of the cores that are online; None if they cannot be read."""
    return cpu_list(snapshot.text(f"{CPUS}/online"))


def count(snapshot: Snapshot) -> int | None:
    """The number of cores that are online; None if it cannot be read."""
    cores = online(snapshot)
    if cores is not None:
        return len(cores)
    number = snapshot.output(CORES) or ""
    return int(number) if re.fullmatch(r"[1-9][0-9]{0,3}", number) else None


def allowed(snapshot: Snapshot) -> tuple[int, ...] | None:
    """The cores that are online on which the kernel lets our processes run; None if they cannot be read."""
    found = re.search(r"^Cpus_allowed_list:\s*(\S+)$", snapshot.text("/proc/self/status") or "", re.MULTILINE)
    permitted, present = cpu_list(found[1]) if found else None, online(snapshot)
    if permitted is None or present is None:
        return permitted
    return tuple(cpu for cpu in permitted if cpu in present)


def usable(snapshot: Snapshot) -> int | None:
    """The number of cores on which our processes may run; None if it cannot be read."""
    permitted = allowed(snapshot)
    return count(snapshot) if permitted is None else len(permitted)


def siblings(snapshot: Snapshot) -> tuple[tuple[int, ...], ...] | None:
    """Groups of logical processors that share a physical core, in ascending order; None if they cannot be read."""
    groups = {cpu_list(snapshot.text(path)) for path in snapshot.glob(f"{CPUS}/cpu[0-9]*/topology/thread_siblings_list")}
    if not groups or None in groups:
        return None
    return tuple(sorted(group for group in groups if group is not None))


def governors(snapshot: Snapshot) -> tuple[str, ...] | None:
    """The names of all clock governors in use, each once, in alphabetical order; None if they cannot be read."""
    texts = (snapshot.text(path) for path in snapshot.glob(f"{CPUS}/cpu[0-9]*/cpufreq/scaling_governor"))
    return tuple(sorted({text for text in texts if text})) or None


def turbo(snapshot: Snapshot) -> tuple[bool, str] | None:
    """True if turbo is on, and the file that switches it; None if it cannot be read.

    With turbo, clocks rise above their nominal rate for as long as the temperature allows.
    """
    for name, on in (("intel_pstate/no_turbo", 0), ("cpufreq/boost", 1)):
        value = snapshot.number(f"{CPUS}/{name}")
        if value is not None:
            return value == on, f"{CPUS}/{name}"
    return None


def big_cores(snapshot: Snapshot) -> tuple[int, ...] | None:
    """The cluster of the fastest cores, among those that are online and allowed; None if all are alike or it cannot be read.

    The kernel's `cpu_capacity`, which counts the work of a core in a second, decides first; then the highest clock.
    """
    cores = online(snapshot)
    if cores is None:
        return None
    permitted = allowed(snapshot)
    usable = [cpu for cpu in cores if permitted is None or cpu in permitted]
    fastest = usable
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {cpu: speed for cpu in usable if (speed := snapshot.number(f"{CPUS}/cpu{cpu}/{file}")) is not None}
        # a speed that is missing for one core could be the highest, so such a file decides nothing
        if fastest and all(cpu in speeds for cpu in fastest):
            highest = max(speeds[cpu] for cpu in fastest)
            fastest = [cpu for cpu in fastest if speeds[cpu] >= SAME_CLUSTER * highest]
    return tuple(fastest) if 0 < len(fastest) < len(usable) else None
