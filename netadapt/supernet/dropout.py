"""Ordered dropout: every image of a batch runs through a network of its own widths, all with the same weights.

A block at a smaller width keeps the first positions of its order, as a cut with the same order does. A channel is dropped where it
is read: the inputs of the convolutions and linear layers that read it are multiplied by zero. As these layers are linear in their
inputs, that is the same as cutting the channel away, biases and normalisations before it included. It has a second advantage over
zeroing what a layer makes: batch normalisation never sees a zero that stands for no channel. In training, its statistics of a
channel are of all images of the batch, at all widths of the layers before, so they are estimated anew for a network that is
sliced out (netadapt.pruning.batch_norm).

This does not hold where channels meet other than in such a layer: in normalisations over several channels, in sums over them and in
the products of attention. Blocks of which that is true fail the trial of `blocks_to_drop` and keep their full width in training.

An image at width 0 of a branch (netadapt.supernet.bypass) goes around it: the branch's input takes the place of its output. Inside,
its blocks are not dropped, so that batch normalisation sees no zeros of it either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from netadapt.input_shapes import input_shapes_of
from netadapt.outputs import MISFITS, as_list
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.importance import open_importance
from netadapt.pruning.prune import Order, block_of, prune_in_order
from netadapt.pruning.trial import RELATIVE_TOLERANCE, randomised
from netadapt.training.trees import Inputs, random_inputs
from profiler.layers.channels import possible_widths
from profiler.layers.graph import Branch, Graph

_SEED = 0

Widths = Mapping[str, Sequence[int]]
"""The widths that each block may have, in ascending order; the last is its full width."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """A layer that reads channels of blocks, and which of them each of its inputs is."""

    layer: str
    block: Tensor
    """The number of the block of each input, int64 (inputs,); the number of blocks for an input that belongs to none."""
    rank: Tensor
    """The place of each input's position in the order of its block, int64 (inputs,); 0 for an input that belongs to none."""


