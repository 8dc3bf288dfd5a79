"""MobileNetV3-Small (Howard et al., 2019, https://arxiv.org/abs/1905.02244): 11 inverted residuals, most of them gated.

The gate's middle width is a quarter of the features' it gates, as in the authors' code and torchvision's; so are the counts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from netadapt.networks.units import ConvUnit, initialise, scaled_channels


class _Row(NamedTuple):
    kernel: int
    hidden: int
    channels: int
    gated: bool
    activation: type[nn.Module]
    stride: int


_STEM_CHANNELS = 16
# the paper's table 2, from its second line on
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
    """Each channel is multiplied by a number between 0 and 1 that follows from the means of all."""

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
    """Widened by a 1x1, filtered depthwise, gated, pruned by a 1x1 without activation, added to its input where shapes allow."""

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
        head = scaled_channels(_HEAD_FEATURES, max(1.0, width_multiplier))  # a thinner network keeps its last features
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
    """Any resolution runs."""
    return MobileNetV3Small(width_multiplier, classes, in_channels)
