"""Which layers' channels hang together, by Torch-Pruning's dependency graph (https://github.com/VainF/Torch-Pruning).

Taking an output channel from a convolution takes it from the batch normalisation and the depthwise convolution after it, from
the inputs of the next layers and, across a residual addition, from every layer that is added to it. The gate of a squeeze-excite
block is multiplied as others are added. Sources of a concatenation keep widths of their own.

A grouped convolution keeps the number of its groups, so every group has to lose as many channels: the channels that it makes or
reads are seen as so many equal slices, and a channel goes from all slices together, the one at the same position in each. Where
several grouped convolutions meet, the slices are so many that each of them is served.

Left as wide as they are, since one width would not say what becomes of them: grouped convolutions that read a concatenation, have
one channel in a group, or are transposed, and what feeds these; layers that are called twice or share a weight; and what is cut
in pieces, shuffled, or added to a concatenation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

from netadapt.input_shape import InputShape

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

_FOLLOWERS = (OPTYPE.BN, OPTYPE.PRELU, OPTYPE.LN, OPTYPE.DEPTHWISE_CONV, OPTYPE.ELEMENTWISE, OPTYPE.CONCAT, OPTYPE.RESHAPE)


class Couplings:
    """Of one model, which is cut in place and set to evaluation: give it one of your own."""

    def __init__(self, model: nn.Module, input_shape: InputShape) -> None:
        self._modules = dict(model.named_modules())
        self._names = {module: name for name, module in self._modules.items()}
        self._shares_a_weight = _modules_that_share_a_weight(model)
        self._calls: Counter[nn.Module] = Counter()
        self._outputs: list[Any] = []
        model.eval().requires_grad_(True)  # the graph is read out of autograd's
        hooks = [module.register_forward_hook(self._count_call) for module in self._modules.values()]
        with torch.enable_grad():
            self._graph = torch_pruning.DependencyGraph().build_dependency(
                model, (torch.zeros(input_shape),), output_transform=self._note_outputs, verbose=False
            )
        for hook in hooks:
            hook.remove()

    def blocks(self) -> list[tuple[str, ...]]:
        """The members of every group that can be pruned, in the order in which the network calls their first."""
        found: dict[frozenset[str], tuple[str, ...]] = {}
        for module in self._calls:
            if members := self.members(self._names[module]):
                found.setdefault(frozenset(members), members)
        return list(found.values())

    def members(self, name: str) -> tuple[str, ...]:
        """The layers with weights that must have as many outputs as this one, itself included; () if it must keep them all."""
        layer = self._modules[name]
        if not self._starts_a_group(layer):
            return ()
        width = self._graph.get_out_channels(layer)
        members = []
        for dependency, indices in self._group(layer, list(range(width))):
            module, kind = dependency.target.module, dependency.target.type
            if module in self._names and (self._calls[module] != 1 or module in self._shares_a_weight):
                return ()
            if not _can_lose_channels(module):
                return ()
            if kind not in (OPTYPE.CONV, OPTYPE.LINEAR):
                if kind not in _FOLLOWERS:
                    return ()
            elif not self._keeps_groups(dependency, indices, width):
                return ()
            elif self._graph.is_out_channel_pruning_fn(dependency.handler):
                if not len(indices) == self._graph.get_out_channels(module) == width:
                    return ()  # a concatenation makes them part of another's channels: one width cannot speak for both
                if dependency.target.grad_fn in self._outputs:
                    return ()  # the network's outputs keep their number
                members.append(self._names[module])
        return tuple(members)

    def slices(self, name: str) -> int:
        """How many equal slices this layer's channels are divided into: one goes from each, at the same position. Mostly 1."""
        group = self._group(self._modules[name], list(range(self._graph.get_out_channels(self._modules[name]))))
        modules = (dependency.target.module for dependency, _ in group)
        return math.lcm(*(module.groups for module in modules if isinstance(module, nn.Conv2d) and not _is_depthwise(module)))

    def readers(self, name: str) -> dict[str, dict[int, list[int]]]:
        """The layers with weights that read this one's channels: for each, which of its inputs stand for which channel.

        Layers between that keep channels apart, such as depthwise convolutions, are looked through. After a concatenation the
        inputs are shifted, after a flatten there are several for each channel.
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
        """Take these output channels, the same of each slice, from the layer and from all that hangs on it."""
        if channels:
            self._group(self._modules[name], channels).prune()

    def silence(self, name: str, channels: list[int]) -> None:
        """Let nothing read these output channels of the layer: what reads them gets weights of zero for them."""
        for dependency, indices in self._group(self._modules[name], channels):
            module, kind = dependency.target.module, dependency.target.type
            reads = kind in (OPTYPE.CONV, OPTYPE.LINEAR) and self._graph.is_in_channel_pruning_fn(dependency.handler)
            if reads:
                _silence_inputs(module, indices)

    def _starts_a_group(self, layer: nn.Module) -> bool:
        return (
            isinstance(layer, WEIGHTED)
            and layer in self._graph.module2node  # the network may own layers that it does not use
            and not _is_depthwise(layer)  # it follows the layer before it
        )

    def _group(self, layer: nn.Module, channels: list[int]) -> Any:
        cut: Callable[..., nn.Module] = self._graph.get_pruner_of_module(layer).prune_out_channels
        return self._graph.get_pruning_group(layer, cut, channels)

    def _keeps_groups(self, dependency: Any, channels: list[int], width: int) -> bool:
        """A grouped convolution must make or read all channels of the block and no others, in their order."""
        module = dependency.target.module
        makes = self._graph.is_out_channel_pruning_fn(dependency.handler)
        count = self._graph.get_out_channels(module) if makes else self._graph.get_in_channels(module)
        return getattr(module, "groups", 1) == 1 or channels == list(range(width)) == list(range(count))

    def _note_outputs(self, outputs: Any) -> Any:
        self._outputs = [output.grad_fn for output in as_list(outputs)]
        return outputs

    def _count_call(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._calls[module] += 1


def as_list(outputs: Any) -> list[Tensor]:
    """The tensors in whatever a model may return: one, several, several by name."""
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for part in parts for tensor in as_list(part)]


def _modules_that_share_a_weight(model: nn.Module) -> set[nn.Module]:
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            owners.setdefault(weight, set()).add(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}


def _can_lose_channels(layer: nn.Module) -> bool:
    """Not a grouped convolution with one channel in a group on one side only, nor a transposed one."""
    groups = getattr(layer, "groups", 1)
    if groups == 1 or (_is_depthwise(layer) and layer.in_channels == groups):
        return True
    return isinstance(layer, nn.Conv2d) and groups not in (layer.in_channels, layer.out_channels)


def _silence_inputs(layer: nn.Module, inputs: list[int]) -> None:
    weight = layer.get_parameter("weight").detach()
    if isinstance(layer, nn.ConvTranspose2d):
        weight[inputs] = 0  # (in, out, k, k)
        return
    of_groups = weight.view(getattr(layer, "groups", 1), -1, *weight.shape[1:])  # (groups, out of each, in of each, ...)
    each = of_groups.shape[2]
    for index in inputs:
        of_groups[index // each, :, index % each] = 0


def _is_depthwise(layer: nn.Module) -> bool:
    return bool(torch_pruning.ops.module2type(layer) == OPTYPE.DEPTHWISE_CONV)
