"""Networks that normalise their input themselves, so that a device feeds them the values of a camera, from 0 to 255.

Normalisation, (value / 255 - mean) / std, is an affine map of each channel, and a convolution of it is another convolution. That is
exact only where the convolution reads nothing but pixels: a zero that it pads with would stand for black, and not for the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from netadapt.input_shapes import InputShapes
from netadapt.outputs import as_list

WHITE = 255.0
_TOLERANCE = 1e-4
"""The largest difference of a folded network's outputs, relative to the largest output; rounding gives about 1e-6."""


class Normalising(nn.Module):
    """A network behind a layer that normalises values from 0 to 255."""

    def __init__(self, network: nn.Module, scale: Tensor, shift: Tensor) -> None:
        """`scale` and `shift`, (c,), are those of each channel."""
        super().__init__()
        self.network = network
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> object:
        return self.network(images * self.get_buffer("scale") + self.get_buffer("shift"))


def folded(model: nn.Module, mean: Sequence[float], std: Sequence[float], input_shapes: InputShapes) -> tuple[nn.Module, str]:
    """A copy of the model, in evaluation, for values from 0 to 255, and a clause that says where the normalisation is in it.

    It is in the weights of the first convolution if that is exact and nothing else reads the input; else in a layer before it.
    """
    copy = deepcopy(model).eval()
    scale = 1 / (WHITE * torch.tensor(std, dtype=torch.float64))
    shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    behind = Normalising(deepcopy(copy), scale.float(), shift.float()).eval()
    (shape,) = input_shapes  # what is normalised is one image
    images = WHITE * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    found = _reader(copy, images)
    if found is None:
        return behind, "by a layer of its own before the first, because not a single convolution reads its input"
    name, convolution = found
    pads_zeros = convolution.padding_mode == "zeros" and convolution.padding not in ("valid", (0, 0))
    if pads_zeros and any(mean):
        return behind, f"by a layer of its own before {name}, which pads with zeros: in its weights it would not be exact"
    with torch.no_grad():
        weight = convolution.weight.double()  # (out, in, k, k)
        added = (weight * shift.view(1, -1, 1, 1)).sum(dim=(1, 2, 3))
        bias = added if convolution.bias is None else convolution.bias.double() + added
        convolution.weight.copy_(weight * scale.view(1, -1, 1, 1))
        convolution.bias = nn.Parameter(bias.to(convolution.weight.dtype))
        for expected, outputs in zip(as_list(behind(images)), as_list(copy(images)), strict=True):
            difference, largest = (expected - outputs).abs().max(), expected.abs().max()
            if not difference <= _TOLERANCE * largest:  # a function, which hooks do not see, reads the input too
                return behind, "by a layer of its own before the first, because not a single convolution reads its input"
    return copy, f"by the weights of {name}"


def _reader(model: nn.Module, images: Tensor) -> tuple[str, nn.Conv2d] | None:
    """The name and module of the convolution that reads the input; None if other layers do too, or it has groups of channels."""
    readers: list[tuple[str, nn.Module]] = []
    hooks = []
    for name, module in model.named_modules():
        if not any(True for _ in module.children()):

            def note(module: nn.Module, inputs: tuple[object, ...], name: str = name) -> None:
                if inputs and inputs[0] is images:
                    readers.append((name, module))

            hooks.append(module.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if len(readers) != 1:
        return None
    name, module = readers[0]
    return (name, module) if type(module) is nn.Conv2d and module.groups == 1 else None
