"""Networks that are made thinner evenly: every block by the same factor."""

from __future__ import annotations

from netadapt.baselines.match import Match, Widths
from netadapt.errors import NetAdaptError
from netadapt.runs.records import Choice
from profiler.layers.channels import nearest, possible_widths
from profiler.layers.graph import Graph

SHAPE = "even"
MULTIPLIER_STEP = 0.005


def as_fast_as_step(match: Match) -> Choice:
    """The multiplier whose network is measured nearest to the step."""
    networks = {f"{multiplier:.3g}": widths for multiplier, widths in multipliers(match.models.run.graph)}
    if not networks:
        raise NetAdaptError(f"{match.models.run.graph.name} cannot be made thinner: every block is at its narrowest")
    return match.nearest(SHAPE, networks)


def multipliers(graph: Graph) -> list[tuple[float, Widths]]:
    """Every network that a width multiplier below 1 makes of this one, in multiples of eight channels, the widest first.

    Blocks of grouped convolutions are as wide as their groups divide.
    """
    found: dict[tuple[int, ...], float] = {}
    choices = possible_widths(graph, 8)
    for count in range(1, round(1 / MULTIPLIER_STEP)):
        multiplier = 1 - count * MULTIPLIER_STEP
        widths = tuple(nearest(choices[block], full * multiplier) for block, full in graph.widths.items())
        if widths != tuple(graph.widths.values()):
            found.setdefault(widths, multiplier)
    return [(multiplier, dict(zip(graph.widths, widths, strict=True))) for widths, multiplier in found.items()]
