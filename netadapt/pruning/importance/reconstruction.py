"""The criterion of least reconstruction error: the outputs of the layers that read the block change least, after a refit.

This is the local step of energy-aware pruning (Yang, Chen and Sze, CVPR 2017, https://arxiv.org/abs/1611.05128), with the error
taken after the refit. A layer that reads the block is linear in its inputs. With W its weights (out, features) and A the sum of
xxᵀ over the observed inputs x, the squared error of other weights W' is tr((W' - W) A (W' - W)ᵀ). The best W' without the features
of a channel c has the error tr(W_c [(A⁻¹)_cc]⁻¹ W_cᵀ), as Hassibi and Stork (1992) derived for single weights. So channels are
removed one by one, each time the one with the least error, and W and A⁻¹ are updated for all that remain.

A grouped convolution is treated as one linear map for each group. Where a block is divided into slices, the channels at one
position are removed together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from netadapt.pruning.importance import Block, ImportanceError
from netadapt.pruning.importance.l2 import strongest
from netadapt.pruning.sharing import shared_parameters
from netadapt.training.trees import Inputs, each_of, split

RIDGE = 1e-3
"""What is added to the diagonal of A, relative to its mean, so that features with few observations keep their weights."""
MAX_FEATURES = 4608
"""The largest number of features of a layer, 3x3 over 512 channels; inverting a larger A takes too long, so such layers are not
refitted."""
OBSERVATIONS = 8192
"""The number of inputs x of each layer, over the whole sample: enough for a thousand features."""
_BATCH = 64
_SEED = 0


@dataclass(slots=True)
class Reader:
    """A layer that reads the block, or one of its groups, as a linear map; a convolution's features are the values of a patch."""

    layer: nn.Module
    columns: Tensor
    """The features of each position of the block, (positions, features of a position)."""
    moments: Tensor
    """A with the ridge, (features, features)."""
    weights: Tensor
    """W, (out, features)."""
    group: int = 0

    @property
    def energy(self) -> float:
        """The sum of the squared outputs; the errors of different layers are compared relative to it."""
        return max(float(((self.weights @ self.moments) * self.weights).sum()), 1e-30)


def reconstructing(block: Block, count: int, inputs: Inputs | None) -> list[int]:
    """The positions with the least error, summed over all layers that read the block; these layers are refitted in place.

    A block that is read only by layers with too many features, such as the first linear layer of VGG, is pruned by L2 norm.
    `ImportanceError` without examples.
    """
    if inputs is None or not len(each_of(inputs)[0]):
        raise ImportanceError("the reconstruction criterion needs a sample of images; pass normalised training images (n, c, h, w)")
    readers = observed(block, inputs)
    if not readers:
        return strongest(block, count, inputs)
    kept = eliminated(readers, block.positions, count)
    for reader in readers:
        store(reader, refitted(reader, kept))
    return kept


def eliminated(readers: Sequence[Reader], positions: int, count: int) -> list[int]:
    """The positions that remain when the one with the least error is removed until `count` are left; of equal ones the last."""
    energies: dict[nn.Module, float] = {}
    for reader in readers:
        energies[reader.layer] = energies.get(reader.layer, 0.0) + reader.energy
    weights = [reader.weights.clone() for reader in readers]
    inverses = [torch.cholesky_inverse(torch.linalg.cholesky(reader.moments)) for reader in readers]
    remaining = list(range(positions))
    while len(remaining) > count:
        costs = torch.zeros(len(remaining), dtype=torch.float64)
        for reader, w, inverse in zip(readers, weights, inverses, strict=True):
            costs += _costs(w, inverse, reader.columns[remaining]) / energies[reader.layer]
        removed = remaining.pop(len(remaining) - 1 - int(costs.flip(0).argmin()))
        for reader, w, inverse in zip(readers, weights, inverses, strict=True):
            _remove(w, inverse, reader.columns[removed])
    return remaining


