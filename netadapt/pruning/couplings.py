"""Coupled channels of a model, found by Torch-Pruning's dependency graph (https://github.com/VainF/Torch-Pruning).

Removing an output channel of a convolution also removes it from the batch normalisation and the depthwise convolution that follow,
from the inputs of the next layers and, across a residual addition, from every layer that is added. The gate of a squeeze-excite
block couples the layers that it multiplies in the same way. Layers that are concatenated keep separate widths.

A grouped convolution keeps its number of groups, so every group has to lose the same number of channels. The channels that it
reads or writes are divided into that many equal slices, and a channel is removed from all slices together, at the same position in
each. So are the channels that a group normalisation or a split into equal parts reads. Where several of these share a block, the
number of slices is the least common multiple of their groups.

Some layers keep their widths, because one width would not determine what becomes of them: grouped convolutions that read a
concatenation, have one channel in a group, or are transposed, and the layers that feed these; layers that are called twice or
share a weight; and layers whose output is shuffled, or added to a concatenation or to a part of another layer's output.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning.dependency import index_mapping
from torch_pruning.ops import OPTYPE

from netadapt.input_shape import InputShape
from netadapt.outputs import forget_graph, outputs_of_all_layers

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""The classes of layers that can make the channels of a block."""
_FOLLOWERS = (
    OPTYPE.BN, OPTYPE.PRELU, OPTYPE.LN, OPTYPE.GN, OPTYPE.IN, OPTYPE.DEPTHWISE_CONV, OPTYPE.ELEMENTWISE, OPTYPE.CONCAT,
    OPTYPE.RESHAPE, OPTYPE.PARAMETER, OPTYPE.EXPAND, OPTYPE.SLICE, OPTYPE.SPLIT,
)  # fmt: skip
"""The operations that pass channels on, whose number may be another behind a split or a slice."""
_MAKES_AN_OUTPUT = "it makes an output of the network"


