"""What Torch-Pruning's dependency graph is told before it is asked: which channels are which where they change places.

Its own rules infer that from the layers around; these take it from the shapes of all tensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch_pruning.dependency import index_mapping
from torch_pruning.dependency.dependency import Dependency
from torch_pruning.ops import OPTYPE

PRODUCTS = {"matmul": 1, "__matmul__": 1, "bmm": 1, "scaled_dot_product_attention": 2}
"""The functions that multiply two tensors as matrices, the first of which comes first, and how many products they are."""


class Shapes(TorchFunctionMode):
    """Notes the shape of every tensor that torch's functions make while a network runs, and who reads the places of maxima."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[tuple[Any, int], torch.Size] = {}
        """By the node of autograd's graph and the number of its output."""
        self.placed: list[tuple[Any, Any]] = []
        """Pairs of nodes: one that makes places, such as those of a pool's maxima, and one that puts as many numbers there."""
        self.products: dict[Any, int] = {}
        """The number of each product, in the order of calls, by the node of autograd's graph that makes it, or its reader."""
        self._places: list[tuple[Tensor, Any]] = []
        self._count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if (products := PRODUCTS.get(getattr(function, "__name__", ""))) is not None:
            if result.grad_fn is not None:
                self.products[result.grad_fn] = self._count
            self._count += products
        made = [tensor for tensor in (result if isinstance(result, list | tuple) else [result]) if isinstance(tensor, Tensor)]
        for tensor in made:
            if tensor.grad_fn is not None:
                self.found[tensor.grad_fn, tensor.output_nr] = tensor.shape
        # autograd's graph has none of these edges
        makers = [tensor.grad_fn for tensor in made if tensor.grad_fn is not None]
        self._places += [(tensor, makers[0]) for tensor in made if tensor.grad_fn is None and makers]
        for places, maker in self._places if makers else ():
            if any(given is places for given in args) and makers[0] is not maker and args[0].shape == places.shape:
                self.placed.append((maker, makers[0]))
        return result


def note_parts(graph: Any, shapes: Mapping[tuple[Any, int], torch.Size]) -> None:
    """Write into the concatenations and splits of Torch-Pruning's graph how many channels their parts have, and how many numbers
    of a channel a flatten puts side by side.

    Torch-Pruning infers them from the layers around, in an order that need not be that of the parts.
    """
    sequences = _sequences(shapes)
    for node in graph.module2node.values():
        if node.type == OPTYPE.PARAMETER:  # Torch-Pruning takes the last axis with several numbers for that of channels
            _, channels, height, width = node.module.shape if node.module.ndim == 4 else (1, 1, 1, 1)
            if 1 < channels != height == width > 1:
                node.pruning_dim = 1
        if node.type == OPTYPE.RESHAPE:
            read, made = getattr(node.grad_fn, "_saved_self_sym_sizes", ()), shapes.get((node.grad_fn, 0), ())
            of_channels = len(read) == 4 or any(source in sequences for source, _ in node.grad_fn.next_functions)
            is_flat = of_channels and len(made) == 2 and math.prod(read[1:]) == made[1]
            keeps_channels = {len(read), len(made)} == {3, 4} and read[:2] == made[:2]  # or tokens, whose channels heads share
            node.module.pixels = math.prod(read[2:]) if is_flat else 1 if keeps_channels else None
        if node.type not in (OPTYPE.SPLIT, OPTYPE.CONCAT) or not hasattr(node.grad_fn, "_saved_dim"):
            continue
        axis = node.grad_fn._saved_dim
        axis = axis - 2**64 if axis >= 2**63 else axis  # autograd's graph shows a negative axis without its sign
        if node.type == OPTYPE.SPLIT and hasattr(node.grad_fn, "_saved_self_sym_sizes"):
            shape = node.grad_fn._saved_self_sym_sizes
            sizes = getattr(node.grad_fn, "_saved_split_sizes", None)
            if sizes is None:
                each = node.grad_fn._saved_split_size
                sizes = [min(each, shape[axis] - start) for start in range(0, shape[axis], each)]
            is_sequence = node.grad_fn in sequences
            node.module.split_sizes = list(sizes) if _is_channel_axis(axis, len(shape), is_sequence) else None
        elif node.type == OPTYPE.CONCAT:
            parts = [shapes.get(source) for source in node.grad_fn.next_functions]
            is_sequence = node.grad_fn in sequences
            known = [shape[axis] for shape in parts if shape is not None and _is_channel_axis(axis, len(shape), is_sequence)]
            node.module.concat_sizes = known if len(known) == len(node.inputs) == len(parts) else None
            # of three dimensions, tokens may be the last ones
            known_rank = is_sequence or all(len(shape) != 3 for shape in parts if shape)
            node.module.is_noted = node.module.concat_sizes is not None and known_rank


