"""Which places of tensors go together where channels stand on several axes, as in attention of several heads.

Torch-Pruning knows the channels of a tensor by one number each. A view that gives heads an axis of their own, a product that has
channels on both sides (keys and values that are multiplied first), or a view as branches that are summed need more: here a place is
an axis of a tensor and a position on it. Layers have the places of their channels only.

Heads and branches keep their number: where a view divides an axis, its channels are the positions on the innermost part, and as
many channels as there are heads share one of these. What takes part is each region of operators between layers that multiplies
tensors, or that sums over branches; all others keep the rules of Torch-Pruning and of netadapt.pruning.places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import index_mapping
from torch_pruning.ops import OPTYPE

Shape = tuple[int, ...]
Pairs = list[tuple[int, int]]
"""Places of what is read and of what reads it that are the same channel."""

_AXIS = 1 << 32
"""A place as one number: the axis times this, and the position."""
_OPERATORS = (
    OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.UNBIND, OPTYPE.EXPAND, OPTYPE.SLICE, OPTYPE.OUTPUT,
)  # fmt: skip
_LAST_AXIS = (OPTYPE.LINEAR, OPTYPE.LN, OPTYPE.EMBED)
_SECOND_AXIS = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.BN, OPTYPE.PRELU, OPTYPE.IN, OPTYPE.GN)
_VIEWS = ("View", "UnsafeView", "Reshape", "ReshapeAlias", "Unsqueeze", "Squeeze")
_PRODUCTS = ("Bmm", "Baddbmm", "Mm", "Addmm")
_DIVIDED = ("Unbind", "Split", "SplitWithSizes")


def map_axes(graph: Any) -> None:
    """Set the mappings of all edges of the regions that need it, for good: the graph sets those of its own anew before each use.

    `graph.nodes_with_axes` are the operators of these regions.
    """
    nodes = list(graph.module2node.values())
    made_by = {function: node for node in nodes for function in getattr(node, "calls", [node.grad_fn])}
    graph.mappings_of_axes, graph.nodes_with_axes = [], set()
    for region in _regions(nodes):
        if _needs_axes(region):
            graph.nodes_with_axes |= set(region)
            graph.mappings_of_axes += _Region(region, made_by).mappings()


def summed_positions(node: Any, places: list[int]) -> list[int]:
    """The positions among these places of a product that are on the axis over which it sums."""
    if _kind(node.grad_fn) not in _PRODUCTS and "ScaledDotProduct" not in _kind(node.grad_fn):
        return []
    return [place % _AXIS for place in places if place // _AXIS == len(_made(node.grad_fn, 0))]


class _Places:
    """The places that these ones are behind an edge."""

    def __init__(self, pairs: Pairs) -> None:
        self._found: dict[int, list[int]] = {}
        for here, there in pairs:
            self._found.setdefault(here, []).append(there)

    def __call__(self, indices: list[_HybridIndex]) -> list[_HybridIndex]:
        found: dict[int, int] = {}
        for index in indices:
            for place in self._found.get(index.idx, ()):
                found[place] = min(found.get(place, index.root_idx), index.root_idx)
        return [_HybridIndex(idx=place, root_idx=root) for place, root in sorted(found.items())]


class _Region:
    """Operators that are connected without layers between them."""

    def __init__(self, nodes: list[Any], made_by: dict[Any, Any]) -> None:
        self._nodes, self._made_by = nodes, made_by
        self._live: dict[Any, set[int]] = {}

    def mappings(self) -> Iterator[tuple[Any, _Places]]:
        """The edges, each with its mapping."""
        nodes = dict.fromkeys(self._nodes)
        around = {reader: None for node in self._nodes for reader in node.outputs}
        for reader in sorted(nodes | around, key=lambda node: node.grad_fn._sequence_nr()):  # in the order of execution
            pairs: dict[Any, list[Pairs]] = {}
            for function in getattr(reader, "calls", [reader.grad_fn]):
                for slot, (source, number) in enumerate(function.next_functions):
                    node = self._made_by.get(source)
                    if node is not None and (node in nodes or reader in nodes):
                        pairs.setdefault(node, []).append(self._between(node, source, number, reader, function, slot))
            for node, found in pairs.items():
                forth = [edge for edge in node.dependencies if edge.target is reader]
                back = [edge for edge in reader.dependencies if edge.target is node]
                for each, one, other in zip(found, forth, back, strict=False):
                    yield one, _Places(each)
                    yield other, _Places([(there, here) for here, there in each])

    def _between(self, node: Any, source: Any, number: int, reader: Any, function: Any, slot: int) -> Pairs:
        """The places of a node and those of what reads it, as the node of its graph, by this input of this function."""
        shape = tuple(node.module.shape) if node.type == OPTYPE.PARAMETER else _made(source, number)
        if node.type in _OPERATORS:
            places = _outlet(source, number, shape)
        else:
            axis = _channel_axis(node, len(shape))
            places = [(position, axis * _AXIS + position) for position in range(shape[axis])]
        if reader.type in _OPERATORS:
            # a parameter may have numbers for heads, which are no channels
            is_layer = node.type not in (*_OPERATORS, OPTYPE.PARAMETER)
            live = {place // _AXIS for _, place in places} if is_layer else self._live.get(node, set())
            inlet = _inlet(reader, function, slot, shape, live)
            places = _joined(places, inlet)
            reached = {there // _AXIS for here, there in places if is_layer or here // _AXIS in live}
            self._live.setdefault(reader, set()).update(reached)
            return places
        if not _reads_data(reader, function, slot):
            return []
        axis = _channel_axis(reader, len(shape))
        return [(here, place % _AXIS) for here, place in places if place // _AXIS == axis]


def _regions(nodes: list[Any]) -> Iterator[list[Any]]:
    seen: set[Any] = set()
    for start in nodes:
        if start in seen or start.type not in _OPERATORS:
            continue
        region, waiting = [], [start]
        seen.add(start)
        while waiting:
            node = waiting.pop()
            region.append(node)
            for other in (*node.inputs, *node.outputs):
                if other.type in _OPERATORS and other not in seen:
                    seen.add(other)
                    waiting.append(other)
        yield region


def _needs_axes(region: list[Any]) -> bool:
    """Whether tensors are multiplied or branches summed, by operators and between layers whose places are known."""
    kinds = {_kind(node.grad_fn) for node in region}
    known = (*_OPERATORS, *_LAST_AXIS, *_SECOND_AXIS, OPTYPE.PARAMETER)
    around = [other for node in region for other in (*node.inputs, *node.outputs)]
    if "Convolution" in kinds or any(other.type not in known for other in around):
        return False
    sums = [node for node in region if _kind(node.grad_fn) == "Sum" and len(_made(node.grad_fn, 0)) == 4]
    return (
        bool(kinds & {"Bmm", "Baddbmm"})
        or any("ScaledDotProduct" in kind for kind in kinds)
        or any(not node.grad_fn._saved_keepdim and any(_kind(other.grad_fn) in _VIEWS for other in region) for node in sums)
    )


def _kind(function: Any) -> str:
    """Such as View of ViewBackward0."""
    return type(function).__name__.rstrip("0123456789").removesuffix("Backward")


def _made(function: Any, number: int) -> Shape:
    """The shape of an output of a function, from autograd's notes on what goes back through it."""
    return tuple(function._input_metadata[number].shape)


