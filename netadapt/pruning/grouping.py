"""Channels that are divided into groups: those of grouped convolutions, and those that a shuffle interleaves.

Every group loses the same number of channels, at the same places. Of a convolution that has one input channel in each group, whole
groups go, with all that they make: of a depthwise one with a multiplier, for instance. Torch-Pruning leaves the choice of
channels in groups to its caller, and cannot cut grouped transposed convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning import _helpers, ops
from torch_pruning.dependency import index_mapping
from torch_pruning.dependency.dependency import Dependency
from torch_pruning.ops import OPTYPE
from torch_pruning.pruner import function

_Indices = list[Any]
"""Torch-Pruning's: of channels, each with that of the channel of the block from which it follows."""


def is_depthwise(layer: nn.Module) -> bool:
    """True for a convolution with one input channel in each group, which makes one or more channels of each."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels


def divides(node: Any) -> bool:
    """True if the node of Torch-Pruning's graph divides channels into groups, each of which loses as many."""
    layer = node.module
    return hasattr(layer, "shuffled_groups") or (isinstance(layer, _ConvNd) and layer.groups > 1 and not _is_plain(layer))


def couple_groups(graph: Any, shapes: Mapping[tuple[Any, int], torch.Size]) -> None:
    """Add to Torch-Pruning's graph what follows for the other channels when one of a group goes."""
    nodes = {node.grad_fn: node for node in graph.module2node.values()}
    for node in nodes.values():
        layer = node.module
        if isinstance(layer, _ConvNd) and divides(node):
            pruner = graph.get_pruner_of_module(layer)
            reads, makes = pruner.prune_in_channels, pruner.prune_out_channels
            if is_depthwise(layer):
                times = layer.out_channels // layer.in_channels
                _add(node, reads, makes, index_mapping._FlattenIndexMapping(times))
                _add(node, makes, reads, index_mapping._FlattenIndexMapping(times, reverse=True))
            else:
                _add(node, reads, reads, _AlikeInGroups(layer, "in_channels"))
                _add(node, makes, makes, _AlikeInGroups(layer, "out_channels"))
        elif groups := _shuffled_groups(node, shapes):
            layer.shuffled_groups, layer.channels = groups, shapes[node.grad_fn, 0][1]
            layer.pixels = 1
            if node.type == OPTYPE.RESHAPE:
                _let_pass(nodes, node)
            for source in node.inputs:
                for here, there, is_back in ((node, source, True), (source, node, False)):
                    for edge in here.dependencies:
                        if edge.target is there:
                            edge.index_mapping[1] = _Shuffle(layer, is_back)
            cut = graph.get_pruner_of_module(layer).prune_out_channels
            _add(node, cut, cut, partial(_runs, groups))


def _let_pass(nodes: Mapping[Any, Any], last: Any) -> None:
    """Let channels pass as they are from the view before a shuffle to that behind it, whatever the layers around suggest."""
    node = last
    while node is not None and not (node is not last and node.type == OPTYPE.RESHAPE):
        before = nodes.get(node.grad_fn.next_functions[0][0])
        for edge in (*node.dependencies, *(before.dependencies if before is not None else ())):
            if edge.target in (node, before) and isinstance(edge.index_mapping[0], index_mapping._FlattenIndexMapping):
                edge.index_mapping[0] = None
        node = before
    if node is not None:
        node.module.pixels = 1


def _add(node: Any, trigger: Any, handler: Any, mapping: Callable[[_Indices], _Indices]) -> None:
    edge = Dependency(trigger, handler, node, node)
    edge.index_mapping[1] = mapping
    node.dependencies.append(edge)


def _is_plain(layer: _ConvNd) -> bool:
    """True for a depthwise convolution that makes one channel of each, for which Torch-Pruning's own rules do."""
    return bool(layer.groups == layer.in_channels == layer.out_channels)


def _others(indices: _Indices, found: Callable[[int], Sequence[int]]) -> _Indices:
    """The channels that are found for these and are not among them."""
    roots: dict[int, Any] = {}
    for index in indices:
        for other in found(index.idx):
            roots.setdefault(other, index.root_idx)
    given = {index.idx for index in indices}
    return [_helpers._HybridIndex(idx, root) for idx, root in sorted(roots.items()) if idx not in given]


