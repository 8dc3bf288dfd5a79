"""Groups that onnxruntime splits although they are one layer, put together again: a lone layer's file is split the same way.

HardSwish becomes HardSigmoid and Mul, and (when onnxruntime makes its blocked layout) part of the convolution before it;
a linear layer over a sequence becomes Reshape, Gemm and Reshape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from onnx import ModelProto, NodeProto, helper

from profiler.formats.onnx.tensors import opset_of, used_by
from profiler.layers.graph import Node

_RESHAPES = ("Reshape", "flatten")


def join_hard_swish(model: ModelProto) -> None:
    """Every x · HardSigmoid(x) with HardSwish's slope, in place."""
    if opset_of(model) < 14:  # there was no HardSwish
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
    attributes = {item.name: item.f for item in node.attribute}
    slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return node.op_type == "HardSigmoid" and abs(slope - 1 / 6) < 1e-4 and offset == 0.5


def joined(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """Convolutions with the HardSwish after them, and linear layers with the reshapes around them."""
    uses = Counter([name for node in nodes for name in node.inputs] + list(outputs))
    kept: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for current in nodes:
        node = replace(current, inputs=tuple(renamed.get(name, name) for name in current.inputs))
        before = _only_source(node, kept, uses)
        first = _only_source(before, kept, uses) if before else None
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


def _only_source(node: Node, kept: dict[str, Node], uses: Counter[str]) -> Node | None:
    """The node that feeds this one, if it feeds nothing else."""
    source = kept.get(node.inputs[0]) if len(node.inputs) == 1 else None
    return source if source is not None and uses[source.name] == 1 else None


def _conv_with_hard_swish(conv: Node, swish: Node) -> Node | None:
    layers = (conv.layer, swish.layer)
    if conv.layer.op not in ("conv2d", "depthwise_conv2d") or swish.layer.op != "hard_swish" or any(x.opaque for x in layers):
        return None
    return replace(conv, layer=replace(conv.layer, activation="hard_swish")) if conv.layer.activation == "none" else None


def _linear_over_sequence(first: Node, linear: Node, last: Node) -> Node | None:
    if linear.layer.op != "fully_connected" or linear.layer.opaque or {first.layer.op, last.layer.op} - set(_RESHAPES):
        return None
    source, target = first.layer.inputs[0], last.layer.output
    if not len(source) == len(target) == 3 or source[:2] != target[:2] or source[2] != linear.layer.in_channels:
        return None
    return replace(linear, layer=replace(linear.layer, inputs=(source,), output=target), inputs=first.inputs)
