"""Pruning by magnitude: in each layer weights go that are smaller than a multiple of their standard deviation (Han et al., 2015).

https://arxiv.org/abs/1506.02626. The multiple is the same for all layers, and as large as leaves a wanted number of weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_HALVINGS = 60


def prune_by_magnitude(layers: Sequence[nn.Module], count: int) -> None:
    """Set all but about `count` of the layers' weights to zero, in place; those that are zero stay so."""
    weights = [layer.get_parameter("weight") for layer in layers]
    sizes: list[Tensor] = []
    for weight in weights:
        there = weight.detach()[weight.detach() != 0].double()
        deviation = there.std() if there.numel() > 1 else torch.ones((), dtype=torch.float64)
        sizes.append(weight.detach().abs().double() / deviation.clamp_min(1e-30))
    low, high = 0.0, max((float(size.max()) for size in sizes), default=0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(int((size > middle).sum()) for size in sizes) > count:
            low = middle
        else:
            high = middle
    with torch.no_grad():
        for weight, size in zip(weights, sizes, strict=True):
            weight.mul_((size > high).to(weight.dtype))