class Couplings:
    """The coupled channels of one model, whose channels can be removed in place."""

    def __init__(self, model: nn.Module, input_shape: InputShape) -> None:
        """The model is set to evaluation and requires gradients from now on, so pass a copy of your own."""
        self._modules = dict(model.named_modules())
        self._names = {module: name for name, module in self._modules.items()}
        self._shares_a_weight = _modules_that_share_a_weight(model)
        calls: dict[bool, Counter[nn.Module]] = {False: Counter(), True: Counter()}
        self._outputs: list[Any] = []

        def count_call(module: nn.Module, _inputs: Any, _output: Any) -> None:
            if torch.is_grad_enabled():  # else it is only seen whether training runs other layers
                calls[model.training][module] += 1

        def run(traced: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
            outputs = [output for output in outputs_of_all_layers(traced, *inputs) if output.requires_grad]
            self._outputs = [output.grad_fn for output in outputs]
            return outputs

        model.eval().requires_grad_(True)  # Torch-Pruning reads the graph from autograd's
        hooks = [module.register_forward_hook(count_call) for module in self._modules.values()]
        with torch.enable_grad():
            self._graph = torch_pruning.DependencyGraph().build_dependency(
                model, (torch.zeros(input_shape),), forward_fn=run, verbose=False
            )
        for hook in hooks:
            hook.remove()
        forget_graph(model)
        self._calls = calls[False] | calls[True]  # of a layer that both run, the larger number

    def blocks(self) -> list[tuple[str, ...]]:
        """The members of every coupling group that can be pruned, in the order in which the network calls their first layers."""
        found: dict[frozenset[str], tuple[str, ...]] = {}
        for module in self._calls:
            if members := self.members(self._names[module]):
                found.setdefault(frozenset(members), members)
        return list(found.values())

    def members(self, name: str) -> tuple[str, ...]:
        """The layers with weights whose output channels are coupled to this layer's, itself included; () if it cannot be pruned."""
        return self._members(name)[0]

    def reason(self, name: str) -> str:
        """What keeps this layer at its width; empty if it can be pruned, or has the width of the layer before it."""
        return self._members(name)[1]

    def _members(self, name: str) -> tuple[tuple[str, ...], str]:
        """The members and, if there are none, the reason."""
        layer = self._modules[name]
        is_used = layer in self._graph.module2node  # a network may own layers that it never calls
        if not isinstance(layer, WEIGHTED) or not is_used or _is_depthwise(layer):
            return (), "" if is_used else "the network never calls it"  # a depthwise convolution has the width of the one before it
        width = self._graph.get_out_channels(layer)
        members = []
        for dependency, indices in self._group(layer, list(range(width))):
            module, kind = dependency.target.module, dependency.target.type
            called = self._names.get(module) or name
            if module in self._names and (self._calls[module] != 1 or module in self._shares_a_weight):
                return (), f"{called} is called more than once or shares a weight"
            if not _can_lose_channels(module):
                return (), f"{called} is a transposed convolution with groups, or has one channel in a group on one side only"
            if kind not in (OPTYPE.CONV, OPTYPE.LINEAR):
                if kind == OPTYPE.OUTPUT:
                    return (), _MAKES_AN_OUTPUT
                if kind not in _FOLLOWERS:
                    return (), f"its channels go through {_kind_of(dependency.target)}"
                if kind == OPTYPE.GN and not indices == list(range(width)) == list(range(module.num_channels)):
                    return (), f"{called} normalises groups of a concatenation"
            elif not self._keeps_groups(dependency, indices, width):
                return (), f"{called} has groups and reads a concatenation"
            elif self._graph.is_out_channel_pruning_fn(dependency.handler):
                if not len(indices) == self._graph.get_out_channels(module) == width:
                    return (), f"its channels are only some of those that are added to {called}"
                if dependency.target.grad_fn in self._outputs:
                    return (), _MAKES_AN_OUTPUT
                members.append(self._names[module])
        return tuple(members), ""

    def slices(self, name: str) -> int:
        """The number of equal slices of this layer's channels, from which the same positions are removed; 1 for most layers."""
        group = self._group(self._modules[name], list(range(self._graph.get_out_channels(self._modules[name]))))
        modules = [dependency.target.module for dependency, _ in group]
        convolutions = [module.groups for module in modules if isinstance(module, nn.Conv2d) and not _is_depthwise(module)]
        splits = [module.split_sizes for module in modules if isinstance(module, ops._SplitOp) and module.split_sizes]
        parts = [len(sizes) for sizes in splits if len(set(sizes)) == 1]
        return math.lcm(*convolutions, *parts, *(module.num_groups for module in modules if isinstance(module, nn.GroupNorm)))

    def readers(self, name: str) -> dict[str, dict[int, list[int]]]:
        """The layers with weights that read this layer's output channels: for each, the indices of its inputs by channel.

        Layers between that process every channel on its own, such as depthwise convolutions, do not count as readers. After a
        concatenation the indices are shifted, and after a flatten there are several for each channel.
        """
        width = self._graph.get_out_channels(self._modules[name])
        found: dict[str, dict[int, list[int]]] = {}
        for item in self._group(self._modules[name], list(range(width))).items:
            module = item.dep.target.module
            reads = self._graph.is_in_channel_pruning_fn(item.dep.handler)
            if reads and isinstance(module, WEIGHTED) and not _is_depthwise(module):
                inputs = found.setdefault(self._names[module], {})
                for channel, index in zip(item.root_idxs, item.idxs, strict=True):
                    inputs.setdefault(channel, []).append(index)
        return found

    def remove(self, name: str, channels: list[int]) -> None:
        """Remove these output channels, the same of each slice, from the layer and from all layers coupled to it, in place."""
        if channels:
            self._group(self._modules[name], channels).prune()

    def silence(self, name: str, channels: list[int]) -> None:
        """Set to zero, in place, the weights by which other layers read these output channels of the layer."""
        for dependency, indices in self._group(self._modules[name], channels):
            layer, kind = dependency.target.module, dependency.target.type
            if kind not in (OPTYPE.CONV, OPTYPE.LINEAR) or not self._graph.is_in_channel_pruning_fn(dependency.handler):
                continue
            weight = layer.get_parameter("weight").detach()
            if isinstance(layer, nn.ConvTranspose2d):
                weight[indices] = 0  # (in, out, k, k)
                continue
            by_group = weight.view(getattr(layer, "groups", 1), -1, *weight.shape[1:])  # (groups, out / groups, in / groups, ...)
            inputs = by_group.shape[2]
            for index in indices:
                by_group[index // inputs, :, index % inputs] = 0

    def _group(self, layer: nn.Module, channels: list[int]) -> Any:
        """Torch-Pruning's group of all changes that follow from removing these output channels of the layer."""
        cut: Callable[..., nn.Module] = self._graph.get_pruner_of_module(layer).prune_out_channels
        return self._graph.get_pruning_group(layer, cut, channels)

    def _keeps_groups(self, dependency: Any, channels: list[int], width: int) -> bool:
        """False for a grouped convolution whose channels on this side are not those of the block, all of them and in order."""
        module = dependency.target.module
        writes = self._graph.is_out_channel_pruning_fn(dependency.handler)
        count = self._graph.get_out_channels(module) if writes else self._graph.get_in_channels(module)
        return getattr(module, "groups", 1) == 1 or channels == list(range(width)) == list(range(count))


def _kind_of(node: Any) -> str:
    """The operation of a node of Torch-Pruning's graph, for people, such as `SplitBackward0`."""
    return type(node.grad_fn).__name__.removesuffix("0").removesuffix("Backward").lower() or OPTYPE(node.type).name.lower()


def _reshape_without_channels(update: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Torch-Pruning divides by the channels behind a reshape, of which it finds none behind a shuffle."""

    def update_if_known(graph: Any, node: Any) -> None:
        with suppress(ZeroDivisionError):
            update(graph, node)

    return update_if_known


index_mapping.update_reshape_index_mapping = _reshape_without_channels(index_mapping.update_reshape_index_mapping)


def _modules_that_share_a_weight(model: nn.Module) -> set[nn.Module]:
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            owners.setdefault(weight, set()).add(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}


def _can_lose_channels(layer: nn.Module) -> bool:
    """False for a grouped convolution that is transposed, or has one channel in a group on one side only."""
    groups = getattr(layer, "groups", 1)
    if groups == 1 or (_is_depthwise(layer) and layer.in_channels == groups):
        return True
    return isinstance(layer, nn.Conv2d) and groups not in (layer.in_channels, layer.out_channels)


def _is_depthwise(layer: nn.Module) -> bool:
    return bool(torch_pruning.ops.module2type(layer) == OPTYPE.DEPTHWISE_CONV)