def refitted(reader: Reader, kept: Sequence[int]) -> Tensor:
    """The weights (out, features) of least error that use only the kept positions; those of the other positions are zero."""
    is_removed = torch.ones(len(reader.columns), dtype=torch.bool)
    is_removed[list(kept)] = False
    lost = reader.columns[is_removed].flatten()
    stays = torch.ones(reader.weights.shape[1], dtype=torch.bool)
    stays[lost] = False  # the features of other blocks and the constant one are refitted too
    inner = reader.moments[stays][:, stays]
    fitted = torch.zeros_like(reader.weights)
    compensation = torch.linalg.solve(inner, reader.moments[stays][:, lost] @ reader.weights[:, lost].T).T
    fitted[:, stays] = reader.weights[:, stays] + compensation
    return fitted


def observed(block: Block, inputs: Inputs) -> list[Reader]:
    """The layers that read the block and can be refitted, one reader for each group, with the moments of their inputs.

    Layers that share weights keep them, and so do transposed convolutions in groups.
    """
    shared = {layer for owners in shared_parameters(block.model) for layer, _ in owners}
    layers = [
        layer
        for layer in block.readers
        if layer not in shared
        and not (isinstance(layer, _ConvTransposeNd) and layer.groups > 1)
        and matrices(layer).shape[2] <= MAX_FEATURES
    ]
    sums: dict[nn.Module, Tensor] = {}
    per_image = max(1, OBSERVATIONS // len(each_of(inputs)[0]))
    generator = torch.Generator().manual_seed(_SEED)

    def add(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        features = features_of(layer, given[0].detach(), per_image, generator).double()  # (groups, places, features)
        sums[layer] = sums.get(layer, torch.zeros(())) + features.mT @ features

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        with torch.no_grad():  # and not in inference mode, whose tensors a network that keeps some could not train with
            for batch in split(inputs, _BATCH):
                block.model(*batch)
    finally:
        for hook in hooks:
            hook.remove()
    called = [layer for layer in layers if layer in sums]
    return [_reader(block, layer, group, sums[layer][group].clone()) for layer in called for group in range(groups_of(layer))]


def _costs(weights: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """The error of removing each position alone, (positions,), given its columns, (positions, features of a position)."""
    of_position = weights[:, columns]  # (out, positions, features)
    squares = torch.einsum("opm,opn->pmn", of_position, of_position)
    blocks = inverse[columns[:, :, None], columns[:, None, :]]  # (positions, features, features)
    costs: Tensor = (squares * torch.linalg.inv(blocks)).sum(dim=(1, 2))
    return costs


def _remove(weights: Tensor, inverse: Tensor, lost: Tensor) -> None:
    """Eliminate features from W and A⁻¹, in place; their columns in W, and rows and columns in A⁻¹, become zero."""
    columns = inverse[:, lost]  # (features, lost)
    step = torch.linalg.solve(inverse[lost][:, lost], columns.T)  # (lost, features)
    weights -= weights[:, lost] @ step
    inverse -= columns @ step


def _reader(block: Block, layer: nn.Module, group: int, moments: Tensor) -> Reader:
    """The reader for one group of a layer, which reads some of the block's slices; `moments` gets the ridge in place."""
    weight = layer.get_parameter("weight")
    group_inputs = weight.shape[0 if isinstance(layer, _ConvTransposeNd) else 1]
    values = weight[0, 0].numel() if _is_convolution(layer) else 1  # features of one input: a convolution's k * k
    first = group * group_inputs
    read, inputs = range(first, first + group_inputs), block.readers[layer]
    starts = torch.tensor(
        [
            [index - first for channel in block.channels(position) for index in inputs[channel] if index in read]
            for position in range(block.positions)
        ]
    )  # (positions, inputs of a position)
    columns = (starts[:, :, None] * values + torch.arange(values)).flatten(1)
    moments.diagonal().add_(RIDGE * moments.diagonal().mean() + 1e-12)
    return Reader(layer, columns, moments, matrices(layer)[group].double(), group)


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd)


def groups_of(layer: nn.Module) -> int:
    return int(layer.groups) if isinstance(layer, _ConvNd) and _is_convolution(layer) else 1


def has_constant(layer: nn.Module) -> bool:
    """True if the last feature is always 1 and its weight is the bias.

    A transposed convolution has none, because its bias is added only after overlapping outputs are summed.
    """
    return layer.bias is not None and not isinstance(layer, _ConvTransposeNd)


def matrices(layer: nn.Module) -> Tensor:
    """The weights as matrices, (groups, out, features).

    The outputs of a transposed convolution are those that a single pixel contributes to: out * k * k of them.
    """
    weight = layer.get_parameter("weight").detach()
    if isinstance(layer, _ConvTransposeNd):
        return weight.flatten(1).T[None]  # from (in, out, k, k)
    matrix = weight.flatten(1)
    matrix = torch.cat([matrix, layer.get_parameter("bias").detach()[:, None]], dim=1) if has_constant(layer) else matrix
    return matrix.view(groups_of(layer), -1, matrix.shape[1])


def store(reader: Reader, matrix: Tensor) -> None:
    """Write a new W (out, features) into the weights and the bias of the reader's layer, or of its group in it."""
    layer, group = reader.layer, reader.group
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        if has_constant(layer):
            layer.get_parameter("bias").view(groups_of(layer), -1)[group] = matrix[:, -1]
            matrix = matrix[:, :-1]
        if isinstance(layer, _ConvTransposeNd):
            weight.copy_(matrix.T.reshape(weight.shape))  # (in, out, k, k)
        else:
            of_group = weight.view(groups_of(layer), -1, *weight.shape[1:])[group]
            of_group.copy_(matrix.reshape(of_group.shape))


def features_of(layer: nn.Module, inputs: Tensor, per_image: int, generator: torch.Generator) -> Tensor:
    """The features of a layer's inputs, (groups, places, features).

    Of a convolution they are the patches at `per_image` random places, the same places in every image of the batch.
    """
    if isinstance(layer, _ConvNd) and _is_convolution(layer):
        features = _patches(layer, inputs, per_image, generator)
    elif isinstance(layer, _ConvTransposeNd):
        pixels = inputs.flatten(2)[:, :, _places(math.prod(inputs.shape[2:]), per_image, generator)]  # (n, c, places)
        features = pixels.transpose(1, 2).flatten(0, 1)
    else:
        features = inputs.flatten(0, -2)
    by_group = features.reshape(len(features), groups_of(layer), -1).transpose(0, 1)
    return torch.cat([by_group, torch.ones(*by_group.shape[:2], 1)], dim=2) if has_constant(layer) else by_group


def _patches(layer: _ConvNd, inputs: Tensor, per_image: int, generator: torch.Generator) -> Tensor:
    """The patches that the convolution multiplies with its weights, (n * places, c * k * k), with its padding and dilation."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    offsets = [torch.arange(k) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    sizes = [
        (size - int(reach[-1]) - 1) // step + 1 for size, reach, step in zip(padded.shape[2:], offsets, layer.stride, strict=True)
    ]
    chosen = torch.unravel_index(_places(math.prod(sizes), per_image, generator), sizes)
    along = [place[:, None] * step + reach for place, step, reach in zip(chosen, layer.stride, offsets, strict=True)]  # (places, k)
    axes = range(len(along))
    indices = [taken.view(len(taken), *(-1 if axis == own else 1 for axis in axes)) for own, taken in enumerate(along)]
    chosen_of_all: tuple[Any, ...] = (slice(None), slice(None), *indices)
    patches: Tensor = padded[chosen_of_all]  # (n, c, places, k, k)
    return patches.transpose(1, 2).flatten(2).flatten(0, 1)


def _places(count: int, limit: int, generator: torch.Generator) -> Tensor:
    """The indices of `limit` random places of `count`, or of all where there are not more."""
    return torch.randperm(count, generator=generator)[:limit] if count > limit else torch.arange(count)
