"""Measurements that limit the calibration: an empty call, and heavy layers whose weights are never in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from profiler.latency.calibration import Limits
from profiler.layers.layer import LayerSpec
from profiler.measure.executed import EMPTY_CALL, empty_call
from profiler.measure.loop import MeasurementRun, Model
from profiler.measure.state import MeasurementState
from profiler.protocol.job import Loading

COLD = "cold "
"""Before the key of a layer: the same layer, opened so often that its weights are never in the cache."""
COLD_LAYERS = 6
LEAST_COLD_BYTES = 1 << 15
"""Layers with fewer bytes of weights stay warm whatever is done."""
ROTATED_BYTES = 48 << 20
"""The copies of a layer have so many bytes of weights together, more than the inner caches of any core."""
MOST_COPIES = 64


def limit_models(run: MeasurementRun, layers: Mapping[str, LayerSpec]) -> Iterator[Model]:
    """The models to measure beside `layers`, which are those of the networks by key: an empty call, and some of them cold."""
    if not run.session.tells_executed:
        return
    yield empty_call(run)
    heavy = [key for key, layer in layers.items() if layer.weight_bytes >= LEAST_COLD_BYTES and key in run.models]
    # the heaviest, the lightest and some between: what a byte costs depends on the kernel that reads it
    ranked = sorted(heavy, key=lambda key: (layers[key].weight_bytes, key))
    for key in ranked[:: max(1, len(ranked) // COLD_LAYERS)][:COLD_LAYERS]:
        copies = min(MOST_COPIES, max(2, ROTATED_BYTES // layers[key].weight_bytes))
        yield Model(COLD + key, run.models[key].file, None, Loading(run.models[key].loading.as_it_is, copies))


def limits_of(state: MeasurementState) -> Limits:
    """What these measurements say; no limits where they are missing."""
    found = state.estimates(key for key in state.measurements if key == EMPTY_CALL or key.startswith(COLD))
    warm = state.estimates(key.removeprefix(COLD) for key in found if key.startswith(COLD))
    call_ms = found[EMPTY_CALL].latency_ms.value if EMPTY_CALL in found else 0.0
    per_byte = [
        max(0.0, found[COLD + key].latency_ms.value - estimate.latency_ms.value) / state.layers[key].weight_bytes
        for key, estimate in warm.items()
        if key in state.layers and COLD + key in found
    ]
    return Limits(call_ms, max(per_byte, default=math.inf))
