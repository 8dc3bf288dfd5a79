"""Networks of width multipliers: every block of the original narrower by the same factor."""

from __future__ import annotations

from netadapt.baselines.match import Match, Widths
from netadapt.errors import NetAdaptError
from netadapt.runs.records import Choice
from profiler.layers.channels import nearest, possible_widths
from profiler.layers.graph import Graph

SHAPE = "even"
"""The `shape` of the baselines that are such networks."""
MULTIPLIER_STEP = 0.005
"""The difference between two multipliers that are tried."""


def as_fast_as_step(match: Match) -> Choice:
    """The network of a multiplier whose measured latency is nearest to the step's. `NetAdaptError` if no block can be narrower."""
    networks = {f"{multiplier:.3g}": widths for multiplier, widths in multipliers(match.models.run.graph)}
    if not networks:
        raise NetAdaptError(f"{match.models.run.graph.name} has no block that can be narrower; compare it with --kind scratch")
    return match.nearest(SHAPE, networks)


def multipliers(graph: Graph) -> list[tuple[float, Widths]]:
    """The networks of multipliers below 1, the widest first, each with the largest multiplier that makes it.

    Widths are multiples of eight channels; those of blocks with grouped convolutions are divisible by the groups, too.
    """
    found: dict[tuple[int, ...], float] = {}
    choices = possible_widths(graph, 8)
    for count in range(1, round(1 / MULTIPLIER_STEP)):
        multiplier = 1 - count * MULTIPLIER_STEP
        widths = tuple(nearest(choices[block], full * multiplier) for block, full in graph.widths.items())
        if widths != tuple(graph.widths.values()):
            found.setdefault(widths, multiplier)
    return [(multiplier, dict(zip(graph.widths, widths, strict=True))) for widths, multiplier in found.items()]
