"""Blocks: several layers of a network that somebody else has measured as one.

Published tables of ProxylessNAS and once-for-all hold whole inverted residuals (a 1x1 convolution that widens, a depthwise one,
a 1x1 convolution that narrows, and the shortcut's addition) and whole classifiers (pooling and the matrix product). A network is
priced by such a table by finding those layers in it. A block says nothing of its layers one by one, and is never taken apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from profiler.errors import LayerError
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, Shape


def inverted_residual(
    input: Shape, out_channels: int, hidden: int, kernel: int, *, stride: int = 1, shortcut: bool = False, activation: str = "relu6"
) -> LayerSpec:
    """With `hidden` equal to the input's channels there is no convolution that widens. The last layer has no activation."""
    height, width = (-(-size // stride) for size in input[1:3])
    return LayerSpec(
        "inverted_residual", (input, input) if shortcut else (input,), (input[0], height, width, out_channels),
        kernel=(kernel, kernel), stride=(stride, stride), activation=activation, hidden=hidden,
    )  # fmt: skip


def pooled_classifier(input: Shape, classes: int) -> LayerSpec:
    """Global average pooling and a fully connected layer."""
    return LayerSpec("pooled_classifier", (input,), (input[0], classes))


@dataclass(frozen=True, slots=True)
class _Match:
    block: LayerSpec
    source: str
    """The name of what the block reads."""
    names: tuple[str, ...]
    """Its nodes, without the one it ends in."""


def as_blocks(graph: Graph, known: Container[LayerSpec]) -> tuple[Node, ...]:
    """The network's nodes, those of each known block as one node that is called like the block's last."""
    finder, gone, ends = _Finder(graph), set[str](), dict[str, Node]()
    for node in reversed(graph.nodes):  # from the end, so that a shortcut's addition is seen before its convolution
        if node.name in gone:
            continue
        for match in finder.matches(node):
            if match.block in known and gone.isdisjoint(match.names):
                gone.update(match.names)
                ends[node.name] = Node(node.name, match.block, (match.source,) * len(match.block.inputs))
                break
    return tuple(ends.get(node.name, node) for node in graph.nodes if node.name not in gone)


class _Finder:
    """Reads a network backwards from a node."""

    def __init__(self, graph: Graph) -> None:
        self._nodes = {node.name: node for node in graph.nodes}
        self._uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))

    def matches(self, end: Node) -> Iterator[_Match]:
        """Every block that could end here, the longest first."""
        if end.layer.opaque is not None:
            return
        if end.layer.op == "fully_connected":
            yield from self._classifier(end)
        elif end.layer.op == "add" and end.layer.activation == "none" and len(end.inputs) == 2:
            for place in (0, 1):
                last = self._own(end.inputs[place])
                if last is not None and not last.layer.adds_shortcut:
                    yield from self._residual(last, (last.name,), shortcut=end.inputs[1 - place])
        elif end.layer.adds_shortcut:
            yield from self._residual(end, (), shortcut=end.inputs[1])
        else:
            yield from self._residual(end, (), shortcut=None)

    def _own(self, name: str) -> Node | None:
        """The node of this name if nothing else reads it."""
        node = self._nodes.get(name)
        return node if node is not None and self._uses[name] == 1 and node.layer.opaque is None else None

    def _activated(self, name: str) -> tuple[LayerSpec, str, tuple[str, ...]] | None:
        """A layer and what it reads, with the activation after it where that stands by itself."""
        node = self._own(name)
        if node is None or not node.inputs:
            return None
        before = self._own(node.inputs[0]) if node.layer.op in ("hard_swish", "relu", "relu6") else None
        if before is not None and before.layer.activation == "none" and before.inputs:
            return replace(before.layer, activation=node.layer.op), before.inputs[0], (node.name, before.name)
        return node.layer, node.inputs[0], (node.name,)

    def _residual(self, last: Node, names: tuple[str, ...], shortcut: str | None) -> Iterator[_Match]:
        found = self._activated(last.inputs[0]) if _pointwise(last.layer) and last.layer.activation == "none" else None
        if found is None or found[0].op != "depthwise_conv2d" or found[0].out_channels != found[0].in_channels:
            return
        depthwise, source, own = found
        names = (*names, *own)
        widening = self._activated(source)
        if widening is not None and _pointwise(widening[0]) and widening[0].activation == depthwise.activation:
            yield from _block(depthwise, last.layer, widening[0].inputs[0], widening[1], (*names, *widening[2]), shortcut)
        yield from _block(depthwise, last.layer, depthwise.inputs[0], source, names, shortcut)

    def _classifier(self, end: Node) -> Iterator[_Match]:
        before, names = self._own(end.inputs[0]), tuple[str, ...]()
        if before is not None and before.layer.op == "flatten":
            names = (before.name,)
            before = self._own(before.inputs[0])
        if before is not None and before.layer.op == "global_avg_pool" and end.layer.activation == "none":
            block = pooled_classifier(before.layer.inputs[0], end.layer.out_channels)
            yield _Match(replace(block, dtype=end.layer.dtype), before.inputs[0], (*names, before.name))


def _pointwise(layer: LayerSpec) -> bool:
    same_size = layer.inputs[0][:-1] == layer.output[:-1]
    return layer.op == "conv2d" and layer.kernel == (1, 1) and layer.stride == (1, 1) and layer.groups == 1 and same_size


def _block(
    depthwise: LayerSpec, last: LayerSpec, input: Shape, source: str, names: tuple[str, ...], shortcut: str | None
) -> Iterator[_Match]:
    """The block of these layers, if there is such a one: its shortcut must be what it reads, its kernel square."""
    if shortcut not in (None, source) or depthwise.kernel[0] != depthwise.kernel[1] or depthwise.dilation != (1, 1):
        return
    try:
        block = LayerSpec(
            "inverted_residual", (input,) if shortcut is None else (input, input), last.output, depthwise.kernel,
            depthwise.stride, activation=depthwise.activation, dtype=depthwise.dtype, hidden=depthwise.in_channels,
        )  # fmt: skip
    except LayerError:
        return  # padded otherwise, so that its output has another size
    yield _Match(block, source, names)
