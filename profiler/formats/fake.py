"""Models for the runner's fake runtime, which waits instead of computing: simulated devices for tests, opened by name only.

A network costs its layers' simulated latencies and one call; a lone layer pays the call too, as on a real runtime.
"""

from __future__ import annotations

import json
from pathlib import Path

from profiler.errors import ModelError
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec

CALL_NS = 20_000
NS_PER_KILOMAC = 20.0
NS_PER_KILOBYTE = 10.0


def layer_ns(layer: LayerSpec) -> int:
    """The simulated cost of a layer inside a network."""
    return int((layer.macs or 0) / 1e3 * NS_PER_KILOMAC + layer.activation_bytes / 1e3 * NS_PER_KILOBYTE)


def write_fake(graph: Graph, seed: int = 0) -> bytes:
    return json.dumps({"latency_ns": CALL_NS + sum(map(layer_ns, graph.layers))}).encode()


def read_fake(path: Path) -> Graph:
    raise ModelError(f"{path} is a script of the fake runtime, there are no layers in it")
