"""The cores of a device: which there are, which may be used, and which are the fast ones."""

from __future__ import annotations

import re

from profiler.devices.snapshot import CORES, CPUS, Snapshot

MOST_CPUS = 4096
SAME_CLUSTER = 0.95
"""Of the fastest core's clock. Cores of one cluster may differ by a few per cent; clusters differ by ten and more."""


def cpu_list(text: str | None) -> tuple[int, ...] | None:
    """'0-2,5' as the kernel writes it; None for anything else."""
    found: list[int] = []
    for part in (text or "").strip().split(","):
        ends = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if ends is None or max(first := int(ends[1]), last := int(ends[2] or first)) >= MOST_CPUS:
            return None
        found += range(first, last + 1)
    return tuple(found)


def online(snapshot: Snapshot) -> tuple[int, ...] | None:
    return cpu_list(snapshot.text(f"{CPUS}/online"))


def count(snapshot: Snapshot) -> int | None:
    cores = online(snapshot)
    said = snapshot.output(CORES) or ""
    return len(cores) if cores is not None else int(said) if re.fullmatch(r"[1-9][0-9]{0,3}", said) else None


def allowed(snapshot: Snapshot) -> tuple[int, ...] | None:
    """Those that the kernel lets our processes run on."""
    found = re.search(r"^Cpus_allowed_list:\s*(\S+)$", snapshot.text("/proc/self/status") or "", re.MULTILINE)
    return cpu_list(found[1]) if found else None


def siblings(snapshot: Snapshot) -> tuple[tuple[int, ...], ...] | None:
    """Groups of logical processors that share a core."""
    groups = {cpu_list(snapshot.text(path)) for path in snapshot.glob(f"{CPUS}/cpu[0-9]*/topology/thread_siblings_list")}
    return None if None in groups or not groups else tuple(sorted(group for group in groups if group is not None))


def governors(snapshot: Snapshot) -> tuple[str, ...] | None:
    texts = (snapshot.text(path) for path in snapshot.glob(f"{CPUS}/cpu[0-9]*/cpufreq/scaling_governor"))
    return tuple(sorted({text for text in texts if text})) or None


def turbo(snapshot: Snapshot) -> tuple[bool, str] | None:
    """Whether clocks may rise above their nominal rate for as long as heat allows, and the file that says so."""
    for name, on in (("intel_pstate/no_turbo", 0), ("cpufreq/boost", 1)):
        value = snapshot.number(f"{CPUS}/{name}")
        if value is not None:
            return value == on, f"{CPUS}/{name}"
    return None


def big_cores(snapshot: Snapshot) -> tuple[int, ...] | None:
    """The cluster of the fastest cores, among those that are online and allowed; None if all are alike or it cannot be read.

    By the kernel's measure of what a core can do in a second where every core has one, then by its highest clock.
    """
    there, may = online(snapshot), allowed(snapshot)
    if there is None:
        return None
    cpus = [cpu for cpu in there if may is None or cpu in may]
    capacity = {cpu: snapshot.number(f"{CPUS}/cpu{cpu}/cpu_capacity") for cpu in cpus}
    clock = {cpu: snapshot.number(f"{CPUS}/cpu{cpu}/cpufreq/cpuinfo_max_freq") for cpu in cpus}
    best = _fastest(clock, _fastest(capacity, cpus))
    return tuple(best) if 0 < len(best) < len(cpus) else None


def _fastest(speeds: dict[int, int | None], cpus: list[int]) -> list[int]:
    """All of them where one is not known."""
    known = {cpu: speed for cpu in cpus if (speed := speeds[cpu]) is not None}
    if len(known) < len(cpus) or not known:
        return cpus
    return [cpu for cpu in cpus if known[cpu] >= SAME_CLUSTER * max(known.values())]
