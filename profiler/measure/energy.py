"""Joules of one inference, where the hardware counts them: what a long measurement took, less the idle device's share."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

MEASUREMENT_MS = 1000.0
"""Counters move in steps of a millisecond and more, so a measurement lasts a second."""
ROUNDS = 3


def energies_mj(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Millijoules of an inference, by key, from a journal's lines `idle` and `energy`: the median over rounds.

    A model that takes no more than the idle device, as far as the counter can tell, has no entry: nothing is guessed.
    """
    lines = list(lines)
    idle_w = [line["energy_uj"] / line["duration_ns"] * 1e3 for line in lines if line["event"] == "idle"]
    measurements = measurements_in_force(lines)
    if not idle_w:
        return {}
    floor_w = statistics.median(idle_w)
    above: dict[str, list[float]] = {}
    for line in measurements:
        idle_uj = floor_w * line["duration_ns"] / 1e3
        above.setdefault(line["key"], []).append((line["energy_uj"] - idle_uj) / line["inferences"] / 1e3)
    medians = {key: statistics.median(values) for key, values in above.items()}
    return {key: value for key, value in medians.items() if value > 0}


def measurements_in_force(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines `energy` of models that were not begun anew after them."""
    measurements: list[Mapping[str, Any]] = []
    for line in lines:
        if line["event"] == "refresh":
            measurements = [measurement for measurement in measurements if measurement["key"] not in line["keys"]]
        elif line["event"] == "energy":
            measurements.append(line)
    return measurements
