"""Training by several processes together, each on its share of every batch, by torch's DistributedDataParallel.

The result is that of one process with the same whole batches, but for rounding: statistics of batch normalisation are those of the
whole batch, and what augmentation draws at random does not depend on the number of processes. Only dropout and losses that are no
mean over the examples differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from netadapt.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Share:
    """The place of this process among those that train together."""

    rank: int = 0
    count: int = 1

    def require(self, batch_size: int) -> None:
        """`SettingsError` if batches of this size cannot be shared alike."""
        if batch_size % self.count:
            raise SettingsError(
                f"a batch of {batch_size} images cannot be shared alike by {self.count} processes; choose another --batch-size or "
                "--processes"
            )

    def first(self, batch_size: int) -> int:
        """The place in a batch of this process's first example."""
        return self.rank * (batch_size // self.count)

    def of(self, batch: Tensor) -> Tensor:
        """The examples of a batch, (n, …), that are this process's."""
        return batch if self.count == 1 else batch.tensor_split(self.count)[self.rank]

    def in_whole(self, own: Tensor) -> Tensor:
        """A whole batch, (n, …), with zeros in place of the examples of others."""
        if self.count == 1:
            return own
        whole = own.new_zeros((self.count * len(own), *own.shape[1:]))
        whole[self.first(len(whole)) :][: len(own)] = own
        return whole

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model, whose gradients are the mean over the processes from now on; its batch normalisation is changed in place."""
        if self.count == 1:
            return model
        if next(model.parameters()).is_cuda:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        else:  # torch's own is for GPUs only
            synchronise(model)
        # the loss may leave layers out, such as heads of outputs that are not trained
        return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)

    def mean(self, loss: Tensor) -> float:
        """The mean of a scalar over the processes, which all of them get."""
        if self.count == 1:
            return loss.item()
        whole = loss.detach().float().clone()
        dist.all_reduce(whole)
        return whole.item() / self.count


ALONE = Share()


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        whole = values.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        whole = gradient.clone()
        dist.all_reduce(whole)
        return whole


def _summed(values: Tensor) -> Tensor:
    found: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return found


class SyncedBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of the examples of all processes, which have equally many."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes, count = [0, *range(2, input.ndim)], dist.get_world_size()
        shape = (1, -1, *[1] * (input.ndim - 2))
        values = input.float()
        mean = _summed(values.mean(axes)) / count
        centred = values - mean.view(shape)
        # (c,); not by E[x²] - E[x]², which rounds badly
        variance = _summed(centred.square().mean(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            examples = count * input.numel() / input.shape[1]
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, factor)
                self.running_var.lerp_(variance * (examples / (examples - 1)), factor)
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)


def synchronise(model: nn.Module) -> None:
    """Make the model's batch normalisation that of all processes, in place; parameters, statistics and hooks stay."""
    for module in model.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = SyncedBatchNorm
