"""The paper's rule: the filters of largest L2 norm stay. It looks at no image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netadapt.pruning.importance import Block


def strongest(block: Block, count: int, _images: Tensor | None) -> list[int]:
    """Squared norms are added up over layers and slices. Among equals the first, so that it is the same everywhere."""
    strength = torch.stack([by_filter(layer).square().sum(dim=1) for layer in block.members]).sum(dim=0)
    of_positions = strength.reshape(block.slices, block.positions).sum(dim=0)
    return of_positions.argsort(descending=True, stable=True)[:count].tolist()


def by_filter(layer: nn.Module) -> Tensor:
    """A layer's weights as (out, everything else)."""
    weight = layer.get_parameter("weight").detach()
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)  # (in, out, k, k)
    return weight.flatten(1)
