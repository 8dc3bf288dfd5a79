"""Plans for `profile build`, whose tables can predict every narrower version of a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netadapt.errors import RunError
from netadapt.networks.options import NetworkOptions
from netadapt.users_code import short_name
from profiler.errors import ModelError
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.tables.plan import make_plan, possible_layers, write_plan

if TYPE_CHECKING:
    from netadapt.networks.dry_run import Tried

PRECISIONS = ("float32", "int8")


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The plan to write."""

    network: NetworkOptions
    out: Path
    """The plan's path, which ends in .json."""
    precision: str = "float32"
    """The data type that the layers compute in: float32 or int8."""
    seed: int = 1
    dry_run: bool = True
    """Whether the whole way of a run is tried before."""


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """The contents of a plan in numbers."""

    plan: str
    """The path of the plan."""
    blocks: int
    """The network's coupling groups."""
    possible_layers: int
    """All layers that narrower versions of the network can consist of."""
    fit: int
    """Networks of random widths that the calibration is fitted on."""
    check: int
    """Networks of random widths that the held-out error is computed from."""
    kept: Mapping[str, str]
    """The layers that keep their widths, with the reason of each as a phrase."""
    onnx_only: tuple[str, ...]
    """The kinds of operators that only ONNX files have, so that no table for TFLite can be built."""
    remarks: tuple[str, ...]
    """What was done to the network so that it can be pruned, and which of its outputs is scored and trained: whole sentences."""
    tried: tuple[Tried, ...]
    """The tracing and the dry run of the whole way, if there was one."""


def plan_network(request: PlanRequest) -> PlanSummary:
    """Write the plan. `RunError` for an impossible path or precision; `NetworkError` if the network cannot be built or pruned."""
    from netadapt.networks.dry_run import Tried, dry_run, train_once
    from netadapt.networks.scored import outputs_of

    out = request.out
    if out.suffix != ".json" or not out.parent.is_dir():
        raise RunError(f"the plan cannot be written to {out}; choose a name ending in .json in a folder that exists")
    if request.precision not in PRECISIONS:
        raise RunError(f"layers cannot be measured in {request.precision!r}; choose {' or '.join(PRECISIONS)}")
    network, name = request.network, short_name(request.network.name)
    start = time.monotonic()
    plain = network.plain()
    n, _, *pixels = network.input_shapes[0]
    fitting = ((n, network.classes), (n, 1, *pixels))  # of a classifier, or of an image of depths
    outputs = outputs_of(
        plain.model, network.input_shapes, name, network.output, lambda shape: shape in fitting or not network.classes
    )
    if outputs.scored is None:  # which output another task needs is the run's matter
        outputs = outputs_of(plain.model, network.input_shapes, name, network.output, lambda _shape: True)
    traced = network.traced(plain.model)
    tried = [Tried("traced", time.monotonic() - start)]
    if request.dry_run:
        tried += dry_run(network, plain.model, traced.graph, train_once(network.input_shapes))
    made = make_plan(traced.graph.with_precision(request.precision), seed=request.seed)
    write_plan(made, out)
    onnx_only = dict.fromkeys(layer.op for layer in made.graph.layers if not _is_in_tflite(layer, made.graph))
    return PlanSummary(
        str(out), len(made.graph.widths), possible_layers(made), len(made.fit), len(made.check), traced.fixed, tuple(onnx_only),
        (*plain.remarks, *outputs.lines()), tuple(tried),
    )  # fmt: skip


def _is_in_tflite(layer: LayerSpec, graph: Graph) -> bool:
    from profiler.formats.tflite.writer import not_supported  # slow to import, and not needed by other commands

    if layer.opaque is None:
        return not_supported(layer) is None
    try:
        FORMATS["tflite"].write(Graph.of_layer(layer, graph.opaques))
    except ModelError:
        return False
    return True