class OrderedDropout:
    """The masks of one network, whose blocks in `widths` are drawn at random; all other blocks keep their full width."""

    def __init__(self, model: nn.Module, graph: Graph, widths: Widths, order: Order) -> None:
        self._names = tuple(widths)
        couplings = Couplings(deepcopy(model), input_shapes_of(graph))
        self._slices = {block: couplings.slices(block) for block in widths}
        self._branches = {
            branch.name: self._names.index(branch.blocks[0]) for branch in graph.branches if branch.blocks[0] in widths
        }
        self._choices = [torch.tensor([width // self._slices[block] for width in widths[block]]) for block in widths]
        places: dict[str, dict[int, tuple[int, int]]] = {}
        for number, block in enumerate(widths):
            positions = graph.widths[block] // self._slices[block]
            rank = {position: place for place, position in enumerate(order.get(block, range(positions)))}
            for layer, inputs in couplings.readers(block).items():
                for channel, indices in inputs.items():
                    places.setdefault(layer, {}).update((index, (number, rank[channel % positions])) for index in indices)
        self._readers = []
        for layer, found in places.items():
            weight = model.get_submodule(layer).get_parameter("weight")
            transposed = isinstance(model.get_submodule(layer), _ConvTransposeNd)  # (in, out, k, k)
            count = weight.shape[0] if transposed else weight.shape[1] * getattr(model.get_submodule(layer), "groups", 1)
            all_inputs = [found.get(index, (len(self._names), 0)) for index in range(count)]
            self._readers.append(_Reader(layer, *torch.tensor(all_inputs).unbind(1)))
        self._kept: Tensor | None = None
        self._around: Tensor | None = None

    def draw(self, images: int, generator: torch.Generator, share: float = 1.0) -> None:
        """Draw a width for each block of each image of the next batches: independently, and evenly among the possible ones.

        With a `share` below 1, only that share of the possible widths beside the full one is drawn from, the widest.
        """
        columns = []
        for choices in self._choices:
            drawn = choices[(len(choices) - 1) - math.ceil(share * (len(choices) - 1)) :]
            columns.append(drawn[torch.randint(len(drawn), (images,), generator=generator)])
        self._keep(columns, images)

    def set_widths(self, widths: Sequence[Mapping[str, int]]) -> None:
        """Set the widths of each image of the next batches; a block that is not named has its full width."""
        self._keep(
            [
                torch.tensor(
                    [of_image[name] // self._slices[name] if name in of_image else int(choices[-1]) for of_image in widths]
                )
                for name, choices in zip(self._names, self._choices, strict=True)
            ],
            len(widths),
        )

    def _keep(self, columns: Sequence[Tensor], images: int) -> None:
        kept = torch.stack([*columns, torch.ones(images, dtype=torch.int64)], dim=1)  # (images, blocks + 1): positions kept
        full = torch.tensor([*(int(choices[-1]) for choices in self._choices), 1])
        self._around = kept == 0
        self._kept = torch.where(self._around, full, kept)

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Inside the with statement, each batch runs at the widths that were drawn or set before it, and fully before any were."""

        def hook(reader: _Reader) -> Any:
            def drop(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
                if self._kept is None:
                    return None
                features = inputs[0]
                mask = (reader.rank < self._kept[:, reader.block]).to(features.device, features.dtype)  # (images, inputs)
                # a network may take images apart before the layer: their parts follow each other in the first dimension
                mask = mask.repeat_interleave(len(features) // len(mask), dim=0)
                ones = (1,) * (features.ndim - 2)
                of_channels = (len(mask), *ones, mask.shape[1]) if isinstance(layer, nn.Linear) else (*mask.shape, *ones)
                return (features * mask.view(of_channels), *inputs[1:])

            return drop

        def go_around(number: int) -> Any:
            def choose(_branch: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
                if self._around is None or not self._around[:, number].any():
                    return output
                around = self._around[:, number].repeat_interleave(len(output) // len(self._around)).to(output.device)
                return torch.where(around.view(-1, *(1,) * (output.ndim - 1)), inputs[0], output)

            return choose

        hooks = [model.get_submodule(reader.layer).register_forward_pre_hook(hook(reader)) for reader in self._readers]
        hooks += [model.get_submodule(name).register_forward_hook(go_around(number)) for name, number in self._branches.items()]
        try:
            yield
        finally:
            self._kept = self._around = None
            for each in hooks:
                each.remove()


def blocks_to_drop(model: nn.Module, graph: Graph) -> tuple[str, ...]:
    """The blocks whose dropped channels leave the same as a cut, in the graph's order. The model is not changed.

    Tried with random weights, on a batch of a full image beside one at half of the widths.
    """
    choices = possible_widths(graph, 1)
    narrow = {block: widths[(len(widths) - 1) // 2] for block, widths in choices.items()}
    return tuple(_that_drop_like_a_cut(model, graph, narrow))


def branches_to_drop(model: nn.Module, graph: Graph) -> tuple[Branch, ...]:
    """The branches around which an image goes as if they were removed, tried in the same way."""
    found = _that_drop_like_a_cut(model, graph, {branch.blocks[0]: 0 for branch in graph.branches})
    return tuple(branch for branch in graph.branches if branch.blocks[0] in found)


def _that_drop_like_a_cut(model: nn.Module, graph: Graph, narrow: Mapping[str, int]) -> list[str]:
    """The blocks that leave the same as a cut to these widths."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        inputs = random_inputs(input_shapes_of(graph), 2)
        try:
            model = randomised(model, *inputs)
        except MISFITS:
            return []  # the network takes no batch of two, or fails with random weights
    if _drop_like_a_cut(model, graph, inputs, narrow):  # the usual case, in one trial; otherwise blocks are added one by one
        return list(narrow)
    found: dict[str, int] = {}
    for block, least in narrow.items():
        if _drop_like_a_cut(model, graph, inputs, {**found, block: least}):
            found[block] = least
    return list(found)


def _drop_like_a_cut(model: nn.Module, graph: Graph, inputs: tuple[Tensor, ...], narrow: Mapping[str, int]) -> bool:
    dropout = OrderedDropout(model, graph, {block: (least, graph.widths[block]) for block, least in narrow.items()}, {})
    dropout.set_widths([narrow, {}])
    try:
        with torch.no_grad():
            with dropout.on(model):
                dropped = as_list(model(*inputs))
            cut, full = as_list(prune_in_order(model, graph, narrow, {})(*inputs)), as_list(model(*inputs))
    except MISFITS:
        return False
    return all(
        found.shape == wanted.shape and float((found - wanted).abs().max()) <= RELATIVE_TOLERANCE * float(wanted.abs().max())
        for tensors in zip(dropped, cut, full, strict=True)
        if tensors[0].is_floating_point()
        for found, wanted in ((tensors[0][:1], tensors[1][:1]), (tensors[0][1:], tensors[2][1:]))
    )


def order_of(model: nn.Module, graph: Graph, widths: Widths, importance: str, inputs: Inputs | None) -> dict[str, tuple[int, ...]]:
    """The positions of each block, the most important first by the criterion of this name: those that the least width keeps, then
    those that each next width adds. `inputs` as for `netadapt.pruning.prune.prune`."""
    keep, copy = open_importance(importance), deepcopy(model)
    couplings, weights = Couplings(copy, input_shapes_of(graph)), deepcopy(model.state_dict())
    found = {}
    for name, choices in widths.items():
        block, order = block_of(copy, graph, couplings, name), dict[int, None]()
        for width in filter(None, choices):
            order |= dict.fromkeys(keep(block, width // block.slices, inputs))
            copy.load_state_dict(weights)  # a criterion may change the layers that read the block
        found[name] = tuple(order)
    return found
