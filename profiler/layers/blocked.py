"""Which layers ONNX Runtime executes in blocks of channels, and where it copies activations into blocks and back.

These are rules for pricing thousands of widths without asking a device for each: a build checks them against what the runtime
itself tells of the networks that it measures. They follow the transformation into the NCHWc layout of ONNX Runtime 1.31
(onnxruntime/core/optimizer/nchwc_transformer.cc):

- A convolution runs in blocks if its input has less than a block of channels, which it reads in the plain layout, or a multiple
  of four; a depthwise one if it has a multiple of four. Its output is filled up to whole blocks.
- Pools run in blocks if their channels are whole blocks; global pools only if their input was made in blocks, too. Upsampling
  to the nearest pixel by a whole factor follows its input.
- Additions and products run on blocks if all inputs were made in blocks and have equal shapes, and a concatenation if all
  inputs are whole blocks. ReLU, sigmoid, tanh, SiLU and GELU follow their input.
- HardSwish is a part of a convolution in blocks. Everywhere else it is a HardSigmoid and a product.
- A convolution without an activation and with no other reader adds the shortcut of an addition itself, and can then apply a
  ReLU, a sigmoid or a tanh.
- Everything else reads the plain layout.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from profiler.layers.graph import Graph, Node
from profiler.layers.layer import BLOCKED, FREE_OUTPUT, GLOBAL_POOL_OPS, POOL_OPS, LayerSpec, Shape, whole_blocks

ALIGNMENT = 4
"""Channels that are copied into blocks come in multiples of this."""
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
JOINED = ("relu", "sigmoid", "tanh")
"""Activations that the convolution before them takes over."""
FOLLOWING = (*JOINED, "silu", "gelu")


def in_blocks(graph: Graph, block: int) -> Graph:
    """The network with its layers and copies in the blocked layout of `block` channels; opaque layers stay plain."""
    return _Rewriter(graph, block).result()


@dataclass(slots=True)
class _Rewriter:
    graph: Graph
    block: int
    nodes: dict[str, Node] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """The shape of each activation without filled-up channels."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Activations of the network that are made in blocks, and the nodes that make them."""
    copies: dict[str, str] = field(default_factory=dict)
    """Those that are made in the plain layout and copied into blocks, and the copies."""
    plain: dict[str, str] = field(default_factory=dict)
    """Those that exist in the plain layout."""
    uses: Counter[str] = field(default_factory=Counter)
    owners: dict[str, str | None] = field(default_factory=dict)
    """The block whose width is the number of channels of each activation, if there is one."""

    def result(self) -> Graph:
        graph = self.graph
        self.shapes = dict(graph.inputs) | {node.name: node.layer.output for node in graph.nodes}
        self.plain = {name: name for name, _ in graph.inputs}
        self.uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))
        for node in graph.nodes:
            keeps_channels = node.layer.out_channels == node.layer.in_channels and node.layer.op not in FREE_OUTPUT
            inherited = self.owners.get(node.inputs[0]) if node.inputs and keeps_channels else None
            self.owners[node.name] = node.block or inherited
            self._take(node)
        outputs = tuple(self._in_plain(name) for name in graph.outputs)
        return replace(graph, nodes=tuple(self.nodes.values()), outputs=outputs)

    def _take(self, node: Node) -> None:
        """Add the node in the layout in which it runs, after the copies that it needs."""
        layer = node.layer
        if layer.opaque is not None or layer.dtype != "float32" or not self._runs_in_blocks(node):
            self._take_plain(replace(node, inputs=tuple(map(self._in_plain, node.inputs))))
        elif not self._joins_convolution(node):
            if layer.op == "depthwise_conv2d" and layer.groups == 1:
                layer = replace(layer, op="conv2d")  # one channel: to the runtime it is a convolution like others
            reads_plain = layer.op == "conv2d" and layer.in_channels < self.block and layer.groups == 1
            inputs = [self._in_plain(name) if reads_plain else self._in_blocks(name) for name in node.inputs]
            self._add(replace(node, inputs=tuple(inputs), layer=self._filled(layer, reads_plain)), self.blocked, node.name)

    def _take_plain(self, node: Node) -> None:
        layer = node.layer
        if layer.opaque is None and "hard_swish" in (layer.op, layer.activation):
            source = node.inputs[0]
            if layer.op != "hard_swish":
                source = f"{node.name}.before_activation"
                self.nodes[source] = replace(node, name=source, layer=replace(layer, activation="none"))
            gate = f"{node.name}.hard_sigmoid"
            self.nodes[gate] = Node(gate, LayerSpec("hard_sigmoid", (layer.output,), layer.output), (source,), node.block)
            node = replace(node, layer=LayerSpec("mul", (layer.output,) * 2, layer.output), inputs=(source, gate))
        self._add(node, self.plain, node.name)

    def _runs_in_blocks(self, node: Node) -> bool:
        layer = node.layer
        if len(layer.output) != 4 or any(len(shape) != 4 for shape in layer.inputs):
            return False
        are_blocked = all(name in self.blocked for name in node.inputs)
        match layer.op:
            case "conv2d" | "depthwise_conv2d" if layer.groups == 1:
                return layer.in_channels < self.block or layer.in_channels % ALIGNMENT == 0
            case "conv2d":  # a group has whole blocks
                return (layer.in_channels // layer.groups) % self.block == 0 and (
                    layer.out_channels // layer.groups
                ) % self.block == 0
            case "depthwise_conv2d":
                return layer.out_channels == layer.in_channels and layer.in_channels % ALIGNMENT == 0
            case "concat":
                return are_blocked and all(shape[-1] % self.block == 0 for shape in layer.inputs)
            case "add" | "mul":
                return are_blocked and len(set(layer.inputs)) == 1
            case op if op in POOL_OPS:
                return layer.in_channels % self.block == 0
            case op if op in GLOBAL_POOL_OPS:
                return are_blocked and layer.in_channels % self.block == 0
            case "upsample_nearest":
                sizes = zip(layer.inputs[0][1:3], layer.output[1:3], strict=True)
                return are_blocked and all(after % before == 0 for before, after in sizes)
            case op:
                return op in FOLLOWING and are_blocked

    def _joins_convolution(self, node: Node) -> bool:
        """True if the convolution before an addition or an activation takes it over."""
        layer = node.layer
        if layer.op not in ("add", *JOINED):
            return False
        for place, name in enumerate(node.inputs):
            before = self.nodes[self.blocked[name]]
            joined = before.layer
            if self.uses[name] != 1 or joined.op not in CONVOLUTIONS or joined.activation != "none":
                continue
            if layer.op in JOINED:
                joined = replace(joined, activation=layer.op)
            elif not joined.adds_shortcut:
                shortcut = self._in_blocks(node.inputs[1 - place])
                joined = replace(joined, inputs=(*joined.inputs, joined.output))
                before = replace(before, inputs=(*before.inputs, shortcut))
            else:
                continue
            # it keeps its name, but runs where the later one stood: its inputs exist only there
            del self.nodes[before.name]
            self.nodes[before.name] = replace(before, layer=joined)
            self.blocked[node.name] = before.name
            return True
        return False

    def _filled(self, layer: LayerSpec, reads_plain: bool) -> LayerSpec:
        """The layer with its channels filled up to whole blocks."""
        inputs = layer.inputs if reads_plain else tuple(whole_blocks(shape, self.block) for shape in layer.inputs)
        output = whole_blocks(layer.output, self.block)
        groups = output[-1] if layer.op == "depthwise_conv2d" else layer.groups
        # elementwise operators and concatenations are the same ones in both layouts
        layout = "" if layer.op in ("add", "mul", "concat", *FOLLOWING) else self._layout
        return replace(layer, inputs=inputs, output=output, groups=groups, layout=layout)

    @property
    def _layout(self) -> str:
        return f"{BLOCKED}{self.block}"

    def _in_blocks(self, name: str) -> str:
        """The node that makes the activation in blocks; a copy into blocks is added if there is none."""
        if name in self.blocked:
            return self.blocked[name]
        if name not in self.copies:
            shape = self.shapes[name]
            copy = LayerSpec("reorder_input", (shape,), whole_blocks(shape, self.block), layout=self._layout)
            self._add(Node(f"{name}.reorder_input", copy, (self.plain[name],)), self.copies, name)
        return self.copies[name]

    def _in_plain(self, name: str) -> str:
        """The same for the plain layout."""
        if name not in self.plain:
            shape, maker = self.shapes[name], self.nodes[self.blocked[name]]
            copy = LayerSpec("reorder_output", (whole_blocks(shape, self.block),), shape, layout=self._layout)
            self._add(Node(f"{name}.reorder_output", copy, (maker.name,), self.owners.get(name)), self.plain, name)
        return self.plain[name]

    def _add(self, node: Node, makers: dict[str, str], name: str) -> None:
        self.nodes[node.name] = node
        makers[name] = node.name
