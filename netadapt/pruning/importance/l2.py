"""The criterion of the paper (Yang et al., 2018, "Choose Which Filters"): the filters of largest L2 norm stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from netadapt.pruning.importance import Block
from netadapt.training.trees import Inputs


def strongest(block: Block, count: int, _inputs: Inputs | None) -> list[int]:
    """The positions whose squared norms, summed over the block's layers and slices, are largest; of equal ones the first."""
    norms = torch.stack([filters_of(layer).square().sum(dim=1) for layer in block.members]).sum(dim=0)  # (channels,)
    of_positions = norms.reshape(block.slices, block.positions).sum(dim=0)
    return of_positions.argsort(descending=True, stable=True)[:count].tolist()


def filters_of(layer: nn.Module) -> Tensor:
    """The weights of a layer by filter, (out, all other dimensions)."""
    weight = layer.get_parameter("weight").detach()
    if isinstance(layer, _ConvTransposeNd):
        # from (in, out / groups, k, k)
        weight = weight.reshape(layer.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)
