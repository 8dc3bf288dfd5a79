"""A network as a graph of fused groups, and the same network at other widths.

Model files are read into graphs, and files for single layers (graphs of one node) and whole networks are written from them.
NetAdapt prunes graphs: `at_widths` needs neither weights nor torch, so that a table can price thousands of candidates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from device_agents.support.dataclass_json import read_value
from profiler.errors import LayerError, PlanError
from profiler.layers.expressions import ChannelExpression
from profiler.layers.layer import BLOCK_OPS, FREE_OUTPUT, LayerSpec, Shape


@dataclass(frozen=True, slots=True)
class FollowedSize:
    """A size of a layer that is not constant and that its operation does not tell."""

    tensor: int | None
    """The index of the input; None for the output."""
    axis: int
    """As in the shapes of the layer."""
    expression: ChannelExpression


@dataclass(frozen=True, slots=True)
class Node:
    """A layer at its place in a network."""

    name: str
    """The name of the layer and of its output; unique in the graph."""
    layer: LayerSpec
    inputs: tuple[str, ...]
    """The names of the nodes or graph inputs that it reads, in the order of the layer's inputs."""
    block: str | None = None
    """The coupling group whose width is this layer's number of output channels; None if the width cannot be chosen."""
    slices: int = 1
    """The width of its block is a multiple of this, even where no layer shows it."""
    follows: tuple[FollowedSize, ...] = ()
    """The sizes that follow widths of blocks: of an opaque layer, of what reads a further tensor of one, and the output channels of
    a layer that has part or a multiple of a block's width."""
    repeats: bool = False
    """True for a further call of a layer that another node stands for: its weights are stored once."""

    def followed(self, tensor: int | None, axis: int) -> ChannelExpression | None:
        """The expression of a size in `follows`; None if it is not there."""
        found = (size.expression for size in self.follows if (size.tensor, size.axis) == (tensor, axis))
        return next(found, None)

    def followed_shape(self, tensor: int | None, shape: Shape, widths: Mapping[str, int]) -> Shape:
        """The shape with the sizes that follow, at the widths of all blocks."""
        sizes = {size.axis: size.expression for size in self.follows if size.tensor == tensor}
        return tuple(sizes[axis].at(widths) if axis in sizes else size for axis, size in enumerate(shape))