def _axis(axis: int, rank: int) -> int:
    """An axis as autograd's functions save it, negative ones without their sign."""
    return (axis - 2**64 if axis >= 2**63 else axis) % rank


def _channel_axis(layer: Any, rank: int) -> int:
    if layer.type == OPTYPE.PARAMETER:
        return int(layer.pruning_dim)
    return rank - 1 if layer.type in _LAST_AXIS else 1


def _reads_data(layer: Any, function: Any, slot: int) -> bool:
    """False for what a linear layer reads as its weights or its bias."""
    if layer.type != OPTYPE.LINEAR:
        return slot == 0
    return slot == {"Addmm": 1}.get(_kind(function), 0)


def _joined(one: Pairs, other: Pairs) -> Pairs:
    found: dict[int, list[int]] = {}
    for here, there in other:
        found.setdefault(here, []).append(there)
    return [(here, there) for here, middle in one for there in found.get(middle, ())]


def _same(here: int, there: int, size: int, offset: int = 0) -> Pairs:
    """An axis of one tensor that is one of another, or a part of it that begins at the offset."""
    return [(here * _AXIS + position, there * _AXIS + offset + position) for position in range(size)]


def _outlet(function: Any, number: int, made: Shape) -> Pairs:
    """The places of a node that are in one of its outputs. A node that divides its input has the places of the input."""
    kind, rank = _kind(function), len(made)
    if kind == "Unbind":
        axis = _axis(function._saved_dim, rank + 1)
        return [pair for at in range(rank) for pair in _same(at + (at >= axis), at, made[at])]
    if kind in _DIVIDED:
        axis = _axis(function._saved_dim, rank)
        sizes = [_made(function, part)[axis] for part in range(number)]
        return [
            (at * _AXIS + position + (sum(sizes) if at == axis else 0), at * _AXIS + position)
            for at in range(rank)
            for position in range(made[at])
        ]
    return [pair for at in range(rank) for pair in _same(at, at, made[at])]


