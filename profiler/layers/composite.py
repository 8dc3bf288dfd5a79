"""Blocks of layers that published tables measure as one layer.

The tables of ProxylessNAS and once-for-all (https://arxiv.org/abs/1812.00332, https://arxiv.org/abs/1908.09791) contain whole
inverted residuals (a 1x1 convolution that expands, a depthwise one, a 1x1 convolution that projects, and the addition of the
shortcut) and whole classifiers (pooling and the matrix product). To price a network with such a table, these blocks are found in
it. The latency of a block says nothing about its single layers, so blocks are never divided.
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
    """An inverted residual on an (n, h, w, c) input (Sandler et al., 2018, https://arxiv.org/abs/1801.04381).

    There is no expanding convolution if `hidden` equals the input channels. The projection has no activation. Raises `LayerError`
    if the shapes contradict each other.
    """
    height, width = (-(-size // stride) for size in input[1:3])
    return LayerSpec(
        "inverted_residual", (input, input) if shortcut else (input,), (input[0], height, width, out_channels),
        kernel=(kernel, kernel), stride=(stride, stride), activation=activation, hidden=hidden,
    )  # fmt: skip


def pooled_classifier(input: Shape, classes: int) -> LayerSpec:
    """Global average pooling of an (n, h, w, c) input and a fully connected layer to (n, classes)."""
    return LayerSpec("pooled_classifier", (input,), (input[0], classes))


@dataclass(frozen=True, slots=True)
class _Match:
    """A block that was found in a network."""

    block: LayerSpec
    source: str
    """The name of the node or graph input that the block reads."""
    names: tuple[str, ...]
    """The names of its nodes, without the one in which it ends."""


def as_blocks(graph: Graph, known: Container[LayerSpec]) -> tuple[Node, ...]:
    """The nodes of the network with every known block as one node, which has the name of the block's last node."""
    finder = _Finder(graph)
    absorbed: set[str] = set()
    blocks: dict[str, Node] = {}
    # from the end, so that the addition of a shortcut is seen before its convolution
    for node in reversed(graph.nodes):
        if node.name in absorbed:
            continue
        for match in finder.matches(node):
            if match.block in known and absorbed.isdisjoint(match.names):
                absorbed.update(match.names)
                blocks[node.name] = Node(node.name, match.block, (match.source,) * len(match.block.inputs))
                break
    return tuple(blocks.get(node.name, node) for node in graph.nodes if node.name not in absorbed)


class _Finder:
    """Finds blocks by reading a network backwards from a node."""

    def __init__(self, graph: Graph) -> None:
        self._nodes = {node.name: node for node in graph.nodes}
        self._uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))

    def matches(self, end: Node) -> Iterator[_Match]:
        """All blocks that could end in this node, the longest first."""
        if end.layer.opaque is not None:
            return
        if end.layer.op == "fully_connected":
            yield from self._classifier(end)
        elif end.layer.op == "add" and end.layer.activation == "none" and len(end.inputs) == 2:
            for place in (0, 1):
                last = self._sole_source(end.inputs[place])
                if last is not None and not last.layer.adds_shortcut:
                    yield from self._residual(last, (last.name,), shortcut=end.inputs[1 - place])
        elif end.layer.adds_shortcut:
            yield from self._residual(end, (), shortcut=end.inputs[1])
        else:
            yield from self._residual(end, (), shortcut=None)

    def _sole_source(self, name: str) -> Node | None:
        """The node of this name if it has exactly one reader and is not opaque."""
        node = self._nodes.get(name)
        return node if node is not None and self._uses[name] == 1 and node.layer.opaque is None else None

    def _activated(self, name: str) -> tuple[LayerSpec, str, tuple[str, ...]] | None:
        """The layer of this name, what it reads, and its nodes; a separate activation after the layer counts as its own."""
        node = self._sole_source(name)
        if node is None or not node.inputs:
            return None
        before = self._sole_source(node.inputs[0]) if node.layer.op in ("hard_swish", "relu", "relu6") else None
        if before is not None and before.layer.activation == "none" and before.inputs:
            return replace(before.layer, activation=node.layer.op), before.inputs[0], (node.name, before.name)
        return node.layer, node.inputs[0], (node.name,)

    def _residual(self, projection: Node, names: tuple[str, ...], shortcut: str | None) -> Iterator[_Match]:
        """The inverted residuals that end in this projection, with an expansion first."""
        if not _pointwise(projection.layer) or projection.layer.activation != "none":
            return
        found = self._activated(projection.inputs[0])
        if found is None or found[0].op != "depthwise_conv2d" or found[0].out_channels != found[0].in_channels:
            return
        depthwise, source, own_names = found
        names = (*names, *own_names)
        expansion = self._activated(source)
        if expansion is not None and _pointwise(expansion[0]) and expansion[0].activation == depthwise.activation:
            all_names = (*names, *expansion[2])
            yield from _block(depthwise, projection.layer, expansion[0].inputs[0], expansion[1], all_names, shortcut)
        yield from _block(depthwise, projection.layer, depthwise.inputs[0], source, names, shortcut)

    def _classifier(self, end: Node) -> Iterator[_Match]:
        """The classifier that ends in this fully connected layer; a flatten between the pooling and the layer belongs to it."""
        names: tuple[str, ...] = ()
        before = self._sole_source(end.inputs[0])
        if before is not None and before.layer.op == "flatten":
            names = (before.name,)
            before = self._sole_source(before.inputs[0])
        if before is not None and before.layer.op == "global_avg_pool" and end.layer.activation == "none":
            block = pooled_classifier(before.layer.inputs[0], end.layer.out_channels)
            yield _Match(replace(block, dtype=end.layer.dtype), before.inputs[0], (*names, before.name))


def _pointwise(layer: LayerSpec) -> bool:
    """True if the layer is a 1x1 convolution with stride 1 that keeps the size."""
    same_size = layer.inputs[0][:-1] == layer.output[:-1]
    return layer.op == "conv2d" and layer.kernel == (1, 1) and layer.stride == (1, 1) and layer.groups == 1 and same_size


def _block(
    depthwise: LayerSpec, projection: LayerSpec, input: Shape, source: str, names: tuple[str, ...], shortcut: str | None
) -> Iterator[_Match]:
    """The block of these layers, if there is one: its shortcut must be its input, and its kernel square."""
    if shortcut not in (None, source) or depthwise.kernel[0] != depthwise.kernel[1] or depthwise.dilation != (1, 1):
        return
    try:
        block = LayerSpec(
            "inverted_residual", (input,) if shortcut is None else (input, input), projection.output, depthwise.kernel,
            depthwise.stride, activation=depthwise.activation, dtype=depthwise.dtype, hidden=depthwise.in_channels,
        )  # fmt: skip
    except LayerError:
        return  # another padding makes the output another size
    yield _Match(block, source, names)
