"""Batch normalisation's statistics, counted anew: after channels have gone, the old ones are those of another network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from netadapt.training.types import Part


def reestimate(model: nn.Module, part: Part, batches: int, seed: int, *, batch_size: int = 64) -> None:
    """Set the running mean and variance to their averages over so many batches of images as they are, in place.

    The images are drawn without repetition, fewer where there are not so many. Weights, gradients and modes are left alone, and
    nothing else, such as dropout, works as in training.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if batches < 1 or not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain average of all batches
        norm.training = True
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[: batches * batch_size]
    with torch.inference_mode():
        for indices in torch.split(order, batch_size):
            if len(indices) > 1 or len(order) == 1:  # the variance of one image alone would count as much as a batch's
                model(part.batch(indices)[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
