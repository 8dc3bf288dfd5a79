"""The sizes of layers without a model of their own as expressions of widths, learnt from exports of narrower networks.

An operator that only passes channels on (a normalisation, a resize, a pad, a reshape) has sizes that are multiples of what it
reads. Which ones these are is not known for each kind of operator, but seen in the network itself: it is exported at several
widths, and the sizes of every operator are compared. Where a size changes that is no multiple of one before it, the operator fixes
the blocks that reach it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from profiler.errors import LayerError, PlanError
from profiler.formats.onnx.opaque import template
from profiler.layers.expressions import ChannelExpression
from profiler.layers.graph import FollowedSize, Graph, Node
from profiler.layers.layer import FREE_OUTPUT, LayerSpec, Shape

Narrowed = tuple[Mapping[str, int], Graph]
"""The widths of all blocks, and the graph of the network at these widths."""


@dataclass(slots=True)
class Followed:
    """A network whose opaque layers follow its blocks, or the blocks that cannot be narrowed."""

    graph: Graph
    fixed: dict[str, str] = field(default_factory=dict)
    """What fixes a block, as a phrase that names the operator. If there are any, the graph is of no use."""


def follow(graph: Graph, narrowed: Sequence[Narrowed], parts: Mapping[str, str]) -> Followed:
    """The graph with `follows` for opaque layers and templates as their files.

    `narrowed` are at least two narrower versions. `parts` are the layers whose output channels are a part or a multiple of those of
    a block, with that block.
    """
    widths = [graph.widths, *(widths for widths, _ in narrowed)]
    others = [other.nodes for _, other in narrowed]
    own_sources, sources = _sources(graph.nodes), [_sources(other) for other in others]
    done = Followed(graph)
    made: dict[str, dict[int, ChannelExpression]] = {name: {} for name, _ in graph.inputs}
    reached: dict[str, tuple[ChannelExpression, ...]] = {name: () for name, _ in graph.inputs}
    outputs = dict(graph.inputs) | {node.name: node.layer.output for node in graph.nodes}
    nodes, opaques = [], {}
    for place, node in enumerate(graph.nodes):
        alike = [
            other[place] for other, read in zip(others, sources, strict=True) if read[place : place + 1] == [own_sources[place]]
        ]
        before = tuple(expression for name in node.inputs for expression in reached[name])
        if len(alike) < len(others) or any(other.layer.op != node.layer.op for other in alike):
            return _fixed(done, node, before)  # narrower, it is exported with other operators
        layers = [node.layer, *(other.layer for other in alike)]
        follows = []
        read: list[ChannelExpression] = []
        for index, name in enumerate(node.inputs):
            is_first = outputs[name] == node.layer.inputs[index]  # of the tensors that the layer before makes
            candidates = [made[name], {}] if is_first else [{}]
            found = _explained([layer.inputs[index] for layer in layers], candidates[0], reached[name], widths)
            if found is None:
                return _fixed(done, node, before)
            read += found.values()
            if node.layer.opaque is not None or not is_first:
                follows += [FollowedSize(index, axis, expression) for axis, expression in found.items()]
        shapes = [layer.output for layer in layers]
        if node.block is not None:
            made[node.name] = {len(node.layer.output) - 1: ChannelExpression(0, {node.block: 1})}
            if node.layer.opaque is not None:
                follows += [FollowedSize(None, axis, expression) for axis, expression in made[node.name].items()]
        else:
            total = [_sum(read)] if node.layer.op in ("concat", "Concat", "Pad") and read else []
            rests = (sum(shape[-1] for shape in node.layer.inputs), node.layer.output[-1]) if total else ()  # or with constants
            total = [
                replace(item, constant=item.constant + item.divisor * (rest - item.at(graph.widths)))
                for rest in rests
                for item in total
            ]
            block = parts.get(node.name)
            more = 0 if block not in graph.widths else max(0, node.layer.out_channels - graph.widths[block])  # behind a padding
            own = [ChannelExpression(constant, {block: 1}) for constant in {more, 0} if block in graph.widths]
            explained = _explained(shapes, {}, (*own, *read, *total), widths)
            if explained is None:
                return _fixed(done, node, before)
            made[node.name] = explained
            if node.layer.opaque is not None or node.layer.op in FREE_OUTPUT:
                follows += [FollowedSize(None, axis, expression) for axis, expression in explained.items()]
        reached[node.name] = (*read, *made[node.name].values())
        layer = node.layer
        if layer.opaque is not None:
            data = graph.opaques[layer.opaque.digest]
            if follows:
                files = [data, *(_file(other, alike[number].layer) for number, (_, other) in enumerate(narrowed))]
                learnt = template(files, layers) if layer.opaque.file_format == "onnx" else None
                if learnt is None:
                    return _fixed(done, node, before)
                data = learnt
            opaque = replace(layer.opaque, digest=hashlib.sha256(data).hexdigest())
            opaques[opaque.digest] = data
            layer = replace(layer, opaque=opaque)
        nodes.append(replace(node, layer=layer, follows=tuple(follows)))
    done.graph = replace(graph, nodes=tuple(nodes), opaques=opaques)
    for chosen, other in narrowed:
        try:
            predicted = done.graph.at_widths(chosen)
        except (LayerError, PlanError):
            return _fixed(done, None, ())
        for node, expected in zip(predicted.nodes, other.nodes, strict=True):
            same = (
                replace(node.layer, opaque=None) == expected.layer
                if node.layer.opaque is None
                else _shapes(node) == _shapes(expected)
            )
            if not same:
                return _fixed(done, node, reached[node.name])
    return done


def _sources(nodes: Sequence[Node]) -> list[list[int | str]]:
    """What each node reads, by the places of the nodes: the exporter numbers names in another way in each network."""
    places = {node.name: number for number, node in enumerate(nodes)}
    return [[places.get(name, name) for name in node.inputs] for node in nodes]


def _file(graph: Graph, layer: LayerSpec) -> bytes:
    return graph.opaques[layer.opaque.digest] if layer.opaque is not None else b""


def _shapes(node: Node) -> tuple[object, ...]:
    return node.layer.op, node.layer.inputs, node.layer.output


def _fixed(done: Followed, node: Node | None, reached: Iterable[ChannelExpression]) -> Followed:
    """The blocks that reach the node are fixed by it; all blocks if none is known to."""
    blocks = {block for expression in reached for block in expression.blocks} or set(done.graph.widths)
    done.fixed = dict.fromkeys(
        blocks,
        "narrower, the network has other sizes than predicted"
        if node is None
        else f"the sizes of {node.layer.op} ({node.name}) do not follow it",
    )
    return done


def _sum(expressions: Sequence[ChannelExpression]) -> ChannelExpression:
    total = expressions[0]
    for expression in expressions[1:]:
        total = total.plus(expression)
    return total


def _explained(
    shapes: Sequence[Shape],
    same_axis: Mapping[int, ChannelExpression],
    candidates: Sequence[ChannelExpression],
    widths: Sequence[Mapping[str, int]],
) -> dict[int, ChannelExpression] | None:
    """The expression of every size that differs between the shapes; None if one has no explanation or the ranks differ.

    An expression explains the sizes if they are in proportion to it at all widths. That of the same axis is preferred.
    """
    if len({len(shape) for shape in shapes}) > 1:
        return None
    found = {}
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        if len(set(sizes)) == 1:
            continue
        preferred = (same_axis[axis],) if axis in same_axis else ()
        explained = next((match for one in (*preferred, *candidates) if (match := _proportional(one, sizes, widths))), None)
        if explained is None:
            return None
        found[axis] = explained
    return found


def _proportional(
    expression: ChannelExpression, sizes: Sequence[int], widths: Sequence[Mapping[str, int]]
) -> ChannelExpression | None:
    """The multiple of the expression that has these sizes at these widths."""
    try:
        full = expression.at(widths[0])
        common = math.gcd(sizes[0], full)
        multiple = expression.scaled(sizes[0] // common)
        multiple = multiple.over(full // common) if full > common else multiple
        return multiple if all(multiple.at(chosen) == size for chosen, size in zip(widths, sizes, strict=True)) else None
    except LayerError:
        return None