@dataclass(frozen=True, slots=True)
class Branch:
    """A part of a network that can be removed, as a shortcut leads around it: then its input takes the place of its output."""

    name: str
    """The path of its module, which returns its input where the branch is removed."""
    blocks: tuple[str, ...]
    """The blocks inside it, in the order of the network. All have width 0 where the first has, and then the branch is removed."""
    nodes: tuple[str, ...]
    """The names of its nodes, of which the last makes its output."""
    source: str
    """The name of the node or graph input that takes the place of its output."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A network: nodes in an order in which they can run.

    Raises `PlanError` if a node reads something that does not exist yet or that has another shape, or if a name is used twice.
    """

    name: str
    inputs: tuple[tuple[str, Shape], ...]
    """The names and shapes of the network's inputs."""
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    """The names of the nodes or inputs that the network returns."""
    opaques: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """The model files of opaque layers by their digests."""
    executed: bool = False
    """True if the nodes are what a runtime executes, in its layouts; False if they are the layers of a file or a network."""
    branches: tuple[Branch, ...] = ()
    """The parts that may be removed, in the order of the network."""
    removed: tuple[str, ...] = ()
    """The blocks of branches that are removed, whose width is 0."""

    def __post_init__(self) -> None:
        shapes = dict(self.inputs)
        opaque: set[str] = set()
        for node in self.nodes:
            if node.name in shapes:
                raise PlanError(f"{self.name}: the name {node.name!r} is used twice; rename one of the nodes")
            missing = [name for name in node.inputs if name not in shapes]
            if missing:
                raise PlanError(f"{self.name}: {node.name} reads {missing[0]!r}, which no node before it makes; reorder the nodes")
            if node.layer.op in BLOCK_OPS and node.layer.opaque is None:
                raise PlanError(f"{self.name}: {node.name} is a block of a published table; give the network its single layers")
            shapes[node.name] = node.layer.output
            if node.layer.opaque is not None:
                opaque.add(node.name)  # its shapes are in the layout of its file, and it may make several tensors
            elif opaque.isdisjoint(node.inputs):
                given = tuple(shapes[name] for name in node.inputs)
                if given != node.layer.inputs:
                    raise PlanError(f"{self.name}: {node.name} expects inputs {list(node.layer.inputs)} but is given {list(given)}")
        for name in self.outputs:
            if name not in shapes:
                raise PlanError(f"{self.name}: output {name!r} is not made by any node")

    @classmethod
    def of_layer(cls, layer: LayerSpec, opaques: Mapping[str, bytes] | None = None, *, executed: bool = False) -> Graph:
        """The graph of a single layer. `opaques` holds its model file if it is opaque. `executed` as in the field."""
        inputs = tuple((f"input_{index}", shape) for index, shape in enumerate(layer.inputs))
        node = Node("layer", layer, tuple(name for name, _ in inputs))
        return cls(layer.key, inputs, (node,), ("layer",), opaques or {}, executed)

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The layer of every node; a layer that the network repeats is repeated."""
        return tuple(node.layer for node in self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one inference; layers with an unknown count are left out."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def parameters(self) -> int:
        """The number of weights and biases; those of a layer that is called several times count once."""
        return sum(node.layer.parameters for node in self.nodes if not node.repeats)

    @property
    def widths(self) -> dict[str, int]:
        """The number of output channels of every block, in the order of the network; behind them 0 for every removed block."""
        return {node.block: node.layer.out_channels for node in self.nodes if node.block is not None} | dict.fromkeys(
            self.removed, 0
        )

    def at_widths(self, widths: Mapping[str, int]) -> Graph:
        """The network with other widths; blocks that are not named keep theirs. A branch whose first block has width 0 is removed.

        Raises `PlanError` for an unknown block, and `LayerError` if any other width is below 1, a removed block has another width
        than 0, or a layer cannot have such channel counts.
        """
        unknown = sorted(set(widths) - set(self.widths))
        if unknown:
            raise PlanError(f"{self.name} has no block {unknown[0]!r}; it has {', '.join(self.widths)}")
        if gone := [branch for branch in self.branches if widths.get(branch.blocks[0]) == 0]:
            inside = {block for branch in gone for block in branch.blocks}
            return self._without(gone).at_widths({block: width for block, width in widths.items() if block not in inside})
        if returning := [block for block in self.removed if widths.get(block)]:
            raise LayerError(f"{self.name}: block {returning[0]} is removed and cannot have {widths[returning[0]]} channels")
        widths = {block: width for block, width in widths.items() if block not in self.removed}
        every = self.widths | widths
        before = dict(self.inputs)
        after = dict(self.inputs)
        nodes = []
        for node in self.nodes:
            width = widths.get(node.block) if node.block is not None else None
            if width is not None and width < 1:
                raise LayerError(f"{self.name}: block {node.block} cannot have {width} channels")
            layer = node.layer
            if layer.op in FREE_OUTPUT and (followed := node.followed(None, len(layer.output) - 1)) is not None:
                width = followed.at(every)
            # rows that are looked up have as many numbers as the block, whatever is read
            has_other_rows = layer.opaque is not None and node.followed_shape(None, layer.output, every) != layer.output
            if (
                width not in (None, layer.out_channels)
                or has_other_rows
                or any(before[name] != after[name] for name in node.inputs)
            ):
                # an opaque layer may make several tensors, of which the first is known to its readers
                read = enumerate(zip(node.inputs, layer.inputs, strict=True))
                inputs = [
                    after[name] if shape == before[name] else node.followed_shape(index, shape, every)
                    for index, (name, shape) in read
                ]
                if layer.opaque is not None and node.follows:
                    inputs = [node.followed_shape(index, shape, every) for index, shape in enumerate(layer.inputs)]
                    layer = layer.extracted_at(inputs, node.followed_shape(None, layer.output, every))
                else:
                    layer = layer.resized(inputs, width)
            before[node.name] = node.layer.output
            after[node.name] = layer.output
            nodes.append(node if layer is node.layer else replace(node, layer=layer))
        return replace(self, nodes=tuple(nodes))

    def _without(self, branches: Sequence[Branch]) -> Graph:
        """The network without these branches."""
        gone = {name for branch in branches for name in branch.nodes}
        instead = {branch.nodes[-1]: branch.source for branch in branches}

        def made(name: str) -> str:
            while name in instead:  # what it reads may be the output of another branch that is removed
                name = instead[name]
            return name

        return replace(
            self,
            nodes=tuple(replace(node, inputs=tuple(map(made, node.inputs))) for node in self.nodes if node.name not in gone),
            outputs=tuple(map(made, self.outputs)),
            branches=tuple(replace(branch, source=made(branch.source)) for branch in self.branches if branch not in branches),
            removed=(*self.removed, *(block for branch in branches for block in branch.blocks)),
        )

    def with_precision(self, dtype: str) -> Graph:
        """The network with every layer in this data type. Raises `LayerError` for an unknown type and for opaque layers."""
        nodes = tuple(replace(node, layer=node.layer.with_dtype(dtype)) for node in self.nodes)
        return replace(self, nodes=nodes)

    def prefix(self, count: int) -> Graph:
        """The network of the first `count` nodes; its outputs are those that no node among them reads."""
        nodes = self.nodes[:count]
        used = {name for node in nodes for name in node.inputs}
        outputs = tuple(node.name for node in nodes if node.name not in used)
        inputs = tuple(item for item in self.inputs if item[0] in used)
        return replace(self, name=f"{self.name}[:{count}]", inputs=inputs, nodes=nodes, outputs=outputs, branches=(), removed=())

    def part(self, first: int, last: int) -> Graph:
        """The network of the nodes from `first` up to but without `last`.

        Its inputs are what they read from other nodes. Its outputs are what other nodes, or none at all, read from them.
        """
        nodes = {node.name: node for node in self.nodes[first:last]}
        made = dict(self.inputs) | {node.name: node.layer.output for node in self.nodes}
        shapes: dict[str, Shape] = {}
        # an opaque layer has the layout of the file, so another reader's shape is preferred
        for node in sorted(nodes.values(), key=lambda node: node.layer.opaque is not None):
            read = list(node.inputs)
            for place, (source, shape) in enumerate(zip(node.inputs, node.layer.inputs, strict=False)):
                if source not in nodes and shapes.setdefault(source, shape) != shape and node.layer.opaque is None:
                    read[place] = f"{source} {shape}"  # another tensor of a node outside that makes several
                    shapes[read[place]] = shape
            for source in node.inputs[len(node.layer.inputs) :]:  # weights that the network computes are no input of the layer
                if source not in nodes:
                    shapes.setdefault(source, made[source])
            nodes[node.name] = replace(node, inputs=tuple(read))
        inside = {source for node in nodes.values() for source in node.inputs}
        elsewhere = {source for node in (*self.nodes[:first], *self.nodes[last:]) for source in node.inputs} | set(self.outputs)
        return replace(
            self,
            name=f"{self.name}[{first}:{last}]",
            inputs=tuple(shapes.items()),
            nodes=tuple(nodes.values()),
            outputs=tuple(name for name in nodes if name in elsewhere or name not in inside),
            branches=(),
            removed=(),
        )

    def layer_at(self, name: str, widths: Mapping[str, int]) -> LayerSpec:
        """The layer of one node in the network at these widths."""
        return next(node.layer for node in self.at_widths(widths).nodes if node.name == name)

    def to_dict(self) -> dict[str, Any]:
        """The graph as JSON-ready values."""
        return {
            "name": self.name,
            "inputs": {name: list(shape) for name, shape in self.inputs},
            "nodes": [
                {"name": node.name, "inputs": list(node.inputs), "layer": node.layer.to_dict()}
                | ({"block": node.block} if node.block else {})
                | ({"slices": node.slices} if node.slices > 1 else {})
                | ({"follows": [asdict(size) for size in node.follows]} if node.follows else {})
                | ({"repeats": True} if node.repeats else {})
                for node in self.nodes
            ],
            "outputs": list(self.outputs),
            "opaques": {digest: base64.b64encode(data).decode() for digest, data in self.opaques.items()},
            "executed": self.executed,
            **({"branches": [asdict(branch) for branch in self.branches]} if self.branches else {}),
            **({"removed": list(self.removed)} if self.removed else {}),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Graph:
        """The inverse of `to_dict`, for data from a file. Raises `PlanError` or `LayerError` if the data is invalid."""
        try:
            nodes = tuple(
                Node(
                    str(item["name"]),
                    LayerSpec.from_dict(item["layer"]),
                    tuple(map(str, item["inputs"])),
                    read_value(str | None, item.get("block")),
                    read_value(int, item.get("slices", 1)),
                    read_value(tuple[FollowedSize, ...], item.get("follows", [])),
                    read_value(bool, item.get("repeats", False)),
                )
                for item in plain["nodes"]
            )
            inputs = tuple((name, read_value(tuple[int, ...], shape)) for name, shape in plain["inputs"].items())
            opaques = {digest: base64.b64decode(data, validate=True) for digest, data in plain.get("opaques", {}).items()}
            for digest, data in opaques.items():
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ValueError(f"the model file of the opaque layer {digest[:16]} has another digest")
            executed = read_value(bool, plain.get("executed", False))
            branches = read_value(tuple[Branch, ...], plain.get("branches", []))
            removed = read_value(tuple[str, ...], plain.get("removed", []))
            return cls(str(plain["name"]), inputs, nodes, tuple(map(str, plain["outputs"])), opaques, executed, branches, removed)
        except (TypeError, KeyError, AttributeError, ValueError, binascii.Error) as exc:
            if isinstance(exc, LayerError):
                raise
            raise PlanError(f"not a network description: {exc!r}") from exc


def unique_layers(layers: Iterable[LayerSpec]) -> dict[LayerSpec, int]:
    """Each distinct layer with the number of its occurrences, in the order of first occurrence."""
    counts: dict[LayerSpec, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return counts
