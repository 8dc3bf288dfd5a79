"""The channel counts of every layer of a network as functions of the widths of its blocks.

The width of a block is the number of output channels of its own layers. Everything that passes channels on also makes it an input
width of the layers after them. Each channel count is a linear expression such as `49 * pw13 + 0`, so that the layers of a network
can be computed for any choice of widths without building the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from profiler.layers.expressions import ChannelExpression
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import FREE_OUTPUT, LayerSpec


def possible_widths(graph: Graph, step: int) -> dict[str, tuple[int, ...]]:
    """The widths that each block may have, in ascending order: multiples of the step, and its full width, but not 0.

    The widths of a block that a grouped convolution produces or reads leave as many channels in each group, and at least two. Those
    of blocks in slices are multiples of the number of slices.
    """
    groups: dict[str, list[int]] = {block: [] for block in graph.widths}
    grouped: dict[str, list[tuple[ChannelExpression, int]]] = {block: [] for block in graph.widths}
    for layer in dependent_layers(graph):
        if layer.node.layer.least_channels > 1:
            for expression in (layer.inputs, layer.output):
                for block in expression.blocks:
                    if len(expression.blocks) == 1:
                        grouped[block].append((expression, layer.node.layer.groups))
                    else:
                        groups[block].append(layer.node.layer.groups)
    slices = {node.block: node.slices for node in graph.nodes if node.block is not None}
    found = {}
    for block, full in graph.widths.items():
        if block not in graph.removed:
            widths = multiples(full, math.lcm(step, slices[block], *groups[block]), 2 * max(groups[block], default=0))
            alike = (
                width for width in widths if all(_fits(expression, block, width, count) for expression, count in grouped[block])
            )
            found[block] = tuple(sorted({*alike, full}))
    return found


def _fits(expression: ChannelExpression, block: str, width: int, groups: int) -> bool:
    """True if a grouped convolution with so many channels has as many in each group, and at least two."""
    total = expression.constant + expression.blocks[block] * width
    return total % (expression.divisor * groups) == 0 and total >= 2 * expression.divisor * groups


def multiples(full: int, granularity: int, least: int = 0) -> tuple[int, ...]:
    """The multiples of the granularity from `least` to below `full`, and `full` itself, in ascending order."""
    return tuple(sorted({*(width for width in range(granularity, full, granularity) if width >= least), full}))


def nearest(widths: Sequence[int], wanted: float) -> int:
    """The width that is nearest to the wanted one; of two equally near ones, the wider."""
    return min(widths, key=lambda width: (abs(width - wanted), -width))


@dataclass(frozen=True, slots=True)
class DependentLayer:
    """A node with the expressions of its input and output channels."""

    node: Node
    inputs: ChannelExpression
    """Of the input with the most channels."""
    output: ChannelExpression
    given: tuple[ChannelExpression, ...] = ()
    """Of every input, in their order."""

    @property
    def axes(self) -> tuple[ChannelExpression, ...]:
        """The expressions of the channel counts that determine the layer, on the axes of profiler.latency.staircase."""
        if self.node.layer.op == "concat":
            return (self.output,)
        return (self.inputs, self.output) if self.node.layer.op in FREE_OUTPUT else (self.inputs,)

    @property
    def blocks(self) -> frozenset[str]:
        """The blocks on whose widths the layer depends."""
        followed = {block for size in self.node.follows for block in size.expression.blocks}
        return frozenset(self.inputs.blocks) | frozenset(self.output.blocks) | followed


def dependent_layers(graph: Graph) -> tuple[DependentLayer, ...]:
    """All nodes of the network in its order, with the expressions of their channels."""
    expressions = {name: ChannelExpression(shape[-1] if shape else 1, {}) for name, shape in graph.inputs}
    found = []
    for node in graph.nodes:
        layer = node.layer
        given = [expressions[name] for name in node.inputs]
        for index, shape in enumerate(layer.inputs):  # an opaque layer may make several tensors, and its own is the first
            followed = node.followed(index, len(shape) - 1)
            if followed is not None:
                given[index] = followed
            elif shape and not given[index].blocks and given[index].constant != shape[-1]:
                given[index] = ChannelExpression(shape[-1], {})
        inputs = given[0] if given else ChannelExpression(layer.in_channels, {})
        if layer.op in ("add", "mul"):
            # an operand with fewer channels is broadcast over the other
            inputs = max(zip(given, layer.inputs, strict=True), key=lambda pair: (pair[1][-1], len(pair[0].blocks)))[0]
        expressions[node.name] = _output(node, inputs, given)
        found.append(DependentLayer(node, inputs, expressions[node.name], tuple(given)))
    return tuple(found)


def _output(node: Node, inputs: ChannelExpression, given: Sequence[ChannelExpression]) -> ChannelExpression:
    """The expression of the output channels, from those of the input with the most channels and of all inputs."""
    layer = node.layer
    if node.block is not None:
        return ChannelExpression(0, {node.block: 1})
    if (followed := node.followed(None, len(layer.output) - 1)) is not None:
        return followed
    if layer.opaque is not None or layer.op in FREE_OUTPUT:
        return ChannelExpression(layer.out_channels, {})
    if layer.op == "depthwise_conv2d":
        return inputs.scaled(layer.out_channels // layer.in_channels)
    if layer.op == "concat":
        total = given[0]
        for expression in given[1:]:
            total = total.plus(expression)
        return total
    if layer.op == "flatten":
        return inputs.scaled(math.prod(layer.inputs[0][1:-1]))
    return inputs


def at_channels(layer: LayerSpec, channels: Sequence[int]) -> LayerSpec:
    """The layer with other channel counts on its axes, as in `DependentLayer.axes`.

    Inputs of one channel keep it, because they are broadcast. The inputs of a concatenation keep their shares of all channels, as
    nearly as whole blocks allow. Raises `LayerError` as `LayerSpec.resized` does.
    """
    if layer.op == "concat":
        units, unit = channels[0] // layer.block, layer.block
        ends = [round(units * total / layer.out_channels) for total in accumulate(shape[-1] for shape in layer.inputs)]
        parts = [unit * (end - start) for start, end in pairwise([0, *ends])]
        return layer.resized([(*shape[:-1], part) for shape, part in zip(layer.inputs, parts, strict=True)])
    inputs = [(*shape[:-1], channels[0] if shape[-1] == layer.in_channels else shape[-1]) for shape in layer.inputs]
    if layer.adds_shortcut:
        inputs[1] = (*layer.inputs[1][:-1], channels[1])
    return layer.resized(inputs, channels[1] if len(channels) > 1 else None)
