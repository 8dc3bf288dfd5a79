"""Which operators ONNX Runtime executes for layers of 8-bit integers, and where it copies activations to channels last and back.

These are rules for pricing thousands of widths without asking a device for each: a build checks them against what the runtime
itself tells of the networks that it measures. They follow ONNX Runtime 1.31 (onnxruntime/core/optimizer/nhwc_transformer.cc and
transpose_optimization/) for files whose every operator stands between DequantizeLinear and QuantizeLinear:

- A ReLU or ReLU6 is the range of the layer before it. By itself, or after a layer that only moves values, it is a conversion to
  floats and back. Hard-swish, hard-sigmoid, ELU, softplus, tanh, bilinear upsampling and the global maximum are computed in
  floats between such conversions.
- Convolutions have the channels last. Their input is copied to that layout, and their output back.
- Such a copy moves on behind the operator that reads it, if that operator can have the channels last and if fewer copies, or copies
  of fewer dimensions above 1, are left in this way. Copies that meet annul each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from profiler.layers.graph import Graph, Node
from profiler.layers.layer import (
    BINARY_OPS,
    CHANNELS_LAST,
    CONVERSION_OPS,
    POOL_OPS,
    USUAL_SLOPE,
    WEIGHTED_OPS,
    LayerSpec,
    Shape,
)

INTEGERS = ("int8", "uint8")
RANGES = ("relu", "relu6")
"""The activations that are only the range to which a layer's output is quantised."""
_RANGED = (*WEIGHTED_OPS, *BINARY_OPS, "concat")
"""The layers whose activation quantisers write as a range, even if the network has it as a layer of its own."""
_MOVES = (*POOL_OPS, "global_max_pool", "upsample_nearest", "upsample_bilinear", "flatten")
"""Layers whose output has the range of their input."""
_IN_FLOATS = ("hard_sigmoid", "elu", "softplus", "tanh", "upsample_bilinear", "global_max_pool")
_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
_LAID_OUT = ("avg_pool2d", "max_pool2d", "global_avg_pool", "concat", "softmax", "upsample_nearest")
"""Operators that are others with the channels last. Those that compute value by value are the same ones."""
_VALUE_BY_VALUE = (
    *BINARY_OPS, *CONVERSION_OPS, *RANGES, "sigmoid", "leaky_relu", "hard_sigmoid", "hard_swish", "elu", "softplus", "tanh",
)  # fmt: skip
_NOT_WRITTEN = ("conv_transpose2d", "gelu")
"""Integer layers of which it is not modelled what the runtime executes."""


def is_one_operator(layer: LayerSpec) -> bool:
    """True if the runtime executes this layer of integers as one operator."""
    if layer.op in _NOT_WRITTEN or layer.op in (*RANGES, *_IN_FLOATS, "hard_swish", "silu") or layer.activation != "none":
        return layer.op == "global_max_pool" and len(layer.output) == 2 and layer.activation == "none"
    return not (layer.op == "fully_connected" and (len(layer.output) == 4 or (len(layer.output) == 3 and layer.bias)))


def with_ranges(graph: Graph) -> Graph:
    """The network with each activation that is only a range as a part of the layer before it, as quantisers write it.

    The layer keeps its name and its place.
    """
    uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))
    kept: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for original in graph.nodes:
        node = replace(original, inputs=tuple(renamed.get(name, name) for name in original.inputs))
        before = kept.get(node.inputs[0]) if node.layer.op in RANGES and node.layer.opaque is None else None
        if (
            before is not None
            and uses[before.name] == 1
            and before.layer.opaque is None
            and before.layer.op in _RANGED
            and before.layer.activation == "none"
            and before.layer.dtype in INTEGERS
        ):
            kept[before.name] = replace(before, layer=replace(before.layer, activation=node.layer.op))
            renamed[node.name] = before.name
            uses[before.name] = uses[node.name]
        else:
            kept[node.name] = node
    return replace(graph, nodes=tuple(kept.values()), outputs=tuple(renamed.get(name, name) for name in graph.outputs))


