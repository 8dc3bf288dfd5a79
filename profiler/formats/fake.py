"""Models of the fake runtime, which waits instead of computing. They simulate devices in tests.

The latency of a network is the sum of the simulated latencies of its layers, plus the cost of one call. A single layer pays for the
call too, as it does in a real runtime.
"""

from __future__ import annotations

import json
from pathlib import Path

from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec

CALL_NS = 20_000
"""The simulated cost of one call of the runtime, in nanoseconds."""
NS_PER_KILOMAC = 20.0
NS_PER_KILOBYTE = 10.0


def layer_ns(layer: LayerSpec) -> int:
    """The simulated latency of a layer inside a network, in nanoseconds."""
    return int((layer.macs or 0) / 1e3 * NS_PER_KILOMAC + layer.activation_bytes / 1e3 * NS_PER_KILOBYTE)


def write_fake(graph: Graph, seed: int = 0) -> bytes:
    """The JSON script of a network for the fake runtime. It has no weights, so the seed is not used."""
    return json.dumps({"latency_ns": CALL_NS + sum(map(layer_ns, graph.layers))}).encode()


def read_fake(path: Path, given: Given = NOTHING) -> Graph:
    """Raises `ModelError`, because such a script contains no layers."""
    raise ModelError(f"{path} is a script of the fake runtime and contains no layers; give an ONNX or TFLite file")
