"""Millijoules of one inference, where the hardware counts them: what a long measurement took, less the idle device's share."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from profiler.protocol.events import Energy, Idle

MEASUREMENT_MS = 1000.0
"""Counters move in steps of a millisecond and more, so a measurement lasts a second."""
ROUNDS = 3


def energies_mj(idle: Sequence[Idle], measurements: Mapping[str, Sequence[Energy]]) -> dict[str, float]:
    """Millijoules of an inference by model: the median over rounds, less what the idle device takes in the same time.

    A model that takes no more than the idle device, as far as the counter can tell, has no entry: nothing is guessed.
    """
    if not idle:
        return {}
    idle_w = statistics.median([watch.power_w for watch in idle])
    found = {}
    for model, energies in measurements.items():
        above_mj = [(item.energy_uj - idle_w * item.duration_ns / 1e3) / item.inferences / 1e3 for item in energies]
        if above_mj and statistics.median(above_mj) > 0:
            found[model] = statistics.median(above_mj)
    return found
