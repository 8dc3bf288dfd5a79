"""Narrower copies of a model: which filters of a block stay, and the cut itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from device_agents.errors import ToolError
from netadapt.coupling import Couplings
from netadapt.registry import did_you_mean
from profiler.graph import Graph


class NarrowError(ToolError):
    """Widths that this network cannot be narrowed to."""


def narrow(model: nn.Module, graph: Graph, widths: Mapping[str, int]) -> nn.Module:
    """A copy of the model that `graph` was traced from, keeping in every block the filters of largest L2 norm.

    Over a block of several layers their squared norms are added up, and all keep the same filters, in their old order.
    Blocks that are not named keep their widths. The copy is in training or evaluation mode as the model is.
    """
    return _cut(model, graph, widths, _strongest)


def reshape_like(model: nn.Module, graph: Graph, widths: Mapping[str, int]) -> nn.Module:
    """A copy of the same shapes as `narrow` gives, for weights to be loaded into: which filters it keeps means nothing."""
    return _cut(model, graph, widths, lambda _layers, width: list(range(width)))


def _cut(
    model: nn.Module, graph: Graph, widths: Mapping[str, int], choose: Callable[[list[nn.Module], int], list[int]]
) -> nn.Module:
    changed = _checked(model, graph, widths)
    narrowed = deepcopy(model)
    if not changed:
        return narrowed
    was_training = {name: module.training for name, module in narrowed.named_modules()}
    needed_gradient = {name: weight.requires_grad for name, weight in narrowed.named_parameters()}
    _, (n, height, width, channels) = graph.inputs[0]
    couplings = Couplings(narrowed, (n, channels, height, width))
    for block, kept_width in changed.items():
        layers = [narrowed.get_submodule(name) for name in _members(graph, block)]
        kept = set(choose(layers, kept_width))
        couplings.remove(block, [index for index in range(graph.widths[block]) if index not in kept])
    for name, module in narrowed.named_modules():
        module.training = was_training[name]
    for name, weight in narrowed.named_parameters():
        weight.requires_grad_(needed_gradient[name])
    return narrowed


def _checked(model: nn.Module, graph: Graph, widths: Mapping[str, int]) -> dict[str, int]:
    """The widths that differ from the model's own, which must be the graph's."""
    present = graph.widths
    for block, width in widths.items():
        if block not in present:
            raise NarrowError(f"{graph.name} has no block {block!r}; {did_you_mean(block, present)}")
        if not 1 <= width <= present[block]:
            raise NarrowError(f"block {block} has {present[block]} channels and cannot be narrowed to {width}")
    for node in graph.nodes:
        if node.block is not None and (filters := len(_filters(model.get_submodule(node.name)))) != node.layer.out_channels:
            raise NarrowError(f"{node.name} has {filters} filters but the graph says {node.layer.out_channels}: trace it again")
    return {block: width for block, width in widths.items() if width != present[block]}


def _members(graph: Graph, block: str) -> Iterable[str]:
    return (node.name for node in graph.nodes if node.block == block)


def _strongest(layers: list[nn.Module], width: int) -> list[int]:
    """Among equals the first, so that the choice is the same everywhere."""
    strength = torch.stack([_filters(layer).square().sum(dim=1) for layer in layers]).sum(dim=0)
    return strength.argsort(descending=True, stable=True)[:width].tolist()


def _filters(layer: nn.Module) -> Tensor:
    """(out, everything else)"""
    weight = layer.get_parameter("weight").detach()
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)  # (in, out, k, k)
    return weight.flatten(1)
