"""ImageNet weights for networks whose first layers are those of MobileNetV1, from a quantised TensorFlow model.

The file is an .npz archive with the layers in order: `kind` (conv or dw); weights `w00`, `w01`, … as uint8 of shape
(out, k, k, in) or (1, k, k, channels), with their zero points `w_zero` and scales `w_scale`; biases `b00`, … as int32, with their
scales `b_scale`. Three things differ from our networks:

- Batch normalisation is folded into the weights. It is restored with the statistics of each layer's outputs for some images, such
  that it changes no output at first and can be trained.
- The model was trained on images normalised to (value - 128) / 128. The first layer is converted to our normalisation.
- Where a layer halves the image, TensorFlow pads at the bottom and on the right only, and our networks on all sides. Each of these
  layers thus sees its input shifted by one pixel, which is left to the training: TensorFlow's padding would add a layer to every
  exported file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from netadapt.errors import RunError
from netadapt.networks.mobilenet_v1 import CHANNELS
from netadapt.networks.units import ConvUnit
from netadapt.training.datasets.arrays import read_arrays
from netadapt.training.trainer import outputs_of
from netadapt.training.types import Part

_LAYERS = 2 * len(CHANNELS) - 1  # the stem and the pairs; a classifier after them is left alone
_IMAGES = 32
"""The images that the statistics of batch normalisation are computed on."""


@dataclass(frozen=True, slots=True, eq=False)
class _Folded:
    """A convolution with its batch normalisation folded in."""

    weight: Tensor
    """(out, in, k, k), or (channels, 1, k, k) of a depthwise convolution."""
    bias: Tensor
    """(out,) or (channels,)."""
    depthwise: bool


def start_encoder(model: nn.Module, path: Path, part: Part) -> None:
    """Copy the file's weights into the model's first layers, in place; a narrower layer gets the filters of the largest L2 norm.

    `part` gives the images that batch normalisation's statistics are computed on. `RunError` if the model's first layers are not
    those of MobileNetV1 or are wider than the file's; `DataError` if the file is no such archive.
    """
    units = [module for module in model.modules() if isinstance(module, ConvUnit)][:_LAYERS]
    layers = _read(path)
    if len(units) < _LAYERS:
        raise RunError(
            f"{path} does not fit this network, whose first {_LAYERS} layers are not MobileNetV1's; choose other --weights"
        )
    kept = torch.arange(layers[0].weight.shape[1])
    biases = []
    for number, (unit, layer) in enumerate(zip(units, layers, strict=True)):
        conv = unit.get_submodule("conv")
        assert isinstance(conv, nn.Conv2d)
        weight = layer.weight[kept] if layer.depthwise else layer.weight[:, kept]
        if not layer.depthwise:
            strength = weight.square().sum(dim=(1, 2, 3))
            kept = strength.argsort(descending=True, stable=True)[: conv.out_channels].sort().values
            weight = weight[kept]
        if weight.shape != conv.weight.shape:
            raise RunError(
                f"{path} does not fit this network: its layer {number} has weights of shape {tuple(weight.shape)}, the network's "
                f"has {tuple(conv.weight.shape)}; choose other --weights or a smaller --width-multiplier"
            )
        bias = layer.bias[kept]
        if number == 0:
            # with x = (value / 255 - mean) / std of our images, (value - 128) / 128 is x * std * 255 / 128 + mean * 255 / 128 - 1
            mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (part.mean, part.std))
            bias = bias + (weight * (255 / 128 * mean - 1)).sum(dim=(1, 2, 3))
            weight = weight * std * (255 / 128)
        with torch.no_grad():
            conv.weight.copy_(weight)
        biases.append(bias)
    _renormalise(model, units, biases, part)


def _read(path: Path) -> list[_Folded]:
    """The file's layers in floats and in torch's layout. `DataError` if the file is no such archive."""
    numbers = [f"{number:02d}" for number in range(_LAYERS)]
    names = ["kind", "w_scale", "w_zero", "b_scale", *(f"{what}{number}" for number in numbers for what in "wb")]
    arrays = read_arrays(path, names, "a MobileNetV1")
    layers = []
    for index, number in enumerate(numbers):
        stored = (arrays[f"w{number}"].astype(np.float32) - np.float32(arrays["w_zero"][index])) * arrays["w_scale"][index]
        depthwise = str(arrays["kind"][index]) == "dw"
        weight = stored.transpose(3, 0, 1, 2) if depthwise else stored.transpose(0, 3, 1, 2)
        bias = arrays[f"b{number}"].astype(np.float32) * arrays["b_scale"][index]
        layers.append(_Folded(torch.tensor(weight, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32), depthwise))
    return layers


def _renormalise(model: nn.Module, units: list[ConvUnit], biases: list[Tensor], part: Part) -> None:
    """Set each layer's batch normalisation such that it only adds the layer's bias to the outputs for some images.

    A hook does so during one pass over the images, when the layer's input is known and before later layers see its output.
    """
    handles = []
    for unit, bias in zip(units, biases, strict=True):
        norm = unit.get_submodule("norm")

        def set_norm(module: nn.Module, inputs: tuple[Tensor, ...], bias: Tensor = bias) -> None:
            assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None
            variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
            module.running_mean.copy_(mean)
            module.running_var.copy_(variance)
            # weight * (input - mean) / sqrt(variance + eps) + bias is then input + the folded bias
            module.weight.copy_((variance + module.eps).sqrt())
            module.bias.copy_(mean + bias)

        handles.append(norm.register_forward_pre_hook(set_norm))
    was_training = model.training
    with torch.no_grad():
        outputs_of(model.eval(), part.batch(torch.linspace(0, len(part) - 1, min(_IMAGES, len(part))).long())[0])
    model.train(was_training)
    for handle in handles:
        handle.remove()
