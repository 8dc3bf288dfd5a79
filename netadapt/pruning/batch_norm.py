"""The statistics of batch normalisation, estimated again after pruning: the old ones are those of the wider network.

Li et al., EagleEye, 2020 (https://arxiv.org/abs/2007.02491) call this adaptive batch normalisation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from netadapt.training.trainer import fastest_layout, outputs_of
from netadapt.training.types import Part


def reestimate(model: nn.Module, part: Part, batches: int, seed: int, *, batch_size: int = 64) -> None:
    """Set every running mean and variance to its average over this number of batches of unaugmented images, in place.

    The images are drawn without replacement; there are fewer batches where the part is too small. Weights, gradients and modes
    stay as they are, and all other layers, such as dropout, work as in evaluation. 0 batches change nothing.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if batches < 1 or not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[: batches * batch_size]
    layout = fastest_layout(model.eval(), part.batch(order[:2])[0])  # before the statistics are collected, as it runs the model
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # for torch: the plain average over all batches
        norm.training = True
    with torch.no_grad():  # and not in inference mode, whose tensors a network that keeps some could not train with
        for indices in torch.split(order, batch_size):
            # a last batch of one image would have as much weight in the variance as a full batch
            if len(indices) > 1 or len(order) == 1:
                outputs_of(model, part.batch(indices)[0], layout)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as `train` leaves it
