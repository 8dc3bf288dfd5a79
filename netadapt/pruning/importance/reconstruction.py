"""Keep the channels without which the layers that read the block compute least differently, and refit these layers.

The local step of energy-aware pruning (Yang, Chen and Sze, CVPR 2017, https://arxiv.org/abs/1611.05128), with the error counted
after the refit. A layer that reads the block is linear in its inputs: with W its weights (out, features) and A the sum of xxᵀ over
the inputs x seen, other weights W' err by tr((W' - W) A (W' - W)ᵀ). The best W' without the features of one channel c errs by
tr(W_c [(A⁻¹)_cc]⁻¹ W_cᵀ), known in closed form (Hassibi and Stork, 1992, for single weights). So channels go one by one, each time
the one that costs least, given that the others make up for it and for all that went before. A grouped convolution is so many
linear maps beside each other; where a block is in slices, the channels at one position go together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from netadapt.pruning.importance import Block, ImportanceError
from netadapt.pruning.importance.l2 import strongest

RIDGE = 1e-3
"""Of the mean square of a feature: what the sample says little about keeps the weights it has."""
MAX_FEATURES = 4608
"""3x3 over 512 channels; the inverse of a larger matrix takes too long. Layers that read more are not refitted."""
_PLACES = 8192
"""Of each layer, over the whole sample: enough for a thousand features."""
_BATCH = 64
_SEED = 0


@dataclass(slots=True)
class Reader:
    """A layer that reads the block, or one of its groups, as a linear map of features: of a convolution, the patches it sees."""

    layer: nn.Module
    columns: Tensor
    """(positions of the block, features of each)"""
    moments: Tensor
    """A: (features, features), with the ridge."""
    weights: Tensor
    """W: (out, features)"""
    group: int = 0

    @property
    def energy(self) -> float:
        """What the layer computes, squared: errors of different layers are compared as parts of it."""
        return max(float(((self.weights @ self.moments) * self.weights).sum()), 1e-30)


def reconstructing(block: Block, count: int, images: Tensor | None) -> list[int]:
    """Chooses by the error of all layers that read the block, each as a part of its energy, and refits each on its own.

    A block that only layers of too many features read, such as the first linear layer of VGG, is judged by L2 norm.
    """
    if images is None or not len(images):
        raise ImportanceError("importance by reconstruction needs a sample of images")
    readers = observed(block, images)
    if not readers:
        return strongest(block, count, images)
    kept = eliminated(readers, block.positions, count)
    for reader in readers:
        _store(reader, refitted(reader, kept))
    return kept


def eliminated(readers: Sequence[Reader], positions: int, count: int) -> list[int]:
    """The positions left when the one that costs least has gone again and again; among equals the last goes."""
    energies: dict[nn.Module, float] = {}
    for reader in readers:
        energies[reader.layer] = energies.get(reader.layer, 0.0) + reader.energy
    weights = [reader.weights.clone() for reader in readers]
    inverses = [torch.cholesky_inverse(torch.linalg.cholesky(reader.moments)) for reader in readers]
    left = list(range(positions))
    while len(left) > count:
        costs = torch.zeros(len(left), dtype=torch.float64)
        for reader, w, inverse in zip(readers, weights, inverses, strict=True):
            costs += _costs(w, inverse, reader.columns[left]) / energies[reader.layer]
        gone = left.pop(len(left) - 1 - int(costs.flip(0).argmin()))
        for reader, w, inverse in zip(readers, weights, inverses, strict=True):
            _remove(w, inverse, reader.columns[gone])
    return left


def refitted(reader: Reader, kept: Sequence[int]) -> Tensor:
    """The weights (out, features) that come nearest to the old ones' outputs with these positions only; zero for the others."""
    gone = torch.ones(len(reader.columns), dtype=torch.bool)
    gone[list(kept)] = False
    lost = reader.columns[gone].flatten()
    stays = torch.ones(reader.weights.shape[1], dtype=torch.bool)
    stays[lost] = False  # features of other blocks, and the constant one, help too
    inner = reader.moments[stays][:, stays]
    fitted = torch.zeros_like(reader.weights)
    made_up = torch.linalg.solve(inner, reader.moments[stays][:, lost] @ reader.weights[:, lost].T).T
    fitted[:, stays] = reader.weights[:, stays] + made_up
    return fitted