def part_what_is_broadcast(graph: Any, shapes: Mapping[tuple[Any, int], torch.Size], buffers: Collection[Any]) -> None:
    """Let no channels pass into a reduction over all of them, and none from what has one channel and is broadcast over others.

    A gate of pixels is both: it reads means over channels, and its one channel multiplies all of them. So does a single number,
    such as one of the weights, learnt or computed, of what is added. One of `buffers` with a number for each column has no
    channels either.
    """
    sequences = _sequences(shapes)
    for node in graph.module2node.values():
        for source in node.inputs if node.type == OPTYPE.ELEMENTWISE else ():
            numbers = [number for function, number in node.grad_fn.next_functions if function is source.grad_fn]
            read, made = (shapes.get(key) for key in ((source.grad_fn, min(numbers, default=0)), (node.grad_fn, 0)))
            if source.module in buffers:
                read = source.module.shape
            if read is None or made is None:
                continue
            differ = [axis for axis, sizes in enumerate(zip(read, made, strict=False)) if len(set(sizes)) > 1]
            is_alike = len(read) == len(made) > 2 and len(differ) == 1
            is_one = (
                is_alike
                and _is_channel_axis(differ[0], len(read), node.grad_fn in sequences)
                and 1 in (read[differ[0]], made[differ[0]])
            )
            is_of_pixels = source.module in buffers and len(read) == 1 and len(made) == 4
            if is_one or math.prod(read) == 1 < math.prod(made) or is_of_pixels:
                for here, there in ((source, node), (node, source)):
                    for edge in here.dependencies:
                        if edge.target is there:
                            edge.index_mapping[1] = lambda _indices: []


def couple_places(graph: Any, placed: Collection[tuple[Any, Any]]) -> None:
    """Couple the channels of which places are told to those that are put at these places."""
    nodes = {node.grad_fn: node for node in graph.module2node.values()}
    for pair in placed:
        one, other = (nodes.get(function) for function in pair)
        for source, target in ((one, other), (other, one)) if one and other else ():
            pruners = [graph.get_pruner_of_module(node.module) for node in (source, target)]
            source.dependencies.append(Dependency(*(pruner.prune_out_channels for pruner in pruners), source, target))


def part_scores(graph: Any) -> None:
    """Let no channels pass from queries and keys to values that have another number of them.

    The product of queries and keys has none: its numbers are those of pairs of pixels or tokens.
    """
    for node in graph.module2node.values():
        if not type(node.grad_fn).__name__.startswith("BmmBackward") or len(node.inputs) != 2:
            continue
        one, two = (_nearest(graph, source, "inputs") for source in node.inputs)
        channels = {graph.get_out_channels(layer.module) for layer in one | two}
        behind = {product for reader in node.outputs for product in _nearest(graph, reader, "outputs", "BmmBackward")}
        values = {
            graph.get_out_channels(layer.module)
            for product in behind
            for source in product.inputs
            for layer in _nearest(graph, source, "inputs") - one - two
        }
        # of several heads, the number of summed products is that of one head
        if channels == {node.grad_fn._saved_self.shape[-1]} and values and values.isdisjoint(channels):
            for reader in node.outputs:
                for here, there in ((reader, node), (node, reader)):
                    for edge in here.dependencies:
                        if edge.target is there:
                            edge.index_mapping[1] = lambda _indices: []


def _nearest(graph: Any, start: Any, way: str, kind: str = "") -> set[Any]:
    """The nearest nodes along `inputs` or `outputs`, the start included: of layers with weights, or of the kind of function."""
    found, seen, waiting = set(), set(), [start]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if type(node.grad_fn).__name__.startswith(kind) if kind else node.type in (OPTYPE.CONV, OPTYPE.LINEAR):
            found.add(node)
        elif node.type not in (OPTYPE.CONV, OPTYPE.LINEAR):
            waiting += getattr(node, way)
    return found


def _is_channel_axis(axis: int, rank: int, is_sequence: bool) -> bool:
    return axis % rank == (2 if rank == 3 and not is_sequence else 1)


