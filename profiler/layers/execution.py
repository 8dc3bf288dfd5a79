"""Which operators a runtime executes for a network, by rules: what it fuses, in which layout it runs, and what it copies.

The rules let thousands of widths be priced without asking a device about each. They are not the source of the truth: a build
asks the runtime itself for every network that it measures, compares, and says so where the rules are wrong
(profiler.tables.build). They are those of onnxruntime 1.31 and LiteRT 2.3 on x86.

- onnxruntime has operators of its own for integers (profiler.layers.integers), and runs convolutions of floats in blocks of
  channels (profiler.layers.blocked). In the plain layout, too, a convolution of floats without
  an activation and with no other reader adds the shortcut of an addition itself; if both operands are such convolutions, the
  second one does. It can then apply a ReLU, but no ReLU6.
- In TFLite an addition can apply a ReLU or ReLU6.
- In TFLite every layer with weights and every pool of floats applies a ReLU or ReLU6 behind it itself (clamps in
  xnn_subgraph_fusion of XNNPACK). All other activations are operators of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from profiler.layers.blocked import in_blocks
from profiler.layers.entries import entry_of
from profiler.layers.graph import Graph, Node
from profiler.layers.integers import as_integers
from profiler.layers.layer import POOL_OPS, USUAL_SLOPE, WEIGHTED_OPS, LayerSpec
from profiler.runtimes import UNKNOWN_RUNTIME, fusion_of

AFTER_CONVOLUTION = ("relu",)
"""The activations that a convolution can apply after it has added a shortcut."""
AFTER_ADDITION = ("relu", "relu6")
"""The activations that an addition can apply, and XNNPACK's layers with weights and pools."""


@dataclass(frozen=True, slots=True)
class ExecutionRules:
    """The rules of one runtime on one device."""

    runtime: str
    block: int = 1
    """Channels in a block of the runtime's layout on this processor; 1 if it has no blocked layout there."""

    def executed(self, graph: Graph) -> Graph:
        """What the runtime executes; the network itself if it is that already, or if the rules of the runtime are not known."""
        fusion = fusion_of(self.runtime)
        if graph.executed or fusion is None:
            return graph
        if fusion == "onnxruntime":
            graph = as_integers(graph)
            graph = in_blocks(graph, self.block) if self.block > 1 else graph
        # published tables do not say with which runtime they were measured, and have layers with activations of all kinds
        if fusion == "tflite" and self.runtime != UNKNOWN_RUNTIME:
            graph = _with_activations_apart(graph)
        return replace(_with_fusions(graph, fusion), executed=True)

    def entry(self, layer: LayerSpec) -> LayerSpec:
        """The layer that stands for this one in a table (profiler.layers.entries)."""
        return entry_of(layer, fusion_of(self.runtime))

    def entries(self, graph: Graph) -> Graph:
        """What the runtime executes, each layer replaced by the one that stands for it in a table."""
        executed = self.executed(graph)
        return replace(executed, nodes=tuple(replace(node, layer=self.entry(node.layer)) for node in executed.nodes))


def _with_activations_apart(graph: Graph) -> Graph:
    """The same network with each activation other than ReLU and ReLU6 as a node of its own, which keeps the name."""
    nodes: list[Node] = []
    for node in graph.nodes:
        layer = node.layer
        if layer.opaque is None and layer.activation not in ("none", *AFTER_ADDITION):
            linear = replace(node, name=f"{node.name}/linear", layer=replace(layer, activation="none", slope=USUAL_SLOPE))
            activation = LayerSpec(layer.activation, (layer.output,), layer.output, slope=layer.slope, dtype=layer.dtype)
            nodes += [linear, Node(node.name, activation, (linear.name,))]
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _with_fusions(graph: Graph, fusion: str) -> Graph:
    """The same network with its additions fused with the convolution before, and activations with what they follow."""
    uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))
    kept: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for original in graph.nodes:
        node = replace(original, inputs=tuple(renamed.get(name, name) for name in original.inputs))
        fused = _with_shortcut(node, kept, uses) if fusion == "onnxruntime" else None
        fused = fused or _with_activation(node, kept, uses, fusion)
        if fused is None:
            kept[node.name] = node
            continue
        # the fused group keeps the name of its first part, but runs where the later one stood: its inputs exist only there
        del kept[fused.name]
        kept[fused.name] = fused
        renamed[node.name] = fused.name
        uses[fused.name] = uses[node.name]
    return replace(graph, nodes=tuple(kept.values()), outputs=tuple(renamed.get(name, name) for name in graph.outputs))


def _with_shortcut(node: Node, kept: Mapping[str, Node], uses: Counter[str]) -> Node | None:
    """The convolution before this addition with the addition as its shortcut; None if there is no such pair."""
    layer = node.layer
    if layer.op != "add" or layer.activation != "none" or layer.dtype != "float32" or len(set(layer.inputs)) > 1:
        return None
    for place in reversed(range(len(node.inputs))):
        name = node.inputs[place]
        conv = kept.get(name)
        shortcut = node.inputs[1 - place]
        if (
            conv is None
            or uses[name] != 1
            or shortcut == name
            or conv.layer.op != "conv2d"
            or conv.layer.opaque is not None
            or conv.layer.block > 1
        ):
            continue
        if conv.layer.activation == "none" and len(conv.inputs) == 1:
            whole = replace(conv.layer, inputs=(*conv.layer.inputs, layer.inputs[1 - place]))
            return replace(conv, layer=whole, inputs=(*conv.inputs, shortcut))
    return None


def _with_activation(node: Node, kept: Mapping[str, Node], uses: Counter[str], rules: str) -> Node | None:
    """The layer before this activation with the activation; None if it cannot apply it."""
    before = kept.get(node.inputs[0]) if len(node.inputs) == 1 else None
    if before is None or uses[before.name] != 1 or before.layer.opaque is not None or node.layer.opaque is not None:
        return None
    layer, activation = before.layer, node.layer.op
    possible: tuple[str, ...] = ()
    if rules == "tflite" and layer.dtype == "float32" and layer.op in (*WEIGHTED_OPS, *POOL_OPS):
        possible = AFTER_ADDITION if layer.activation in ("none", *AFTER_ADDITION) else ()
        activation = "relu6" if "relu6" in (layer.activation, activation) else activation  # XNNPACK joins the two ranges
    elif layer.activation != "none":
        return None
    elif layer.adds_shortcut:
        possible = AFTER_CONVOLUTION
    elif layer.op == "add" and rules != "onnxruntime":
        possible = AFTER_ADDITION
    if node.layer.op not in possible:
        return None
    return replace(before, layer=replace(layer, activation=activation))