def as_integers(graph: Graph) -> Graph:
    """What the runtime executes for the layers of integers; those of floats stay as they are, and so do extracted ones."""
    if not any(layer.dtype in INTEGERS and layer.opaque is None for layer in graph.layers):
        return graph
    parts = [part for node in with_ranges(graph).nodes for part in _operators(node)]
    return _Rewriter(replace(with_ranges(graph), nodes=tuple(parts))).result()


def _operators(node: Node) -> Iterator[Node]:
    """The operators of a layer, of which the last one has its name."""
    layer = node.layer
    if layer.opaque is not None or layer.dtype not in INTEGERS or layer.op in _NOT_WRITTEN:
        yield node
        return
    activation = layer.activation
    if activation in RANGES and layer.op not in _MOVES:
        activation = "none"
    layer = replace(layer, activation="none", slope=USUAL_SLOPE if layer.op != "leaky_relu" else layer.slope)
    if activation != "none":
        before = replace(node, name=f"{node.name}.before_activation", layer=layer)
        yield from _operators(before)
        shape = layer.output
        alone = LayerSpec(activation, (shape,), shape, slope=node.layer.slope, dtype=layer.dtype)
        yield from _operators(replace(node, layer=alone, inputs=(before.name,), follows=()))
        return
    floats = replace(node, layer=replace(layer, dtype="float32"))
    match layer.op:
        case "fully_connected" if len(layer.output) == 4:
            yield replace(node, layer=replace(layer, op="conv2d"))
        case "depthwise_conv2d" if layer.groups == 1:
            yield replace(node, layer=replace(layer, op="conv2d"))
        case "global_avg_pool" if len(layer.output) == 2:
            image = (layer.output[0], 1, 1, layer.output[1])
            pool = replace(node, name=f"{node.name}.figure", layer=replace(layer, output=image))
            yield pool
            flatten = LayerSpec("flatten", (image,), layer.output, dtype=layer.dtype)
            yield replace(node, layer=flatten, inputs=(pool.name,))
        case "silu":
            gate = replace(node, name=f"{node.name}.gate", layer=replace(layer, op="sigmoid"))
            yield gate
            yield replace(node, layer=replace(layer, op="mul", inputs=layer.inputs * 2), inputs=(*node.inputs, gate.name))
        case "hard_swish":
            gate = replace(floats, name=f"{node.name}.hard_sigmoid", layer=replace(floats.layer, op="hard_sigmoid"))
            source = f"{node.name}.dequantise"
            product = replace(floats.layer, op="mul", inputs=layer.inputs * 2)
            yield _conversion("dequantise", node, source, node.inputs[0], layer.inputs[0])
            yield replace(gate, inputs=(source,))
            yield replace(floats, name=f"{node.name}.float", layer=product, inputs=(source, gate.name))
            yield _conversion("quantise", node, node.name, f"{node.name}.float", layer.output)
        case "relu" | "relu6":
            yield _conversion("dequantise", node, f"{node.name}.dequantise", node.inputs[0], layer.inputs[0])
            yield _conversion("quantise", node, node.name, f"{node.name}.dequantise", layer.output)
        case op if op in _IN_FLOATS and not is_one_operator(layer):
            source = f"{node.name}.dequantise"
            yield _conversion("dequantise", node, source, node.inputs[0], layer.inputs[0])
            yield replace(floats, name=f"{node.name}.float", inputs=(source,))
            yield _conversion("quantise", node, node.name, f"{node.name}.float", layer.output)
        case _:
            yield replace(node, layer=layer)


def _conversion(kind: str, of: Node, name: str, source: str, shape: Shape) -> Node:
    return Node(name, LayerSpec(kind, (shape,), shape, dtype=of.layer.dtype), (source,))


