"""A plan for `profile build`: the layers that can price every narrower version of a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from netadapt.errors import RunError
from netadapt.networks.options import NetworkOptions
from profiler.tables.plan import make_plan, possible_layers, write_plan

PRECISIONS = ("float32", "int8")


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The plan that is asked for."""

    network: NetworkOptions
    out: Path
    precision: str = "float32"
    seed: int = 1


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a plan holds."""

    plan: str
    """The path of the plan."""
    blocks: int
    possible_layers: int
    """All layers that narrower versions of the network can consist of."""
    fit: int
    """Networks of random widths that the calibration is fitted on."""
    check: int
    """Networks of random widths that the held-out error is computed from."""


def plan_network(request: PlanRequest) -> PlanSummary:
    """Write the plan. `RunError` for a path or a precision that makes no sense, `NetworkError` for the network."""
    out = request.out
    if out.suffix != ".json" or not out.parent.is_dir():
        raise RunError(f"{out} cannot become a plan: give a name ending in .json in a folder that exists")
    if request.precision not in PRECISIONS:
        raise RunError(f"layers can be measured in {' and '.join(PRECISIONS)}, not in {request.precision!r}")
    made = make_plan(request.network.graph().with_precision(request.precision), seed=request.seed)
    write_plan(made, out)
    return PlanSummary(str(out), len(made.graph.widths), possible_layers(made), len(made.fit), len(made.check))
