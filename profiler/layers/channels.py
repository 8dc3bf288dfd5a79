"""Which widths each layer of a network follows: channel counts as sums of block widths.

A block's width sets the outputs of its own layers and, through everything that passes channels on, the inputs of the layers after
it. Written as forms, `49 * pw13 + 0`, they say for every layer at once what a choice of widths makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.layers.graph import Graph, Node
from profiler.layers.layer import FREE_OUTPUT, LayerSpec

Choices = Mapping[str, Sequence[int]]
"""For each block, every width it may have, ascending; the last is the full one."""


@dataclass(frozen=True, slots=True)
class Form:
    """A channel count: a constant and so many times the width of each block."""

    constant: int
    blocks: Mapping[str, int]

    def scaled(self, factor: int) -> Form:
        return Form(self.constant * factor, {block: times * factor for block, times in self.blocks.items()})

    def plus(self, other: Form) -> Form:
        blocks = dict(self.blocks)
        for block, times in other.blocks.items():
            blocks[block] = blocks.get(block, 0) + times
        return Form(self.constant + other.constant, blocks)

    def at(self, widths: Mapping[str, int]) -> int:
        return self.constant + sum(times * widths[block] for block, times in self.blocks.items())

    def along(self, block: str, values: NDArray[np.int64], widths: Mapping[str, int]) -> NDArray[np.int64]:
        """For many widths of one block, the others as given."""
        rest = self.constant + sum(times * widths[name] for name, times in self.blocks.items() if name != block)
        return rest + self.blocks.get(block, 0) * values

    def choices(self, widths: Choices, granularity: int) -> tuple[int, ...]:
        """Every channel count it can take, ascending; of several blocks, the multiples of the granularity and the full width."""
        if not self.blocks:
            return (self.constant,)
        if len(self.blocks) > 1:
            full = self.at({block: widths[block][-1] for block in self.blocks})
            return tuple(sorted({*range(self.constant + granularity, full, granularity), full}))
        ((block, times),) = self.blocks.items()
        return tuple(self.constant + times * width for width in widths[block])


def possible_widths(graph: Graph, step: int) -> dict[str, tuple[int, ...]]:
    """For each block, the widths it may have: multiples of the step below its own, and its own.

    Of a block that grouped convolutions make or read they are multiples of the numbers of groups too, and not below two channels
    in each.
    """
    groups: dict[str, list[int]] = {block: [] for block in graph.widths}
    for follower in followers(graph):
        if follower.node.layer.least_channels > 1:
            for block in follower.blocks:
                groups[block].append(follower.node.layer.groups)
    return {
        block: multiples(full, math.lcm(step, *groups[block]), 2 * max(groups[block], default=0))
        for block, full in graph.widths.items()
    }


def multiples(full: int, granularity: int, least: int = 0) -> tuple[int, ...]:
    """Multiples of the granularity below `full` that are not below `least`, and `full` itself, ascending."""
    return tuple(sorted({*(width for width in range(granularity, full, granularity) if width >= least), full}))


def nearest(widths: Sequence[int], wanted: float) -> int:
    """The one of these widths that is nearest; of two equally near the wider."""
    return min(widths, key=lambda width: (abs(width - wanted), -width))


@dataclass(frozen=True, slots=True)
class Follower:
    """A node and the forms of its input and output channels."""

    node: Node
    inputs: Form
    output: Form

    @property
    def axes(self) -> tuple[Form, ...]:
        """Of the axes on which its layer's channels can be chosen, as in profiler.latency.staircase."""
        return (self.inputs, self.output) if self.node.layer.op in FREE_OUTPUT else (self.inputs,)

    @property
    def blocks(self) -> frozenset[str]:
        return frozenset(self.inputs.blocks) | frozenset(self.output.blocks)


def followers(graph: Graph) -> tuple[Follower, ...]:
    """Every node of the network with the widths it follows, in order."""
    forms = {name: Form(shape[-1] if shape else 1, {}) for name, shape in graph.inputs}
    extract = {node.name for node in graph.nodes if node.layer.opaque is not None}
    found = []
    for node in graph.nodes:
        given = [forms[name] for name in node.inputs]
        if node.layer.opaque is None:  # a cut-out before it may count its output's dimensions in another order
            own = zip(node.inputs, node.layer.inputs, strict=True)
            given = [Form(shape[-1], {}) if name in extract else forms[name] for name, shape in own]
        first = given[0] if given else Form(node.layer.in_channels, {})
        if node.layer.op in ("add", "mul"):  # a narrow factor is broadcast over the wide one
            first = max(zip(given, node.layer.inputs, strict=True), key=lambda pair: (pair[1][-1], len(pair[0].blocks)))[0]
        forms[node.name] = _output(node, first, given)
        found.append(Follower(node, first, forms[node.name]))
    return tuple(found)


def _output(node: Node, first: Form, given: Sequence[Form]) -> Form:
    layer = node.layer
    if node.block is not None:
        return Form(0, {node.block: 1})
    if layer.opaque is not None or layer.op in FREE_OUTPUT:
        return Form(layer.out_channels, {})
    if layer.op == "depthwise_conv2d":
        return first.scaled(layer.out_channels // layer.in_channels)
    if layer.op == "concat":
        total = given[0]
        for form in given[1:]:
            total = total.plus(form)
        return total
    return first.scaled(math.prod(layer.inputs[0][1:-1])) if layer.op == "flatten" else first


def at_channels(layer: LayerSpec, channels: Sequence[int]) -> LayerSpec:
    """The layer with other channels on its axes. Inputs of one channel stay so: they are broadcast."""
    inputs = [(*shape[:-1], channels[0] if shape[-1] == layer.in_channels else shape[-1]) for shape in layer.inputs]
    if layer.adds_shortcut:
        inputs[1] = (*layer.inputs[1][:-1], channels[1])
    return layer.resized(inputs, channels[1] if len(channels) > 1 else None)
