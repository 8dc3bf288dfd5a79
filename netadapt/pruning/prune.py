"""Narrower copies of a model: checking the widths, choosing the filters to keep, and removing the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from torch import nn

from device_agents.support.errors import ToolError
from device_agents.support.text import did_you_mean
from netadapt.input_shapes import input_shapes_of
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.importance import DEFAULT, Block, ImportanceError, Keep, open_importance
from netadapt.pruning.importance.l2 import filters_of
from netadapt.training.trees import Inputs
from profiler.errors import LayerError
from profiler.layers.graph import Graph

Order = Mapping[str, Sequence[int]]
"""The positions of blocks by name, the most important first; a block that is not named has its positions in their own order."""


class PruningError(ToolError):
    """A network cannot be pruned to these widths."""


def prune(
    model: nn.Module, graph: Graph, widths: Mapping[str, int], importance: str = DEFAULT, inputs: Inputs | None = None
) -> nn.Module:
    """A copy of the model, pruned to these widths (channels by block) with the importance criterion of this name.

    `graph` is the model's graph as `trace` makes it. All layers of a block keep the same filters in their old order; of a block
    that is divided into slices (netadapt.pruning.couplings), every slice keeps the same positions. Other blocks keep their
    widths, and the copy is in the model's mode. A branch of the graph whose first block has width 0 is removed. `inputs`,
    normalised training examples, are for criteria that need them.
    `PruningError` for widths that the network cannot have, `ImportanceError` for an unknown criterion or one that lacks examples.
    """
    return _cut(model, graph, widths, open_importance(importance), inputs)


def reshape_like(model: nn.Module, graph: Graph, widths: Mapping[str, int]) -> nn.Module:
    """A copy of the model with the shapes that `prune` gives, for weights to be loaded into; its own weights are arbitrary."""
    return prune_in_order(model, graph, widths, {})


def prune_in_order(model: nn.Module, graph: Graph, widths: Mapping[str, int], order: Order) -> nn.Module:
    """A copy of the model at these widths, in which each block keeps the first positions of its order. Errors as for `prune`."""
    return _cut(model, graph, widths, lambda block, count, _: list(order.get(block.name, range(block.positions)))[:count])


def block_of(model: nn.Module, graph: Graph, couplings: Couplings, name: str) -> Block:
    """The block of this name in a model that is as wide as its graph. `couplings` are those of the same model."""
    modules = dict(model.named_modules())
    members = [modules[node.name] for node in graph.nodes if node.block == name and node.name in modules]
    readers = {model.get_submodule(reader): inputs for reader, inputs in couplings.readers(name).items()}
    return Block(model, name, graph.widths[name], members, readers, couplings.slices(name))


def _cut(model: nn.Module, graph: Graph, widths: Mapping[str, int], keep: Keep, inputs: Inputs | None = None) -> nn.Module:
    changed = _changed_widths(model, graph, widths)
    pruned = deepcopy(model)
    if not changed:
        return pruned
    for branch in graph.branches:
        if changed.get(branch.blocks[0]) == 0:
            pruned.set_submodule(branch.name, nn.Identity())
            graph = graph.at_widths({branch.blocks[0]: 0})
    was_training = {name: module.training for name, module in pruned.named_modules()}
    needed_gradient = {name: weight.requires_grad for name, weight in pruned.named_parameters()}
    couplings = Couplings(pruned, input_shapes_of(graph))
    for name, kept_width in changed.items():
        if name in graph.removed:
            continue
        block = block_of(pruned, graph, couplings, name)
        couplings.remove(name, _channels_to_remove(block, kept_width, keep, inputs))
    couplings.restore_buffers()
    # `Couplings` has changed these
    for name, module in pruned.named_modules():
        module.training = was_training[name]
    for name, weight in pruned.named_parameters():
        weight.requires_grad_(needed_gradient[name])
    return pruned


def _channels_to_remove(block: Block, width: int, keep: Keep, inputs: Inputs | None) -> list[int]:
    """The channels at the positions that the criterion does not keep, where `width` channels are to be left."""
    count = width // block.slices
    kept = set(keep(block, count, inputs))
    if len(kept) != count or not kept <= set(range(block.positions)):
        raise ImportanceError(
            f"the importance criterion must keep {count} of {block.positions} positions of block {block.name}, "
            f"but keeps {sorted(kept)}; it must return positions, not channels"
        )
    return sorted(channel for position in range(block.positions) if position not in kept for channel in block.channels(position))


def _changed_widths(model: nn.Module, graph: Graph, widths: Mapping[str, int]) -> dict[str, int]:
    """The widths that differ from the model's present ones, after all have been checked."""
    present = graph.widths
    removable = {*graph.removed, *(block for branch in graph.branches for block in branch.blocks)}
    for block, width in widths.items():
        if block not in present:
            raise PruningError(f"{graph.name} has no block {block!r}; {did_you_mean(block, present)}")
        least = 0 if block in removable else 1
        if not least <= width <= present[block]:
            raise PruningError(
                f"block {block} has {present[block]} channels and cannot be pruned to {width}; choose {least} to {present[block]}"
            )
    try:
        graph.at_widths(widths)
    except LayerError as exc:
        raise PruningError(f"{graph.name} cannot be pruned to these widths: {exc}") from exc
    modules = dict(model.named_modules())
    for node in graph.nodes:
        if node.block is None or node.name not in modules:  # a further call of a layer has a name of its own
            continue
        if (filters := len(filters_of(modules[node.name]))) != node.layer.out_channels:
            raise PruningError(
                f"{node.name} has {filters} filters, but {node.layer.out_channels} in the graph; trace the model again"
            )
    return {block: width for block, width in widths.items() if width != present[block]}