@dataclass(slots=True)
class _Rewriter:
    """Gives each operator its layout, and adds the copies between layouts."""

    graph: Graph
    nodes: dict[str, Node] = field(default_factory=dict)
    made_last: dict[str, str] = field(default_factory=dict)
    """Activations that are made with the channels last, and the nodes that make them; all others are made with them first."""
    copies: dict[tuple[str, str], str] = field(default_factory=dict)
    """By activation and kind of copy, the node that copies it."""
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    movable: set[str] = field(default_factory=set)
    """Activations all of whose readers can have the channels last, so that the copy of one may go."""
    leading: set[str] = field(default_factory=set)
    """Activations that are copied to channels last further on, in any case."""

    def result(self) -> Graph:
        graph = self.graph
        self.shapes = dict(graph.inputs) | {node.name: node.layer.output for node in graph.nodes}
        self.types = {node.name: _type_made(node.layer) for node in graph.nodes}
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in reversed(graph.nodes):
            if _is_convolution(node.layer) or (node.name in self.leading and _can_follow(node.layer)):
                self.leading.update(node.inputs)
            for name in node.inputs:
                readers[name].append(node)
        for name, found in readers.items():
            if name not in graph.outputs and all(_is_convolution(node.layer) or _can_follow(node.layer) for node in found):
                self.movable.add(name)
        for node in graph.nodes:
            layer = node.layer
            last = _is_convolution(layer) or self._follows(node)
            if last:
                laid_out = layer.op in (*_CONVOLUTIONS, *_LAID_OUT, "upsample_bilinear")
                layer = replace(layer, layout=CHANNELS_LAST if laid_out else layer.layout)
                self.made_last[node.name] = node.name
            inputs = tuple(self._copied(name, to_last=last) for name in node.inputs)
            self.nodes[node.name] = replace(node, layer=layer, inputs=inputs)
        outputs = tuple(self._copied(name, to_last=False) for name in graph.outputs)
        return replace(graph, nodes=tuple(self.nodes.values()), outputs=outputs)

    def _follows(self, node: Node) -> bool:
        """True if a copy of what the operator reads moves on behind it.

        The optimiser counts a copy by the dimensions of what it copies, as far as these are above 1.
        """
        if not _can_follow(node.layer) or not any(name in self.made_last for name in node.inputs):
            return False
        cost = 0
        for name in node.inputs:
            size = _dimensions(self.shapes[name])
            if name not in self.made_last:
                cost += size
            elif name in self.movable:
                cost -= size
        if cost < 0 and node.name not in self.leading:
            cost += _dimensions(node.layer.output)
        return cost < 0 or (node.layer.op == "max_pool2d" and node.layer.dtype in INTEGERS)

    def _copied(self, name: str, *, to_last: bool) -> str:
        """The node that makes the activation in the layout; a copy is added if there is none."""
        if (name in self.made_last) == to_last:
            return name
        kind = "reorder_input" if to_last else "reorder_output"
        if (name, kind) not in self.copies:
            shape = self.shapes[name]
            copy = LayerSpec(kind, (shape,), shape, dtype=self.types.get(name, "int8"), layout=CHANNELS_LAST)
            node = Node(f"{name}.{kind}", copy, (name,))
            self.nodes[node.name] = node
            self.copies[name, kind] = node.name
        return self.copies[name, kind]


def _is_convolution(layer: LayerSpec) -> bool:
    return layer.op in _CONVOLUTIONS and layer.opaque is None and layer.dtype in INTEGERS


def _can_follow(layer: LayerSpec) -> bool:
    """True if the operator can have the channels last."""
    if layer.opaque is not None or layer.block > 1 or any(len(shape) != 4 for shape in (*layer.inputs, layer.output)):
        return False
    return layer.op in (*_VALUE_BY_VALUE, "upsample_bilinear") or (layer.op in _LAID_OUT and layer.dtype in INTEGERS)


def _type_made(layer: LayerSpec) -> str:
    return "float32" if layer.op == "dequantise" else "int8" if layer.dtype in INTEGERS else layer.dtype


def _dimensions(shape: Shape) -> int:
    return sum(size != 1 for size in shape)
