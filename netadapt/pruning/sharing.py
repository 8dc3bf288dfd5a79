"""Parameters that several layers share, such as an embedding's that is the last layer's too.

Each of the layers loses the same numbers of them, so what one of them makes or reads is coupled to what the others do along the
same axis. Each layer then has a copy of its own, until `share_again` makes one parameter of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch_pruning.dependency.dependency import Dependency
from torch_pruning.ops import OPTYPE

Owners = list[tuple[nn.Module, str]]
"""The modules that have a parameter, with its name in each."""


def shared_parameters(model: nn.Module) -> list[Owners]:
    """The owners of every parameter that has several, in the model's order; of one number, which stays, there are none."""
    owners: dict[nn.Parameter, Owners] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.numel() > 1:
                owners.setdefault(parameter, []).append((module, name))
    return [found for found in owners.values() if len(found) > 1]


def share_again(shared: Sequence[Owners]) -> None:
    """Let all owners of a parameter have that of the first, after all of them have lost the same numbers of it."""
    for (first, name), *others in shared:
        for module, other in others:
            module._parameters[other] = first._parameters[name]


def part_again(shared: Sequence[Owners]) -> None:
    """Give every owner but the first a parameter of its own, of other values."""
    for (first, name), *others in shared:
        for module, other in others:
            module._parameters[other] = nn.Parameter(torch.rand_like(first.get_parameter(name)))


def couple_shared(graph: Any, shared: Sequence[Owners]) -> dict[tuple[nn.Module, Any], nn.Module]:
    """Add to Torch-Pruning's graph what follows for the other owners of a parameter when one of them loses channels.

    Returns the layers, each with a function that removes its channels, that cannot be changed because another owner cannot follow,
    with that owner.
    """
    fixed = {}
    for owners in shared:
        axes = [_axes(graph, module, name) if module in graph.module2node else {} for module, name in owners]
        for (one, _), own in zip(owners, axes, strict=True):
            for (other, _), others in zip(owners, axes, strict=True):
                if one is other:
                    continue
                for axis, trigger in own.items():
                    if axis not in others:
                        fixed[one, trigger] = other
                        continue
                    source, target = graph.module2node[one], graph.module2node[other]
                    source.dependencies.append(Dependency(trigger, others[axis], source, target))
    return fixed


def _axes(graph: Any, module: nn.Module, name: str) -> dict[Any, Any]:
    """The function that removes channels along each axis of a parameter, by the axis and by what its places stand for."""
    kind, pruner = graph.module2node[module].type, graph.get_pruner_of_module(module)
    makes, reads = pruner.prune_out_channels, pruner.prune_in_channels
    if kind == OPTYPE.EMBED:
        return {(1, 1): makes}
    if kind == OPTYPE.MHA:
        return {(axis, name): makes for axis in range(2)}
    if kind not in (OPTYPE.CONV, OPTYPE.LINEAR) or name == "bias":
        return {0: makes}
    if isinstance(module, _ConvTransposeNd):  # (in, out / groups, k, k)
        makes, reads = reads, makes
    return {0: makes, (1, getattr(module, "groups", 1)): reads}
