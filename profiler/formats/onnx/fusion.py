"""Rejoins the groups that onnxruntime splits although they are one layer. The file of a single layer is split in the same way.

onnxruntime turns HardSwish into HardSigmoid and Mul, and later, in its blocked layout, into a part of the convolution before it. It
turns a linear layer over a sequence into Reshape, Gemm and Reshape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from onnx import ModelProto, NodeProto, helper

from profiler.formats.onnx.tensors import opset_of, used_by
from profiler.layers.graph import Node

_RESHAPES = ("Reshape", "flatten")


def rejoin_hard_swish(model: ModelProto) -> None:
    """Replace every x * HardSigmoid(x) with the slope of HardSwish by a HardSwish, in place."""
    if opset_of(model) < 14:  # earlier opsets have no HardSwish
        return
    nodes = model.graph.node
    uses = Counter([name for node in nodes for name in used_by(node)] + [value.name for value in model.graph.output])
    gates = {node.output[0]: node for node in nodes if _is_gate(node) and uses[node.output[0]] == 1}
    for node in list(nodes):
        gate = next((gates[name] for name in node.input if name in gates), None)
        if node.op_type == "Mul" and gate is not None and set(node.input) == {gate.input[0], gate.output[0]}:
            node.CopyFrom(helper.make_node("HardSwish", [gate.input[0]], list(node.output), name=node.name))
            nodes.remove(gate)


def _is_gate(node: NodeProto) -> bool:
    """True if the node is the HardSigmoid of a HardSwish."""
    attributes = {item.name: item.f for item in node.attribute}
    slope = attributes.get("alpha", 0.2)
    offset = attributes.get("beta", 0.5)
    return node.op_type == "HardSigmoid" and abs(slope - 1 / 6) < 1e-4 and offset == 0.5


def rejoin_groups(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """The nodes and output names after convolutions took their HardSwish, and linear layers the reshapes around them."""
    uses = Counter([name for node in nodes for name in node.inputs] + list(outputs))
    kept: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for current in nodes:
        node = replace(current, inputs=tuple(renamed.get(name, name) for name in current.inputs))
        before = _sole_source(node, kept, uses)
        first = _sole_source(before, kept, uses) if before else None
        whole = None
        if before is not None:
            whole = _conv_with_hard_swish(before, node) or (_linear_over_sequence(first, before, node) if first else None)
        if whole is None or before is None:
            kept[node.name] = node
            continue
        del kept[before.name]
        if first is not None and whole.inputs == first.inputs:
            del kept[first.name]
        kept[whole.name] = whole
        renamed[node.name] = whole.name
        uses[whole.name] = uses[node.name]
    return tuple(kept.values()), tuple(renamed.get(name, name) for name in outputs)


def _sole_source(node: Node, kept: dict[str, Node], uses: Counter[str]) -> Node | None:
    """The node whose output this one reads, if nothing else reads it."""
    source = kept.get(node.inputs[0]) if len(node.inputs) == 1 else None
    return source if source is not None and uses[source.name] == 1 else None


def _conv_with_hard_swish(conv: Node, swish: Node) -> Node | None:
    """The convolution with the HardSwish as its activation; None if they do not belong together."""
    if conv.layer.op not in ("conv2d", "depthwise_conv2d") or swish.layer.op != "hard_swish":
        return None
    if conv.layer.opaque or swish.layer.opaque or conv.layer.activation != "none":
        return None
    return replace(conv, layer=replace(conv.layer, activation="hard_swish"))


def _linear_over_sequence(first: Node, linear: Node, last: Node) -> Node | None:
    """The linear layer on the input of the first reshape, (n, length, c) or (n, h, w, c); None if the three are something else."""
    if linear.layer.op != "fully_connected" or linear.layer.opaque or {first.layer.op, last.layer.op} - set(_RESHAPES):
        return None
    source = first.layer.inputs[0]
    target = last.layer.output
    if not len(source) == len(target) in (3, 4) or source[:-1] != target[:-1] or source[-1] != linear.layer.in_channels:
        return None
    return replace(linear, layer=replace(linear.layer, inputs=(source,), output=target), inputs=first.inputs)
