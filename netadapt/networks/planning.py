"""Plans for `profile build`, whose tables can predict every narrower version of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netadapt.errors import RunError
from netadapt.networks.options import NetworkOptions
from profiler.tables.plan import make_plan, possible_layers, write_plan

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
    """The kinds of operators that follow widths in ONNX files only, so that no table for TFLite can be built."""


def plan_network(request: PlanRequest) -> PlanSummary:
    """Write the plan. `RunError` for an impossible path or precision; `NetworkError` if the network cannot be built or pruned."""
    out = request.out
    if out.suffix != ".json" or not out.parent.is_dir():
        raise RunError(f"the plan cannot be written to {out}; choose a name ending in .json in a folder that exists")
    if request.precision not in PRECISIONS:
        raise RunError(f"layers cannot be measured in {request.precision!r}; choose {' or '.join(PRECISIONS)}")
    traced = request.network.traced()
    made = make_plan(traced.graph.with_precision(request.precision), seed=request.seed)
    write_plan(made, out)
    extracted = tuple(dict.fromkeys(layer.op for layer in made.graph.layers if layer.opaque is not None))
    return PlanSummary(
        str(out), len(made.graph.widths), possible_layers(made), len(made.fit), len(made.check), traced.fixed, extracted
    )  # fmt: skip
