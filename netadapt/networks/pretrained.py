"""A start for networks that begin as MobileNetV1 does: its weights as trained on ImageNet, out of an integer model.

The file is an .npz of its layers in order: `kind` (conv or dw), weights `w00`, `w01`, … of uint8, (out, k, k, in) or
(1, k, k, channels), which `w_zero` and `w_scale` turn into floats, and biases `b00`, … of int32, which `b_scale` does. Three
things differ from our networks:

- Batch normalisation is folded into the weights. It is made anew from what each layer puts out for some images, such that it
  changes nothing at first and training has it to work with.
- Images went in as (value - 128) / 128. The first layer's weights take up the difference to our normalisation.
- TensorFlow pads only at the bottom and on the right where a layer halves the image, we pad all around. Each halving thus sees
  its input moved by one pixel, which is left to the training: padding as TensorFlow does would cost a layer in every exported file.
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
from netadapt.training.types import Part

_LAYERS = 2 * len(CHANNELS) - 1  # the stem and the pairs; a classifier after them is left alone
_IMAGES = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Folded:
    """A convolution with its batch normalisation folded in."""

    weight: Tensor
    """(out, in, k, k); of a depthwise one (channels, 1, k, k)"""
    bias: Tensor
    depthwise: bool


def start_encoder(model: nn.Module, path: Path, part: Part) -> None:
    """Give the model's first layers the file's weights, in place; of a thinner model's, those of the strongest filters.

    `RunError` if the model does not begin as MobileNetV1 does, or is wider than what the file holds.
    """
    units = [module for module in model.modules() if isinstance(module, ConvUnit)][:_LAYERS]
    layers = _read(path)
    if len(units) < _LAYERS:
        raise RunError(f"{path} holds MobileNetV1's weights, and this network does not begin with its {_LAYERS} layers")
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
                f"{path} does not fit this network: its layer {number} has weights {tuple(weight.shape)}, "
                f"the network's {tuple(conv.weight.shape)}"
            )
        bias = layer.bias[kept]
        if number == 0:
            weight, bias = _for_our_images(weight, bias, part)
        with torch.no_grad():
            conv.weight.copy_(weight)
        biases.append(bias)
    _renormalise(model, units, biases, part)


def _read(path: Path) -> list[_Folded]:
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


def _for_our_images(weight: Tensor, bias: Tensor, part: Part) -> tuple[Tensor, Tensor]:
    """A first layer for (value - mean) / std in place of (value - 128) / 128."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (part.mean, part.std))
    return weight * std * (255 / 128), bias + (weight * (255 / 128 * mean - 1)).sum(dim=(1, 2, 3))


def _renormalise(model: nn.Module, units: list[ConvUnit], biases: list[Tensor], part: Part) -> None:
    """One pass over some images; each normalisation is set when its input comes by, so that later layers see it at work."""
    handles = []
    for unit, bias in zip(units, biases, strict=True):
        norm = unit.get_submodule("norm")

        def set_norm(module: nn.Module, inputs: tuple[Tensor, ...], bias: Tensor = bias) -> None:
            assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None
            variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
            module.running_mean.copy_(mean)
            module.running_var.copy_(variance)
            module.weight.copy_((variance + module.eps).sqrt())
            module.bias.copy_(mean + bias)

        handles.append(norm.register_forward_pre_hook(set_norm))
    was_training = model.training
    with torch.no_grad():
        model.eval()(part.batch(torch.linspace(0, len(part) - 1, min(_IMAGES, len(part))).long())[0])
    model.train(was_training)
    for handle in handles:
        handle.remove()
