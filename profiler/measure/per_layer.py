"""The time of each operator inside a running network, by the runtime's own profiler.

The profiler takes some microseconds for each operator, which are part of the times that it reports. As many are taken off as it
reports for a model of one operator that computes next to nothing. What is left is scaled to the latency of the network without a
profiler, because the device may have run at another speed while it was profiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.graph import Node
from profiler.layers.layer import LayerSpec
from profiler.measure.executed import EMPTY_CALL, AskedFile, executed_nodes
from profiler.measure.state import MeasurementState
from profiler.protocol.events import Executed

INFERENCES = 100
ROUNDED_DOWN_US = 0.5
"""The profilers report whole microseconds and round down, which takes half of one off on average."""


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator and its part in the latency of the network."""

    operator: ExecutedOperator
    layer: LayerSpec | None
    """What it does, or is a part of; None if that is not known."""
    latency_ms: float
    share: float
    """Of the latency of the network."""


def operator_times(asked: AskedFile, whole_ms: float) -> list[OperatorTime]:
    """The operators in the order of execution. `whole_ms` is the latency of the network without a profiler."""
    latencies_ms = inside_ms(asked.answers, asked.empty_call, whole_ms)
    layers: list[LayerSpec | None] = [node.layer for node in asked.nodes]
    found = zip(asked.operators, layers or [None] * len(latencies_ms), latencies_ms, strict=True)
    return [OperatorTime(operator, layer, value, value / whole_ms) for operator, layer, value in found]


def layers_inside(state: MeasurementState, key: str, whole_ms: float) -> list[tuple[Node, float]]:
    """The layers of a network of a build, with their latencies in ms inside it; none where the runtime does not tell them."""
    nodes = executed_nodes(state, key)
    if nodes is None:
        return []
    found: dict[str, tuple[Node, float]] = {}
    latencies_ms = inside_ms(state.executed[key], state.executed.get(EMPTY_CALL, ()), whole_ms)
    for node, latency_ms in zip(nodes, latencies_ms, strict=True):
        _, before_ms = found.get(node.name, (node, 0.0))  # a runtime may execute several operators for one node
        found[node.name] = (node, before_ms + latency_ms)
    return list(found.values())


def inside_ms(answers: Sequence[Executed], empty_call: Sequence[Executed], whole_ms: float) -> list[float]:
    """The latency of each operator inside the running network. All together they take `whole_ms`.

    `answers` are passes of profiled inferences at different times. Of these the quicker half is used.
    """
    passes_us, empty_us = _passes_us(answers), _passes_us(empty_call)
    if not passes_us.size:
        return []
    cost_us = float(empty_us.min()) if empty_us.size else 0.0
    quick = np.argsort(passes_us.sum(axis=1))[: (len(passes_us) + 1) // 2]
    # nothing takes less than half of what is rounded away
    alone_us = np.maximum(passes_us[quick].mean(axis=0) - cost_us, ROUNDED_DOWN_US / 2)
    return [float(value) for value in alone_us * (whole_ms / alone_us.sum())]


def _passes_us(answers: Sequence[Executed]) -> NDArray[np.float64]:
    """Array of shape (pass, operator). Answers without operators, or with others than the first, are left out."""
    told = [answer for answer in answers if answer.operators]
    alike = [answer for answer in told if len(answer.operators) == len(told[0].operators)]
    return np.array([[_quick_us(operator) for operator in answer.operators] for answer in alike])


def _quick_us(operator: ExecutedOperator) -> float:
    """The mean of the quicker half of the samples: disturbances only ever make one longer."""
    samples = np.sort(np.array(operator.samples_us, dtype=np.float64))
    return float(samples[: (len(samples) + 1) // 2].mean()) + ROUNDED_DOWN_US if len(samples) else 0.0