def observed(block: Block, images: Tensor) -> list[Reader]:
    """The layers that read the block, by their groups, with the moments of what they are given for these images."""
    layers = [layer for layer in block.readers if _can_be_refitted(layer)]
    sums: dict[nn.Module, Tensor] = {}
    per_image = max(1, _PLACES // len(images))
    generator = torch.Generator().manual_seed(_SEED)

    def add(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen = _features(layer, given[0].detach(), per_image, generator).double()  # (groups, places, features)
        sums[layer] = sums.get(layer, torch.zeros(())) + seen.mT @ seen

    with _hooked(layers, add), torch.inference_mode():
        for some in torch.split(images, _BATCH):
            block.model(some)
    return [
        _reader(block, layer, group, sums[layer][group].clone())
        for layer in layers
        if layer in sums
        for group in range(_groups(layer))
    ]


@contextmanager
def _hooked(layers: Iterable[nn.Module], hook: Callable[[nn.Module, tuple[Tensor, ...]], None]) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _costs(weights: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """What it costs to do without each position, (positions,), given its columns, (positions, features of each)."""
    of_position = weights[:, columns]  # (out, positions, features)
    squares = torch.einsum("opm,opn->pmn", of_position, of_position)
    blocks = inverse[columns[:, :, None], columns[:, None, :]]  # (positions, features, features)
    costs: Tensor = (squares * torch.linalg.inv(blocks)).sum(dim=(1, 2))
    return costs


def _remove(weights: Tensor, inverse: Tensor, lost: Tensor) -> None:
    """Take features out of W and A⁻¹, in place; their rows and columns become zero."""
    towards = inverse[:, lost]  # (features, lost)
    step = torch.linalg.solve(inverse[lost][:, lost], towards.T)  # (lost, features)
    weights -= weights[:, lost] @ step
    inverse -= towards @ step


def _can_be_refitted(layer: nn.Module) -> bool:
    return _matrices(layer).shape[2] <= MAX_FEATURES


def _reader(block: Block, layer: nn.Module, group: int, moments: Tensor) -> Reader:
    """Of one group, which reads a part of the block's slices."""
    inputs, each = block.readers[layer], _features_of_an_input(layer)
    weights = _matrices(layer)[group]
    first = group * _inputs_of_a_group(layer)
    read = range(first, first + _inputs_of_a_group(layer))
    starts = torch.tensor(
        [
            [index - first for channel in block.channels(position) for index in inputs[channel] if index in read]
            for position in range(block.positions)
        ]
    )  # (positions, inputs of each)
    columns = (starts[:, :, None] * each + torch.arange(each)).flatten(1)
    moments.diagonal().add_(RIDGE * moments.diagonal().mean() + 1e-12)
    return Reader(layer, columns, moments, weights.double(), group)


def _groups(layer: nn.Module) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _inputs_of_a_group(layer: nn.Module) -> int:
    return layer.get_parameter("weight").shape[0 if isinstance(layer, nn.ConvTranspose2d) else 1]


def _features_of_an_input(layer: nn.Module) -> int:
    return layer.get_parameter("weight")[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1


def _has_constant(layer: nn.Module) -> bool:
    """Whether a last feature, always 1, stands for the bias; that of a transposed convolution comes after overlaps are summed."""
    return layer.bias is not None and not isinstance(layer, nn.ConvTranspose2d)


def _matrices(layer: nn.Module) -> Tensor:
    """(groups, out, features); of a transposed convolution, an output is one of those that a single pixel is spread over."""
    weight = layer.get_parameter("weight").detach()
    if isinstance(layer, nn.ConvTranspose2d):
        return weight.flatten(1).T[None]  # from (in, out, k, k)
    matrix = weight.flatten(1)
    matrix = torch.cat([matrix, layer.get_parameter("bias").detach()[:, None]], dim=1) if _has_constant(layer) else matrix
    return matrix.view(_groups(layer), -1, matrix.shape[1])


def _store(reader: Reader, matrix: Tensor) -> None:
    """The new W of the layer, or of its group."""
    layer, group = reader.layer, reader.group
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        if _has_constant(layer):
            layer.get_parameter("bias").view(_groups(layer), -1)[group] = matrix[:, -1]
            matrix = matrix[:, :-1]
        own = weight if isinstance(layer, nn.ConvTranspose2d) else weight.view(_groups(layer), -1, *weight.shape[1:])[group]
        own.copy_((matrix.T if isinstance(layer, nn.ConvTranspose2d) else matrix).reshape(own.shape))


def _features(layer: nn.Module, given: Tensor, per_image: int, generator: torch.Generator) -> Tensor:
    """(groups, places, features): the patches that a convolution sees at some places, the same in every image."""
    if isinstance(layer, nn.Conv2d):
        seen = _patches(layer, given, per_image, generator)
    elif isinstance(layer, nn.ConvTranspose2d):
        pixels = given.flatten(2)[:, :, _some(given.shape[2] * given.shape[3], per_image, generator)]  # (n, c, places)
        seen = pixels.transpose(1, 2).flatten(0, 1)
    else:
        seen = given.flatten(0, -2)
    by_group = seen.reshape(len(seen), _groups(layer), -1).transpose(0, 1)
    return torch.cat([by_group, torch.ones(*by_group.shape[:2], 1)], dim=2) if _has_constant(layer) else by_group


def _patches(layer: nn.Conv2d, given: Tensor, per_image: int, generator: torch.Generator) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(given, layer._reversed_padding_repeated_twice, mode=mode)
    offsets = [torch.arange(k) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    height, width = (
        (size - int(reach[-1]) - 1) // step + 1 for size, reach, step in zip(padded.shape[2:], offsets, layer.stride, strict=True)
    )
    chosen = _some(height * width, per_image, generator)
    rows = (chosen // width * layer.stride[0])[:, None] + offsets[0]  # (places, k)
    columns = (chosen % width * layer.stride[1])[:, None] + offsets[1]
    patches = padded[:, :, rows[:, :, None], columns[:, None, :]]  # (n, c, places, k, k)
    return patches.transpose(1, 2).flatten(2).flatten(0, 1)


def _some(places: int, most: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(places, generator=generator)[:most] if places > most else torch.arange(places)
