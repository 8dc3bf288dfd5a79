"""Which layers of a plan to measure, a few hundred instead of all that its network can turn into.

First sweeps along single axes, to see the device's staircase; then the corners of what can be asked for; then, one batch after the
other, the layers where the table is least sure of what the networks it is for would ask (`most_telling`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from profiler.latency.staircase import Kind, Staircases, Sweep, axes_of, detect, kind_of, rules_of, widths_of
from profiler.layers.channels import DependentLayer, at_channels, dependent_layers, possible_widths
from profiler.layers.graph import Graph, unique_layers
from profiler.layers.layer import LayerSpec
from profiler.tables.plan import Plan, random_networks
from profiler.tables.predictor import Predictor

SWEEP_POINTS = 9
"""Widths of one sweep, a granularity apart: they cover a step of 32 channels twice."""
SWEEP_UP_TO = 192
"""Around here a step is still a good part of the whole latency, and the layer large enough to time."""
SWEEPS_PER_KIND = 3
"""An early, a middle and a late layer of the network: large figures and wide layers need not behave alike."""
NARROW_TILES = 2
"""A layer of so many tiles is likely to be asked for with less than one."""
ASKED_NETWORKS = 48
"""Networks of random widths that stand for what the table will be asked."""


def sweeps_of(plan: Plan) -> dict[Kind, list[tuple[LayerSpec, ...]]]:
    """For each kind of layer with weights and each of its axes, up to three sweeps of layers that differ on this axis only."""
    possible = possible_widths(plan.graph, plan.step)
    found: dict[Kind, list[tuple[LayerSpec, ...]]] = {}
    for follower in _resizable(plan.graph):
        layer = follower.node.layer
        for place, axis in enumerate(axes_of(layer)):
            choices = [width for width in follower.axes[place].choices(possible, plan.step) if width <= SWEEP_UP_TO]
            if not follower.axes[place].blocks or len(choices) < 4 or not layer.weight_shape:
                continue
            widths = widths_of(layer)
            sweep = tuple(at_channels(layer, [*widths[:place], width, *widths[place + 1 :]]) for width in choices[-SWEEP_POINTS:])
            sweeps = found.setdefault((kind_of(layer), axis), [])
            if sweep not in sweeps:
                sweeps.append(sweep)
    return {kind: _spread_out(sweeps, SWEEPS_PER_KIND) for kind, sweeps in found.items()}


def _spread_out(sweeps: Sequence[tuple[LayerSpec, ...]], count: int) -> list[tuple[LayerSpec, ...]]:
    """The first, the last and those between, of the longest there are."""
    longest = max(len(sweep) for sweep in sweeps)
    usable = [sweep for sweep in sweeps if len(sweep) == longest]
    if len(usable) <= count:
        return usable
    return [usable[round(place * (len(usable) - 1) / (count - 1))] for place in range(count)]


def staircases_from(
    sweeps: Mapping[Kind, Sequence[Sequence[LayerSpec]]], latency_ms: Mapping[LayerSpec, float], step: int
) -> Staircases:
    """What the sweeps show; a layer that could not be measured is left out of its sweep."""
    found = {}
    for (kind, axis), layers in sweeps.items():
        place = 0 if axis == "in" else 1
        measured: list[Sweep] = [
            [(widths_of(layer)[place], latency_ms[layer]) for layer in sweep if layer in latency_ms] for sweep in layers
        ]
        found[kind, axis] = detect(measured, step)
    return found


def corners_of(plan: Plan, staircases: Staircases) -> tuple[LayerSpec, ...]:
    """For every layer the narrowest and the widest of each phase on each axis, and the network's own layers first."""
    return tuple(unique_layers(_corners(plan, staircases)))


def _corners(plan: Plan, staircases: Staircases) -> Iterator[LayerSpec]:
    yield from plan.graph.layers
    possible = possible_widths(plan.graph, plan.step)
    for follower in _resizable(plan.graph):
        lines = []
        for form, rule in zip(follower.axes, rules_of(follower.node.layer, staircases), strict=True):
            phases: dict[int, list[int]] = {}
            choices = form.choices(possible, plan.step)
            for width in choices:
                # of a wide layer nobody asks for less than a tile, or they will be asked for by `most_telling`
                if not rule.below_one_tile(width) or choices[-1] <= NARROW_TILES * rule.step:
                    phases.setdefault(rule.phase(width), []).append(width)
            lines.append(sorted({end for widths in phases.values() for end in (widths[0], widths[-1])}))
        for widths in product(*lines):
            yield at_channels(follower.node.layer, widths)


def _resizable(graph: Graph) -> list[DependentLayer]:
    """Nodes whose channels follow a block; concatenations follow several and are measured as they are asked for."""
    return [
        follower
        for follower in dependent_layers(graph)
        if follower.blocks and follower.node.layer.opaque is None and follower.node.layer.op != "concat"
    ]


def asked_for(plan: Plan) -> list[Graph]:
    """Networks of random widths like those NetAdapt goes through; none of them is measured."""
    draws = random.Random("asked for")
    return [plan.graph.at_widths(widths) for widths in random_networks(plan.graph, plan.step, draws, ASKED_NETWORKS)]


def most_telling(predictor: Predictor, networks: Iterable[Graph], count: int) -> list[LayerSpec]:
    """The layers that would take most uncertainty from these networks if they were measured: first those that nothing is known of.

    A layer's worth is what its interval contributes to the networks, in parts of their latency. Of layers in the same cell of
    measured points only the one worth most is taken: it will say something about the others.
    """
    worth: dict[LayerSpec, float] = {}
    for network in networks:
        total_ms = max(predictor.explain(network).naive_ms, 1e-9)
        for layer in network.layers:
            hit = predictor.lookup(layer)
            if hit is None:
                worth[layer] = worth.get(layer, 0.0) + 1.0
            elif hit.source == "interpolated":
                worth[layer] = worth.get(layer, 0.0) + hit.estimate.latency_ms.half_width / total_ms
    chosen: dict[object, LayerSpec] = {}
    for layer in sorted(worth, key=lambda layer: -worth[layer]):
        if len(chosen) >= count:
            break
        chosen.setdefault(predictor.grid.cell(layer), layer)
    return list(chosen.values())


def interpolation_percent(predictor: Predictor, networks: Sequence[Graph]) -> float:
    """What the intervals of interpolated layers add up to in these networks, as one standard deviation, on average."""
    shares = []
    for network in networks:
        found = [predictor.lookup(layer) for layer in network.layers]
        half_ms = sum(hit.estimate.latency_ms.half_width**2 for hit in found if hit and hit.source == "interpolated") ** 0.5
        shares.append(50 * half_ms / max(predictor.explain(network).naive_ms, 1e-9))
    return sum(shares) / len(shares) if shares else 0.0
