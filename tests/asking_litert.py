"""What LiteRT in this process executes for a .tflite file, asked as the runners ask it (PROTOCOL.md, "The executed graph")."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import ai_edge_litert

from device_agents.on_device.runner.runtimes.litert_profile import LiteRtProfiler
from profiler.layers.executed_operator import ExecutedOperator


@cache
def profiler() -> LiteRtProfiler:
    return LiteRtProfiler(Path(ai_edge_litert.__path__[0], "libLiteRt.so"), threads=1)


def operators_of(file: bytes) -> tuple[ExecutedOperator, ...]:
    """The operators of one profiled inference."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(file)
        (inference,) = profiler().profile(path, seed=1, inferences=1)
    return tuple(
        ExecutedOperator(name=ran.name, op=ran.op, partition=ran.partition, index=ran.index, samples_us=(ran.duration_us,))
        for ran in inference.ran
    )
