"""The choice of layers to measure: a few hundred of all that a network can have when its widths change.

A build first measures sweeps along single axes, to detect the staircases of the device. Then it measures the corners of the
possible widths. Then follow batches of the layers that add most to the uncertainty of predicted networks (`most_telling`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product

from profiler.errors import LayerError
from profiler.latency.staircase import Kind, Staircases, Sweep, axes_of, detect, kind_of, rules_of, widths_of
from profiler.layers.channels import DependentLayer, at_channels, dependent_layers, possible_widths
from profiler.layers.expressions import WidthChoices
from profiler.layers.graph import Graph, unique_layers
from profiler.layers.layer import LayerSpec
from profiler.tables.plan import Plan, random_networks
from profiler.tables.predictor import Predictor

SWEEP_POINTS = 9
"""Widths of one sweep. With a width step of 8 they cover a tile of 32 channels twice."""
SWEEP_UP_TO = 192
"""The largest width of a sweep: a step is still a large part of the latency there, and the layer large enough to be timed."""
SWEEPS_PER_KIND = 3
"""An early, a middle and a late layer of the network, because large images and wide layers may behave differently."""
NARROW_TILES = 2
"""A layer with at most so many tiles is also measured at widths below one tile."""
ASKED_NETWORKS = 48
"""The number of random networks that represent the later predictions."""


def sweeps_of(plan: Plan) -> dict[Kind, list[tuple[LayerSpec, ...]]]:
    """Up to three sweeps for each axis of each kind of layer with weights; a sweep is layers that differ on this axis only."""
    possible = possible_widths(plan.graph, plan.step)
    found: dict[Kind, list[tuple[LayerSpec, ...]]] = {}
    for dependent in _resizable(plan.graph):
        layer = dependent.node.layer
        for place, axis in enumerate(axes_of(layer)):
            choices = [width for width in dependent.axes[place].choices(possible, plan.step) if width <= SWEEP_UP_TO]
            if not dependent.axes[place].blocks or len(choices) < 4 or not layer.weight_shape:
                continue
            widths = widths_of(layer)
            sweep = _with_channels(layer, ([*widths[:place], width, *widths[place + 1 :]] for width in choices[-SWEEP_POINTS:]))
            sweeps = found.setdefault((kind_of(layer), axis), [])
            if sweep not in sweeps:
                sweeps.append(sweep)
    return {kind: _spread_out(sweeps, SWEEPS_PER_KIND) for kind, sweeps in found.items()}


def _with_channels(layer: LayerSpec, many: Iterable[Sequence[int]]) -> tuple[LayerSpec, ...]:
    """The layer with each of these channels, except those with which the runtime executes another operator."""
    found = []
    for channels in many:
        with suppress(LayerError):
            found.append(at_channels(layer, channels))
    return tuple(dict.fromkeys(found))


def _spread_out(sweeps: Sequence[tuple[LayerSpec, ...]], count: int) -> list[tuple[LayerSpec, ...]]:
    """Up to `count` of the longest sweeps, evenly spread over the network."""
    longest = max(len(sweep) for sweep in sweeps)
    usable = [sweep for sweep in sweeps if len(sweep) == longest]
    if len(usable) <= count:
        return usable
    return [usable[round(place * (len(usable) - 1) / (count - 1))] for place in range(count)]


def staircases_from(
    sweeps: Mapping[Kind, Sequence[Sequence[LayerSpec]]], latency_ms: Mapping[LayerSpec, float], step: int
) -> Staircases:
    """The staircases detected from sweeps. A layer that could not be measured is left out of its sweep."""
    found = {}
    for (kind, axis), layers in sweeps.items():
        place = 0 if axis == "in" else 1
        measured: list[Sweep] = [
            [(widths_of(layer)[place], latency_ms[layer]) for layer in sweep if layer in latency_ms] for sweep in layers
        ]
        found[kind, axis] = detect(measured, step)
    return found


def corners_of(plan: Plan, staircases: Staircases) -> tuple[LayerSpec, ...]:
    """The layers of the network and of its narrowest version, then for every layer the narrowest and the widest width of each phase
    on each axis.

    A search compares its budget with the narrowest version before it begins.
    """
    possible = possible_widths(plan.graph, plan.step)
    found = [*plan.graph.layers, *_narrowest(plan.graph, possible)]
    for dependent in _resizable(plan.graph):
        ends, now = [], widths_of(dependent.node.layer)
        for place, (form, rule) in enumerate(zip(dependent.axes, rules_of(dependent.node.layer, staircases), strict=True)):
            phases: dict[int, list[int]] = {}
            choices = form.choices(possible, plan.step)
            for width in choices:
                if not _with_channels(dependent.node.layer, [(*now[:place], width, *now[place + 1 :])]):
                    continue  # the runtime executes another operator with fewer channels than a block
                # a wide layer is hardly ever pruned to less than a tile; if it is, `most_telling` finds the layer
                if not rule.below_one_tile(width) or choices[-1] <= NARROW_TILES * rule.step:
                    phases.setdefault(rule.phase(width), []).append(width)
            ends.append(sorted({end for widths in phases.values() for end in (widths[0], widths[-1])}))
        found += _with_channels(dependent.node.layer, product(*ends))
    return tuple(unique_layers(found))


def _narrowest(graph: Graph, possible: WidthChoices) -> tuple[LayerSpec, ...]:
    """The layers of the narrowest network that consists of the same operators."""
    for place in range(max(map(len, possible.values()), default=0)):
        with suppress(LayerError):  # the runtime executes another operator with fewer channels than a block
            return graph.at_widths({block: choices[min(place, len(choices) - 1)] for block, choices in possible.items()}).layers
    return graph.layers


def _resizable(graph: Graph) -> list[DependentLayer]:
    """Nodes whose channels depend on a block."""
    return [dependent for dependent in dependent_layers(graph) if dependent.blocks and dependent.node.layer.opaque is None]


def asked_for(plan: Plan) -> list[Graph]:
    """Random networks like those of a NetAdapt run. They are predicted, not measured."""
    draws = random.Random("asked for")
    return [plan.graph.at_widths(widths) for widths in random_networks(plan.graph, plan.step, draws, ASKED_NETWORKS)]


def most_telling(predictor: Predictor, networks: Iterable[Graph], count: int) -> list[LayerSpec]:
    """The layers whose measurement would reduce the uncertainty of these networks most; missing layers come first.

    The worth of a layer is the part of its interval that is due to interpolation, in relation to the latencies of the networks. Of
    layers in the same cell of measured points, only the one of highest worth is chosen, because it also improves the others.
    """
    worth: dict[LayerSpec, float] = {}
    for network in networks:
        total_ms = max(predictor.explain(network).naive_ms, 1e-9)
        for layer in network.layers:
            hit = predictor.lookup(layer)
            if hit is None:
                worth[layer] = worth.get(layer, 0.0) + 1.0
            elif hit.source == "interpolated":
                worth[layer] = worth.get(layer, 0.0) + hit.shape_ms / total_ms
    chosen: dict[object, LayerSpec] = {}
    for layer in sorted(worth, key=lambda layer: -worth[layer]):
        if len(chosen) >= count:
            break
        chosen.setdefault(predictor.grid.cell(layer), layer)
    return list(chosen.values())


def interpolation_percent(predictor: Predictor, networks: Sequence[Graph]) -> float:
    """Mean standard deviation of these networks' latencies that is due to interpolated layers, in per cent."""
    shares = []
    for network in networks:
        found = [predictor.lookup(layer) for layer in network.layers]
        half_ms = sum(hit.shape_ms**2 for hit in found if hit) ** 0.5
        shares.append(50 * half_ms / max(predictor.explain(network).naive_ms, 1e-9))
    return sum(shares) / len(shares) if shares else 0.0
