"""Narrower copies of a model: which filters of a block stay, and the cut itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy

from torch import Tensor, nn

from device_agents.support.errors import ToolError
from device_agents.support.text import did_you_mean
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.importance import DEFAULT, Block, ImportanceError, Keep, open_importance
from netadapt.pruning.importance.l2 import by_filter
from profiler.errors import LayerError
from profiler.layers.graph import Graph


class PruningError(ToolError):
    """Widths that this network cannot be pruned to."""


def prune(
    model: nn.Module, graph: Graph, widths: Mapping[str, int], importance: str = DEFAULT, images: Tensor | None = None
) -> nn.Module:
    """A copy of the model that `graph` was traced from, keeping in every block the filters that the rule of this name chooses.

    All layers of a block keep the same filters, in their old order; where there are grouped convolutions, the same of every slice
    (netadapt.pruning.couplings). Blocks that are not named keep their widths. The copy is in training or evaluation mode as the
    model is. `images`, (n, c, h, w), are for rules that look at what layers compute.
    """
    return _cut(model, graph, widths, open_importance(importance), images)


def reshape_like(model: nn.Module, graph: Graph, widths: Mapping[str, int]) -> nn.Module:
    """A copy of the same shapes as `prune` gives, for weights to be loaded into: which filters it keeps means nothing."""
    return _cut(model, graph, widths, lambda _block, count, _images: list(range(count)))


def _cut(model: nn.Module, graph: Graph, widths: Mapping[str, int], keep: Keep, images: Tensor | None = None) -> nn.Module:
    changed = _checked(model, graph, widths)
    pruned = deepcopy(model)
    if not changed:
        return pruned
    was_training = {name: module.training for name, module in pruned.named_modules()}
    needed_gradient = {name: weight.requires_grad for name, weight in pruned.named_parameters()}
    _, (n, height, width, channels) = graph.inputs[0]
    couplings = Couplings(pruned, (n, channels, height, width))
    for block, kept_width in changed.items():
        members = [pruned.get_submodule(name) for name in _members(graph, block)]
        readers = {pruned.get_submodule(name): inputs for name, inputs in couplings.readers(block).items()}
        losing = Block(pruned, block, graph.widths[block], members, readers, couplings.slices(block))
        couplings.remove(block, _lost(losing, kept_width, keep, images))
    for name, module in pruned.named_modules():
        module.training = was_training[name]
    for name, weight in pruned.named_parameters():
        weight.requires_grad_(needed_gradient[name])
    return pruned


def _lost(block: Block, width: int, keep: Keep, images: Tensor | None) -> list[int]:
    """The channels that go, by what the rule keeps."""
    count = width // block.slices
    kept = set(keep(block, count, images))
    if len(kept) != count or not kept <= set(range(block.positions)):
        raise ImportanceError(
            f"the rule must keep {count} of {block.positions} positions of block {block.name}, but keeps {sorted(kept)}"
        )
    return sorted(channel for position in range(block.positions) if position not in kept for channel in block.channels(position))


def _checked(model: nn.Module, graph: Graph, widths: Mapping[str, int]) -> dict[str, int]:
    """The widths that differ from the model's own, which must be the graph's."""
    present = graph.widths
    for block, width in widths.items():
        if block not in present:
            raise PruningError(f"{graph.name} has no block {block!r}; {did_you_mean(block, present)}")
        if not 1 <= width <= present[block]:
            raise PruningError(f"block {block} has {present[block]} channels and cannot be pruned to {width}")
    try:
        graph.at_widths(widths)
    except LayerError as exc:
        raise PruningError(f"{graph.name} cannot be pruned to these widths: {exc}") from exc
    for node in graph.nodes:
        if node.block is not None and (filters := len(by_filter(model.get_submodule(node.name)))) != node.layer.out_channels:
            raise PruningError(f"{node.name} has {filters} filters but the graph says {node.layer.out_channels}: trace it again")
    return {block: width for block, width in widths.items() if width != present[block]}


def _members(graph: Graph, block: str) -> Iterable[str]:
    return (node.name for node in graph.nodes if node.block == block)
