"""What a runtime makes of a residual addition: the layers of a network as they are really executed.

A model file has a convolution, an addition and an activation; seen on x86 with onnxruntime 1.31 and LiteRT 2.3, in the optimised
model and in what litert-torch exports:

- onnxruntime lets a float convolution that has no activation and no other reader add the shortcut itself, and then apply a ReLU,
  but no ReLU6. Of two such convolutions the addition's first operand does. An addition by itself takes no activation.
- TFLite's addition takes a ReLU or ReLU6. So does an addition of integers on both: it is the range that they are quantised to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from profiler.layers.graph import Graph, Node
from profiler.runtimes import fusion_of

AFTER_CONVOLUTION = ("relu",)
AFTER_ADDITION = ("relu", "relu6")


def as_executed(graph: Graph, runtime: str) -> Graph:
    """The same network with additions joined to their neighbours as this runtime does; unchanged where its rules are not known."""
    rules = fusion_of(runtime)
    if rules is None or not any(node.layer.op == "add" for node in graph.nodes):
        return graph
    uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))
    kept: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for found in graph.nodes:
        node = replace(found, inputs=tuple(renamed.get(name, name) for name in found.inputs))
        joined = _with_shortcut(node, kept, uses) if rules == "onnxruntime" else None
        joined = joined or _with_activation(node, kept, uses, rules)
        if joined is None:
            kept[node.name] = node
            continue
        gone, whole = joined
        del kept[gone]
        kept[whole.name] = whole
        renamed[node.name] = whole.name
        uses[whole.name] = uses[node.name]
    if not renamed:
        return graph
    return replace(graph, nodes=tuple(kept.values()), outputs=tuple(renamed.get(name, name) for name in graph.outputs))


def _with_shortcut(node: Node, kept: Mapping[str, Node], uses: Counter[str]) -> tuple[str, Node] | None:
    """A convolution and the addition after it: the name of the convolution, and both as one node called like it."""
    layer = node.layer
    if layer.op != "add" or layer.activation != "none" or layer.dtype != "float32" or len(set(layer.inputs)) > 1:
        return None
    for place, name in enumerate(node.inputs):
        conv, shortcut = kept.get(name), node.inputs[1 - place]
        if conv is None or uses[name] != 1 or shortcut == name or conv.layer.op != "conv2d" or conv.layer.opaque is not None:
            continue
        if conv.layer.activation == "none" and len(conv.inputs) == 1:
            whole = replace(conv.layer, inputs=(*conv.layer.inputs, layer.inputs[1 - place]))
            return name, replace(conv, layer=whole, inputs=(*conv.inputs, shortcut))
    return None


def _with_activation(node: Node, kept: Mapping[str, Node], uses: Counter[str], rules: str) -> tuple[str, Node] | None:
    """What was joined already, or an addition, and the activation after it."""
    before = kept.get(node.inputs[0]) if len(node.inputs) == 1 else None
    if before is None or uses[before.name] != 1 or before.layer.activation != "none" or before.layer.opaque is not None:
        return None
    adds_alone = before.layer.op == "add" and (rules != "onnxruntime" or before.layer.dtype != "float32")
    takes = AFTER_CONVOLUTION if before.layer.adds_shortcut else AFTER_ADDITION if adds_alone else ()
    if node.layer.op not in takes:
        return None
    return before.name, replace(before, layer=replace(before.layer, activation=node.layer.op))
