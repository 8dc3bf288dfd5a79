"""How steady this device's speed is: the same arithmetic again and again, timed.

    python conditions.py            work for about two seconds and print the times in one JSON line

It is pushed to the device and run there, never imported by the host. It needs nothing but the standard library and Python 3.8. The
host judges the times. What else it wants to know it reads without Python: see profiler/devices/snapshot.py.
"""

from __future__ import annotations

import gc
import json
import sys
import time

PROTOCOL = 2
SPEED_S = 2.0
SAMPLE_NS = 2000000
"""The time of one sample: short compared with a spell of noise, long compared with reading the clock."""


def clock_ns() -> int:
    """A clock that no time server steps or slews."""
    return time.clock_gettime_ns(CLOCK)


CLOCK = getattr(time, "CLOCK_MONOTONIC_RAW", getattr(time, "CLOCK_MONOTONIC", 1))


def work(loops: int) -> int:
    """Do the same arithmetic each time; returns the nanoseconds it took."""
    before, value = clock_ns(), 1
    for _ in range(loops):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return clock_ns() - before


def speed(speed_s: float) -> list[int]:
    """Nanoseconds of each of many equal pieces of work, done for `speed_s` seconds."""
    gc.disable()
    loops = 1000
    while min(work(loops) for _ in range(3)) < SAMPLE_NS:
        loops *= 2
    samples_ns, started = [work(loops)], clock_ns()
    while clock_ns() - started < speed_s * 1e9:
        samples_ns.append(work(loops))
    gc.enable()
    return samples_ns


if __name__ == "__main__":
    found = {"event": "speed", "protocol": PROTOCOL, "speed_ns": speed(SPEED_S)}
    sys.stdout.write(json.dumps(found, separators=(",", ":")) + "\n")
