"""The layers that a runtime executes for a network: residual additions fused with their neighbours.

A model file has a convolution, an addition and an activation. These are the rules of onnxruntime 1.31 and LiteRT 2.3 on x86, as
seen in onnxruntime's optimised model and in the files that litert-torch exports:

- In onnxruntime a float convolution without an activation, and without another reader, adds the shortcut itself. It can then apply
  a ReLU, but no ReLU6. If both operands are such convolutions, the first one adds. An addition that stays alone has no activation.
- In TFLite the addition can apply a ReLU or ReLU6. An addition of integers can do so in both runtimes, because the activation is
  only the range to which its output is quantised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from profiler.layers.graph import Graph, Node
from profiler.runtimes import fusion_of

AFTER_CONVOLUTION = ("relu",)
"""The activations that a convolution can apply after it has added a shortcut."""
AFTER_ADDITION = ("relu", "relu6")
"""The activations that an addition can apply."""


def fuse_for(graph: Graph, runtime: str) -> Graph:
    """The network with its additions fused as this runtime fuses them; unchanged if the rules of the runtime are unknown."""
    rules = fusion_of(runtime)
    if rules is None or not any(node.layer.op == "add" for node in graph.nodes):
        return graph
    uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))
    kept: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for original in graph.nodes:
        node = replace(original, inputs=tuple(renamed.get(name, name) for name in original.inputs))
        fused = _with_shortcut(node, kept, uses) if rules == "onnxruntime" else None
        fused = fused or _with_activation(node, kept, uses, rules)
        if fused is None:
            kept[node.name] = node
            continue
        # the fused group keeps the name of its first part, but runs where the later one stood: its inputs exist only there
        del kept[fused.name]
        kept[fused.name] = fused
        renamed[node.name] = fused.name
        uses[fused.name] = uses[node.name]
    if not renamed:
        return graph
    return replace(graph, nodes=tuple(kept.values()), outputs=tuple(renamed.get(name, name) for name in graph.outputs))


def _with_shortcut(node: Node, kept: Mapping[str, Node], uses: Counter[str]) -> Node | None:
    """The convolution before this addition with the addition as its shortcut; None if there is no such pair."""
    layer = node.layer
    if layer.op != "add" or layer.activation != "none" or layer.dtype != "float32" or len(set(layer.inputs)) > 1:
        return None
    for place, name in enumerate(node.inputs):
        conv = kept.get(name)
        shortcut = node.inputs[1 - place]
        if conv is None or uses[name] != 1 or shortcut == name or conv.layer.op != "conv2d" or conv.layer.opaque is not None:
            continue
        if conv.layer.activation == "none" and len(conv.inputs) == 1:
            whole = replace(conv.layer, inputs=(*conv.layer.inputs, layer.inputs[1 - place]))
            return replace(conv, layer=whole, inputs=(*conv.inputs, shortcut))
    return None


def _with_activation(node: Node, kept: Mapping[str, Node], uses: Counter[str], rules: str) -> Node | None:
    """The addition, or the convolution with a shortcut, before this activation, with the activation; None if it cannot apply it."""
    before = kept.get(node.inputs[0]) if len(node.inputs) == 1 else None
    if before is None or uses[before.name] != 1 or before.layer.activation != "none" or before.layer.opaque is not None:
        return None
    possible: tuple[str, ...] = ()
    if before.layer.adds_shortcut:
        possible = AFTER_CONVOLUTION
    elif before.layer.op == "add" and (rules != "onnxruntime" or before.layer.dtype != "float32"):
        possible = AFTER_ADDITION
    if node.layer.op not in possible:
        return None
    return replace(before, layer=replace(before.layer, activation=node.layer.op))
