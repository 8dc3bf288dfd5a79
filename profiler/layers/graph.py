"""A network as a graph of fused groups, and the same network at other widths.

The graph is what a model file is read into, what a single layer or a whole network is emitted from (a lone layer is a graph of
one node), and what NetAdapt narrows: `at_widths` needs no weights and no torch, so a table can price thousands of candidates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from device_agents.support.dataclass_json import read_value
from profiler.errors import LayerError, PlanError
from profiler.layers.layer import BLOCK_OPS, LayerSpec, Shape


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    layer: LayerSpec
    inputs: tuple[str, ...]
    """Names of the nodes or graph inputs that feed it, in the layer's order."""
    block: str | None = None
    """The coupling group whose width is this layer's number of output channels; None where the width is not ours to choose."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in an order in which they can run. `PlanError` if a node reads what does not exist yet or in another shape."""

    name: str
    inputs: tuple[tuple[str, Shape], ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    opaques: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Model files of cut-out layers, by digest."""

    def __post_init__(self) -> None:
        shapes = dict(self.inputs)
        extract: set[str] = set()
        for node in self.nodes:
            if node.name in shapes:
                raise PlanError(f"{self.name}: the name {node.name!r} is used twice")
            missing = [name for name in node.inputs if name not in shapes]
            if missing:
                raise PlanError(f"{self.name}: {node.name} reads {missing[0]!r}, which nothing before it makes")
            if node.layer.op in BLOCK_OPS and node.layer.opaque is None:
                raise PlanError(
                    f"{self.name}: {node.name} is a block that others have measured as one, which no network is made of"
                )
            shapes[node.name] = node.layer.output
            if node.layer.opaque is not None:
                extract.add(node.name)  # its shapes are in its file's own layout, and it may make several tensors
            elif extract.isdisjoint(node.inputs):
                given = tuple(shapes[name] for name in node.inputs)
                if given != node.layer.inputs:
                    raise PlanError(f"{self.name}: {node.name} expects inputs {list(node.layer.inputs)} but is given {list(given)}")
        for name in self.outputs:
            if name not in shapes:
                raise PlanError(f"{self.name}: output {name!r} is not made by any node")

    @classmethod
    def of_layer(cls, layer: LayerSpec, opaques: Mapping[str, bytes] | None = None) -> Graph:
        """The graph of one lone layer."""
        inputs = tuple((f"input_{index}", shape) for index, shape in enumerate(layer.inputs))
        node = Node("layer", layer, tuple(name for name, _ in inputs))
        return cls(layer.key, inputs, (node,), ("layer",), opaques or {})

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """One for every node, repeated where the network repeats it."""
        return tuple(node.layer for node in self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference; layers whose count is unknown are left out."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def widths(self) -> dict[str, int]:
        """Output channels of every block, in the order of the network."""
        return {node.block: node.layer.out_channels for node in self.nodes if node.block is not None}

    def at_widths(self, widths: Mapping[str, int]) -> Graph:
        """The same network with other widths; blocks that are not named keep theirs.

        `LayerError` if a width is below 1 or a layer cannot follow.
        """
        unknown = sorted(set(widths) - set(self.widths))
        if unknown:
            raise PlanError(f"{self.name} has no block {unknown[0]!r}; it has {', '.join(self.widths)}")
        before, after = dict(self.inputs), dict(self.inputs)
        nodes = []
        for node in self.nodes:
            width = widths.get(node.block) if node.block is not None else None
            if width is not None and width < 1:
                raise LayerError(f"{self.name}: block {node.block} cannot have {width} channels")
            layer = node.layer
            if width not in (None, layer.out_channels) or any(before[name] != after[name] for name in node.inputs):
                layer = layer.resized(_resized_inputs(node, before, after), width)
            before[node.name], after[node.name] = node.layer.output, layer.output
            nodes.append(node if layer is node.layer else Node(node.name, layer, node.inputs, node.block))
        return Graph(self.name, self.inputs, tuple(nodes), self.outputs, self.opaques)

    def with_precision(self, dtype: str) -> Graph:
        """The same network with every layer in this data type. `LayerError` if there is no such type, and for a cut-out."""
        nodes = tuple(replace(node, layer=node.layer.with_dtype(dtype)) for node in self.nodes)
        return Graph(self.name, self.inputs, nodes, self.outputs, self.opaques)

    def prefix(self, count: int) -> Graph:
        """The network's first `count` nodes; what they do not use themselves becomes its outputs."""
        nodes = self.nodes[:count]
        used = {name for node in nodes for name in node.inputs}
        outputs = tuple(node.name for node in nodes if node.name not in used)
        return Graph(f"{self.name}[:{count}]", tuple(item for item in self.inputs if item[0] in used), nodes, outputs, self.opaques)

    def layer_at(self, name: str, widths: Mapping[str, int]) -> LayerSpec:
        """One node's layer in the network at these widths."""
        return next(node.layer for node in self.at_widths(widths).nodes if node.name == name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "inputs": {name: list(shape) for name, shape in self.inputs},
            "nodes": [
                {"name": node.name, "inputs": list(node.inputs), "layer": node.layer.to_dict()}
                | ({"block": node.block} if node.block else {})
                for node in self.nodes
            ],
            "outputs": list(self.outputs),
            "opaques": {digest: base64.b64encode(data).decode() for digest, data in self.opaques.items()},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Graph:
        """The inverse of `to_dict`, for data from a file. `PlanError` or `LayerError` if it makes no sense."""
        try:
            nodes = tuple(
                Node(
                    str(item["name"]),
                    LayerSpec.from_dict(item["layer"]),
                    tuple(map(str, item["inputs"])),
                    read_value(str | None, item.get("block")),
                )
                for item in plain["nodes"]
            )
            inputs = tuple((name, read_value(tuple[int, ...], shape)) for name, shape in plain["inputs"].items())
            opaques = {digest: base64.b64decode(data, validate=True) for digest, data in plain.get("opaques", {}).items()}
            for digest, data in opaques.items():
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ValueError(f"the cut-out {digest[:16]} is not what was cut out")
            return cls(str(plain["name"]), inputs, nodes, tuple(map(str, plain["outputs"])), opaques)
        except (TypeError, KeyError, AttributeError, ValueError, binascii.Error) as exc:
            if isinstance(exc, LayerError):
                raise
            raise PlanError(f"not a network description: {exc!r}") from exc


def _resized_inputs(node: Node, before: Mapping[str, Shape], after: Mapping[str, Shape]) -> list[Shape]:
    """What has not changed the layer knows itself: a cut-out's output may be in another layout than the layer reads it."""
    if node.layer.opaque is not None:
        return [after[name] for name in node.inputs]
    own = zip(node.inputs, node.layer.inputs, strict=True)
    return [shape if before[name] == after[name] else after[name] for name, shape in own]


def unique_layers(layers: Iterable[LayerSpec]) -> dict[LayerSpec, int]:
    """Each distinct layer and how often it occurs, in the order of first occurrence."""
    counts: dict[LayerSpec, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return counts
