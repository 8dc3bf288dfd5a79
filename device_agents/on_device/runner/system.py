"""What the operating system tells and grants: the clock, files that may not be readable, the cores to run on."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import resource
import time
from collections.abc import Iterable
from pathlib import Path

CLOCK = getattr(time, "CLOCK_MONOTONIC_RAW", getattr(time, "CLOCK_MONOTONIC", 1))
SCHED_GETCPU = getattr(ctypes.CDLL(None), "sched_getcpu", None)


def clock_ns() -> int:
    """A clock that no time server steps or slews."""
    return time.clock_gettime_ns(CLOCK)


# -------------------------------------------------------------------------------------------------------------------- files


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,18}", text) else None


def numbers(paths: Iterable[Path]) -> list[int] | None:
    """The numbers in those files that can be read; None if there are none."""
    return [value for value in map(read_number, paths) if value is not None] or None


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------------------- cores


def pin(cpus: list[int]) -> None:
    """Keep this process and all its later threads on these cores. SystemExit if the system refuses one."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system cannot keep a process on cores")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as exc:
        raise SystemExit(f"the system does not let this process run on cores {cpus}: {exc.strerror}") from exc
    refused = sorted(set(cpus) - os.sched_getaffinity(0))
    if refused:
        raise SystemExit(f"the system does not let this process run on cores {refused}")


def affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def current_core() -> int | None:
    core = SCHED_GETCPU() if SCHED_GETCPU else -1
    return core if core >= 0 else None


def involuntary_switches() -> int:
    """How often the kernel has preempted this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
