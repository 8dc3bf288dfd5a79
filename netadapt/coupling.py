"""Which layers' channels hang together, by Torch-Pruning's dependency graph (https://github.com/VainF/Torch-Pruning).

Taking an output channel from a convolution takes it from the batch normalisation and the depthwise convolution after it, from
the inputs of the next layers and, across a residual addition, from every layer that is added to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from torch import nn
from torch_pruning.ops import OPTYPE

InputShape = tuple[int, int, int, int]
"""(n, c, h, w)"""
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

_FOLLOWERS = (OPTYPE.BN, OPTYPE.PRELU, OPTYPE.LN, OPTYPE.DEPTHWISE_CONV, OPTYPE.ELEMENTWISE, OPTYPE.CONCAT, OPTYPE.RESHAPE)


class Couplings:
    """Of one model, which is cut in place and set to evaluation: give it one of your own."""

    def __init__(self, model: nn.Module, input_shape: InputShape) -> None:
        self._modules = dict(model.named_modules())
        self._names = {module: name for name, module in self._modules.items()}
        self._calls: Counter[nn.Module] = Counter()
        model.eval().requires_grad_(True)  # the graph is read out of autograd's
        hooks = [module.register_forward_hook(self._count_call) for module in self._modules.values()]
        with torch.enable_grad():
            self._graph = torch_pruning.DependencyGraph().build_dependency(model, (torch.zeros(input_shape),), verbose=False)
        for hook in hooks:
            hook.remove()

    def members(self, name: str) -> tuple[str, ...]:
        """The layers with weights that must have as many outputs as this one, itself included; () if it must keep them all."""
        layer = self._modules[name]
        if not self._starts_a_group(layer):
            return ()
        width = self._graph.get_out_channels(layer)
        members = []
        for dependency, indices in self._group(layer, list(range(width))):
            module, kind = dependency.target.module, dependency.target.type
            if kind not in (OPTYPE.CONV, OPTYPE.LINEAR):
                if kind not in _FOLLOWERS:
                    return ()
            elif self._calls[module] != 1 or getattr(module, "groups", 1) != 1:
                return ()
            elif self._graph.is_out_channel_pruning_fn(dependency.handler):
                if not len(indices) == self._graph.get_out_channels(module) == width:
                    return ()  # a concatenation makes them part of another's channels: one width cannot speak for both
                members.append(self._names[module])
        return tuple(members)

    def remove(self, name: str, channels: list[int]) -> None:
        """Take these output channels from the layer and from all that hangs on it."""
        if channels:
            self._group(self._modules[name], channels).prune()

    def _starts_a_group(self, layer: nn.Module) -> bool:
        return (
            isinstance(layer, WEIGHTED)
            and layer in self._graph.module2node  # the network may own layers that it does not use
            and torch_pruning.ops.module2type(layer) != OPTYPE.DEPTHWISE_CONV  # it follows the layer before it
        )

    def _group(self, layer: nn.Module, channels: list[int]) -> Any:
        cut: Callable[..., nn.Module] = self._graph.get_pruner_of_module(layer).prune_out_channels
        return self._graph.get_pruning_group(layer, cut, channels)

    def _count_call(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._calls[module] += 1
