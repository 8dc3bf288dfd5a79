"""MobileNetV3-Small (Howard et al., 2019, https://arxiv.org/abs/1905.02244): 11 inverted residuals, nine with squeeze-and-excite.

The width inside a squeeze-and-excite module is a quarter of the width it scales, as in the authors' code and in torchvision, so
that parameters and multiply-accumulates equal theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from netadapt.networks.units import ConvUnit, initialise, scaled_channels


class _Row(NamedTuple):
    """A line of table 2 of the paper: one inverted residual."""

    kernel: int
    hidden: int
    channels: int
    gated: bool
    activation: type[nn.Module]
    stride: int


_STEM_CHANNELS = 16
# table 2 of the paper, from its second line on
_ROWS = (
    _Row(3, 16, 16, True, nn.ReLU, 2),
    _Row(3, 72, 24, False, nn.ReLU, 2),
    _Row(3, 88, 24, False, nn.ReLU, 1),
    _Row(5, 96, 40, True, nn.Hardswish, 2),
    _Row(5, 240, 40, True, nn.Hardswish, 1),
    _Row(5, 240, 40, True, nn.Hardswish, 1),
    _Row(5, 120, 48, True, nn.Hardswish, 1),
    _Row(5, 144, 48, True, nn.Hardswish, 1),
    _Row(5, 288, 96, True, nn.Hardswish, 2),
    _Row(5, 576, 96, True, nn.Hardswish, 1),
    _Row(5, 576, 96, True, nn.Hardswish, 1),
)
_LAST_CHANNELS, _HEAD_FEATURES = 576, 1024
_DROPOUT = 0.2


class SqueezeExcite(nn.Module):
    """Squeeze-and-excite: each channel is scaled by a factor from 0 to 1 that is computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = scaled_channels(channels // 4, 1.0)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.activation = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(inner, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, features: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.expand(self.activation(self.reduce(self.pool(features)))))  # (n, c, 1, 1)
        return features * scale


class GatedResidual(nn.Module):
    """An inverted residual: expansion, depthwise convolution, squeeze-and-excite if the row has it, and linear projection.

    The input is added where the shapes are equal.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int, row: _Row) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if hidden != in_channels:
            parts["expand"] = ConvUnit(in_channels, hidden, 1, activation=row.activation)
        parts["depthwise"] = ConvUnit(hidden, hidden, row.kernel, stride=row.stride, groups=hidden, activation=row.activation)
        if row.gated:
            parts["gate"] = SqueezeExcite(hidden)
        parts["project"] = ConvUnit(hidden, out_channels, 1, activation=None)
        self.layers = nn.Sequential(parts)
        self.adds_input = row.stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.layers(features)
        return features + changed if self.adds_input else changed


class MobileNetV3Small(nn.Module):
    """Images (n, c, h, w) in, logits (n, classes) out."""

    def __init__(self, width_multiplier: float, classes: int, in_channels: int) -> None:
        super().__init__()
        width = scaled_channels(_STEM_CHANNELS, width_multiplier)
        self.stem = ConvUnit(in_channels, width, 3, stride=2, activation=nn.Hardswish)
        blocks = []
        for row in _ROWS:
            before, width = width, scaled_channels(row.channels, width_multiplier)
            blocks.append(GatedResidual(before, scaled_channels(row.hidden, width_multiplier), width, row))
        self.blocks = nn.Sequential(*blocks)
        last = scaled_channels(_LAST_CHANNELS, width_multiplier)
        self.last = ConvUnit(width, last, 1, activation=nn.Hardswish)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        head = scaled_channels(_HEAD_FEATURES, max(1.0, width_multiplier))  # not scaled below 1, as in MobileNetV2
        self.head = nn.Linear(last, head)
        self.activation = nn.Hardswish(inplace=True)
        self.dropout = nn.Dropout(_DROPOUT, inplace=True)
        self.classifier = nn.Linear(head, classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.last(self.blocks(self.stem(images)))  # (n, c, h, w)
        features = self.activation(self.head(self.flatten(self.pool(features))))  # (n, features)
        logits: Tensor = self.classifier(self.dropout(features))  # (n, classes)
        return logits


def mobilenet_v3_small(
    *, width_multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3
) -> MobileNetV3Small:
    """MobileNetV3-Small for images of any resolution, with random weights."""
    return MobileNetV3Small(width_multiplier, classes, in_channels)