def _sequences(shapes: Mapping[tuple[Any, int], torch.Size]) -> set[Any]:
    """The nodes of autograd's graph that make sequences (n, c, length) or volumes (n, c, depth, h, w) of convolutions.

    A tensor of three dimensions that no convolution has made so is one of tokens, (n, tokens, c).
    """
    ranks = {function: len(shape) for (function, _), shape in shapes.items()}
    found: set[Any] = set()
    for function, rank in ranks.items():  # in the order in which they ran
        kind = type(function).__name__
        if rank in (3, 5) and (
            kind.startswith("Convolution")
            or (not kind.startswith(_MOVES_AXES) and any(ranks[source] == rank for source in _sources(function, ranks) & found))
        ):
            found.add(function)
    return found


def _sources(function: Any, known: Collection[Any]) -> set[Any]:
    """The nearest known functions before one; a pool of a sequence, for one, consists of several."""
    found, waiting = set(), [function]
    while waiting:
        for source, _ in waiting.pop().next_functions:
            if source in known:
                found.add(source)
            elif source is not None:
                waiting.append(source)
    return found


_MOVES_AXES = ("Permute", "Transpose", "View", "UnsafeView", "Reshape", "Unsqueeze", "Mm", "Bmm", "Addmm", "Baddbmm")
"""The functions that read and make tensors of as many dimensions, which need not be the same ones."""


def _map_concat(graph: Any, node: Any) -> None:
    """Say for every part of a concatenation which channels it has there.

    Torch-Pruning does so only where as many channels are read as the parts have together, which is not the case behind a flatten.
    """
    if not getattr(node.module, "is_noted", False):
        with suppress(TypeError):  # it adds up the channels of the parts, of which it finds none behind some reshapes
            _usual_concat(graph, node)
        return
    node.module.offsets = list(accumulate(node.module.concat_sizes, initial=0))
    for source in {id(source): source for source in node.inputs}.values():
        places = [place for place, other in enumerate(node.inputs) if other is source]
        for here, there, is_back in ((node, source, True), (source, node, False)):
            edges = [edge for edge in here.dependencies if edge.target is there]
            for edge, place in zip(edges, places, strict=False):
                if node.enable_index_mapping:
                    part = node.module.offsets[place : place + 2]
                    edge.index_mapping[1] = index_mapping._ConcatIndexMapping(offset=part, reverse=is_back)


def _map_split(graph: Any, node: Any) -> None:
    """Say for every reader of a split, and for the split, which channels are which, by the parts that the reader reads."""
    sizes = node.module.split_sizes
    if sizes is not None and None in sizes:  # Torch-Pruning finds no channels behind some operations, such as a GRU's
        sizes = None
    offsets = list(accumulate(sizes, initial=0)) if sizes is not None else []
    for reader in {id(reader): reader for reader in node.outputs if sizes is not None}.values():
        calls = getattr(reader, "calls", [reader.grad_fn])
        parts = [part for made in calls for source, part in made.next_functions if source is node.grad_fn]
        for here, there, is_back in ((node, reader, False), (reader, node, True)):
            edges = [edge for edge in here.dependencies if edge.target is there]
            for edge, part in zip(edges, parts, strict=False):
                edge.index_mapping[0] = index_mapping._SplitIndexMapping(offsets[part : part + 2], reverse=is_back)


def _map_reshape(graph: Any, node: Any) -> None:
    """Say which numbers are those of a channel behind a flatten.

    Torch-Pruning takes for it what the next layer reads, even where that is a concatenation of several.
    """
    if getattr(node.module, "pixels", None) is None:
        with suppress(ZeroDivisionError, LookupError):  # it divides by the channels behind, of which it finds none behind a shuffle
            _usual_reshape(graph, node)
        return
    for source in node.inputs:
        for here, there, is_back in ((node, source, True), (source, node, False)):
            for edge in here.dependencies:
                if edge.target is not there:
                    continue
                if isinstance(edge.index_mapping[0], index_mapping._FlattenIndexMapping):
                    edge.index_mapping[0] = None  # Torch-Pruning's; that of a split before the flatten stays
                if node.module.pixels > 1:
                    edge.index_mapping[1] = index_mapping._FlattenIndexMapping(node.module.pixels, reverse=is_back)


_usual_reshape = index_mapping.update_reshape_index_mapping
_usual_concat = index_mapping.update_concat_index_mapping
RULES: Sequence[tuple[Any, str, Any]] = (
    (index_mapping, "update_reshape_index_mapping", _map_reshape),
    (index_mapping, "update_split_index_mapping", _map_split),
    (index_mapping, "update_concat_index_mapping", _map_concat),
)
"""What stands in for things of Torch-Pruning's modules while one of our graphs is asked (netadapt.pruning.couplings)."""