def _runs(length: int, indices: _Indices) -> _Indices:
    return _others(indices, lambda index: range(index // length * length, index // length * length + length))


class _AlikeInGroups:
    """From channels of a grouped convolution to those at the same place in the other groups."""

    def __init__(self, layer: _ConvNd, side: str) -> None:
        self._layer, self._side = layer, side

    def __call__(self, indices: _Indices) -> _Indices:
        count = getattr(self._layer, self._side)
        size = count // self._layer.groups
        return _others(indices, lambda index: range(index % size, count, size))


class _Shuffle:
    """From channels before a shuffle to those behind it, where one of each group follows one of another; or back."""

    def __init__(self, layer: Any, is_back: bool) -> None:
        self._layer, self._is_back = layer, is_back

    def __call__(self, indices: _Indices) -> _Indices:
        groups = self._layer.shuffled_groups
        step = groups if self._is_back else self._layer.channels // groups
        rows = self._layer.channels // step
        return [_helpers._HybridIndex(index.idx % step * rows + index.idx // step, index.root_idx) for index in indices]


def _shuffled_groups(node: Any, shapes: Mapping[tuple[Any, int], torch.Size]) -> int:
    """Into how many groups the channels were divided that this node has interleaved; 0 if it does something else.

    In torch's graph, that is a view of (n, c, ...) as (n, groups, c / groups, ...), a transposition, and a view as (n, c, ...).
    """
    made, kind = shapes.get((node.grad_fn, 0), torch.Size()), type(node.grad_fn).__name__
    if kind.startswith("ChannelShuffle") and len(made) > 1:
        return int(node.grad_fn._saved_groups)
    read = tuple(getattr(node.grad_fn, "_saved_self_sym_sizes", ()))
    if node.type != OPTYPE.RESHAPE or len(made) < 3 or read != (made[0], *read[1:3], *made[2:]) or read[1] * read[2] != made[1]:
        return 0
    before = node.grad_fn.next_functions[0][0]
    if type(before).__name__.startswith("Clone"):
        before = before.next_functions[0][0]
    if type(before).__name__.startswith("Transpose"):
        swapped = {_signed(before._saved_dim0) % len(read), _signed(before._saved_dim1) % len(read)}
    elif type(before).__name__.startswith("Permute"):
        order = [_signed(axis) % len(read) for axis in before._saved_dims]
        swapped = {axis for axis, source in enumerate(order) if axis != source}
    else:
        return 0
    first = before.next_functions[0][0]
    viewed = tuple(getattr(first, "_saved_self_sym_sizes", ()))
    return int(read[2]) if swapped == {1, 2} and viewed == tuple(made) and type(first).__name__.startswith("View") else 0


def _signed(axis: int) -> int:
    """Autograd's graph shows a negative axis without its sign."""
    return axis - 2**64 if axis >= 2**63 else axis


class _ConvPruner(function.ConvPruner):  # type: ignore[misc]
    """Cuts convolutions with groups, transposed ones too."""

    def prune_out_channels(self, layer: _ConvNd, idxs: Sequence[int]) -> nn.Module:
        self._cut(layer, layer.out_channels, idxs, 1 if layer.transposed else 0)
        if layer.bias is not None:
            kept = sorted(set(range(layer.out_channels)) - set(idxs))
            layer.bias = self._prune_parameter_and_grad(layer.bias, kept, 0)
        layer.out_channels -= len(idxs)
        return layer

    def prune_in_channels(self, layer: _ConvNd, idxs: Sequence[int]) -> nn.Module:
        self._cut(layer, layer.in_channels, idxs, 0 if layer.transposed else 1)
        if is_depthwise(layer):
            layer.groups -= len(idxs)
        layer.in_channels -= len(idxs)
        return layer

    def _cut(self, layer: _ConvNd, count: int, idxs: Sequence[int], axis: int) -> None:
        """Along the second axis, the weights have the channels of one group, each of which keeps the same ones."""
        size = layer.weight.shape[1] if axis == 1 else count
        kept = sorted({index % size for index in set(range(count)) - set(idxs)})
        layer.weight = self._prune_parameter_and_grad(layer.weight, kept, axis)


class _CountingReshapes(ops.ReshapePruner):  # type: ignore[misc]
    """Counts the channels that a shuffle has left."""

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
        if hasattr(layer, "shuffled_groups"):
            layer.channels -= len(idxs)
        return layer

    prune_in_channels = prune_out_channels


class _CountingOthers(ops.ElementWisePruner):  # type: ignore[misc]
    """The same for torch's own function."""

    prune_in_channels = prune_out_channels = _CountingReshapes.prune_out_channels


def _kind(module: Any) -> OPTYPE:
    """Torch-Pruning takes each convolution that makes one channel in each group for a depthwise one."""
    kind: OPTYPE = _usual_kind(module)
    return OPTYPE.CONV if kind == OPTYPE.DEPTHWISE_CONV and not _is_plain(module) else kind


_usual_kind = ops.module2type
RULES: Sequence[tuple[Any, str, Any]] = (
    (ops, "module2type", _kind),
    (ops, "ReshapePruner", _CountingReshapes),
    (ops, "ElementWisePruner", _CountingOthers),
    (function, "PrunerBox", {**function.PrunerBox, OPTYPE.CONV: _ConvPruner()}),
)
"""What stands in for things of Torch-Pruning's modules while one of our graphs is asked (netadapt.pruning.couplings)."""