def _inlet(node: Any, function: Any, slot: int, read: Shape, live: set[int]) -> Pairs:
    """The places of what a node reads that are the node's own."""
    kind, rank = _kind(function), len(read)
    made = _made(function, 0)
    if kind in _DIVIDED:
        return [pair for at in range(rank) for pair in _same(at, at, read[at])]
    if kind in _VIEWS:
        return _viewed(read, made, live)
    if kind in _PRODUCTS:
        if any(reader.type == OPTYPE.LINEAR for reader in node.outputs):  # a linear layer of tokens is several functions
            is_data = slot == {"Addmm": 1}.get(kind, 0)
            return [pair for at in range(rank) for pair in _same(at, at, read[at])] if is_data else []
        slot -= kind in ("Baddbmm", "Addmm")  # of what is added, only what is broadcast is left out
        last = len(made) - 1
        ends = {0: (last - 1, len(made)), 1: (len(made), last)}.get(slot)  # the summed axis is one more of the node
        return _broadcast(read, made) if ends is None else _ending(read, made, ends)
    if "ScaledDotProduct" in kind:
        return _ending(read, made, (len(made) - 1, len(made) - 1) if slot == 2 else (len(made) - 2, len(made)), is_third=slot != 0)
    if kind in ("Transpose", "T", "Permute"):
        order = list(range(rank))
        if kind == "Permute":
            order = [_axis(axis, rank) for axis in function._saved_dims]
        else:
            one, other = (0, 1) if kind == "T" else (_axis(function._saved_dim0, rank), _axis(function._saved_dim1, rank))
            order[one], order[other] = other, one
        return [pair for there, here in enumerate(order) for pair in _same(here, there, read[here])]
    if kind == "Slice":
        axis = _axis(function._saved_dim, rank)
        start, step = function._saved_start, function._saved_step
        start = start - 2**64 if start >= 2**63 else start
        start = max(0, start + read[axis]) if start < 0 else start
        cut = [(axis * _AXIS + start + step * position, axis * _AXIS + position) for position in range(made[axis])]
        return cut + [pair for at in range(rank) if at != axis for pair in _same(at, at, read[at])]
    if kind in ("Cat", "Stack"):
        axis = _axis(function._saved_dim, len(made))
        if kind == "Stack":
            return [pair for at in range(rank) for pair in _same(at, at + (at >= axis), read[at])]
        before = sum(_made(source, number)[axis] for source, number in function.next_functions[:slot] if source is not None)
        return [pair for at in range(rank) for pair in _same(at, at, read[at], before if at == axis else 0)]
    lost = set()
    if kind == "Select":
        lost = {_axis(function._saved_dim, rank)}
    elif len(made) < rank and hasattr(function, "_saved_dim"):  # a sum or a mean
        axes = function._saved_dim
        lost = {_axis(axis, rank) for axis in (axes if isinstance(axes, tuple) else (axes,))}
    if lost:
        kept = [at for at in range(rank) if at not in lost]
        return [pair for there, here in enumerate(kept) for pair in _same(here, there, read[here])]
    return _broadcast(read, made)


def _broadcast(read: Shape, made: Shape) -> Pairs:
    """Axes of the same size, counted from the last."""
    return [
        pair
        for back in range(1, min(len(read), len(made)) + 1)
        if read[-back] == made[-back]
        for pair in _same(len(read) - back, len(made) - back, read[-back])
    ]


def _ending(read: Shape, made: Shape, ends: tuple[int, int], is_third: bool = False) -> Pairs:
    """The axes of a factor: the last two are these of the product, and those before the same.

    With `is_third` the last but one is that of the tokens that are attended to, which the product has no axis of.
    """
    rank = len(read)
    pairs = [pair for at in range(rank - 2) if read[at] == made[at] for pair in _same(at, at, read[at])]
    if not is_third:
        pairs += _same(rank - 2, ends[0], read[-2])
    return pairs + _same(rank - 1, ends[1], read[-1])


def _viewed(read: Shape, made: Shape, live: set[int]) -> Pairs:
    """Axes that a view keeps, and of one that it divides or makes of several, the positions on the innermost part.

    Of several axes that become one, the part is the one that channels stand on.
    """
    pairs: Pairs = []
    for here, there in _same_numbers(read, made):
        if len(here) == len(there) == 1:
            pairs += _same(here[0], there[0], read[here[0]])
        elif len(here) == 1:
            size = made[there[-1]]
            pairs += [(here[0] * _AXIS + at, there[-1] * _AXIS + at % size) for at in range(read[here[0]])]
        elif len(there) == 1:
            part = next((axis for axis in here if axis in live), here[-1])
            size = read[part]
            inner = math.prod(read[axis] for axis in here if axis > part)
            pairs += [(part * _AXIS + at // inner % size, there[0] * _AXIS + at) for at in range(made[there[0]])]
    return pairs


def _same_numbers(read: Shape, made: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """The fewest neighbouring axes of each that have the same numbers, without axes of one number."""
    here, there = ([axis for axis, size in enumerate(shape) if size > 1] for shape in (read, made))
    while here and there:
        one, other = [here.pop(0)], [there.pop(0)]
        while (sizes := [math.prod(shape[at] for at in axes) for shape, axes in ((read, one), (made, other))])[0] != sizes[1]:
            axes, rest = (one, here) if sizes[0] < sizes[1] else (other, there)
            axes.append(rest.pop(0))
        yield one, other


def _map_all(graph: Any) -> None:
    _usual_mappings(graph)
    for edge, places in getattr(graph, "mappings_of_axes", ()):
        edge.index_mapping[0], edge.index_mapping[1] = places, None


_usual_mappings = index_mapping.update_index_mapping
RULES: Sequence[tuple[Any, str, Any]] = ((index_mapping, "update_index_mapping", _map_all),)
"""What stands in for things of Torch-Pruning's modules while one of our graphs is asked (netadapt.pruning.couplings)."""
