"""The time of each operator inside a running network, by the runtime's own profiler.

The profiler takes some microseconds for each operator, which are part of the times that it reports. What the operators take
together beyond the measured latency of the network is therefore taken off all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.layer import LayerSpec
from profiler.measure.executed import AskedFile

INFERENCES = 100
ROUNDED_DOWN_US = 0.5
"""The profilers report whole microseconds and round down, which takes half of one off on average."""


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator and its part in the latency of the network."""

    operator: ExecutedOperator
    layer: LayerSpec | None
    """What it does; None where the runtime tells no graph."""
    latency_ms: float
    share: float
    """Of the latency of the network."""


def operator_times(asked: AskedFile, whole_ms: float) -> list[OperatorTime]:
    """The operators in the order of execution. `whole_ms` is the latency of the network without a profiler."""
    profiled_ms = [_quick_us(operator) / 1e3 for operator in asked.operators]
    if not profiled_ms:
        return []
    cost_ms = _cost_ms(profiled_ms, whole_ms)
    layers = asked.graph.layers if asked.from_runtime else (None,) * len(profiled_ms)
    found = zip(asked.operators, layers, (max(0.0, value - cost_ms) for value in profiled_ms), strict=True)
    return [OperatorTime(operator, layer, value, value / whole_ms) for operator, layer, value in found]


def _cost_ms(profiled_ms: Sequence[float], whole_ms: float) -> float:
    """What is taken off each operator, but never more than it took, for them to take as long together as the network."""
    cost_ms = 0.0
    while True:
        longer = [value for value in profiled_ms if value > cost_ms]
        found = max(0.0, (sum(longer) - whole_ms) / len(longer)) if longer else cost_ms
        if found <= cost_ms:
            return cost_ms
        cost_ms = found


def _quick_us(operator: ExecutedOperator) -> float:
    """The mean of the quicker half of the samples: disturbances only ever make one longer."""
    samples = np.sort(np.array(operator.samples_us, dtype=np.float64))
    return float(samples[: (len(samples) + 1) // 2].mean()) + ROUNDED_DOWN_US if len(samples) else 0.0
