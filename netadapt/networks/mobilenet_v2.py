"""MobileNetV2 (Sandler et al., 2018, https://arxiv.org/abs/1801.04381): 17 inverted residuals between two convolutions."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from netadapt.networks.units import ConvUnit, initialise, scaled_channels

_STEM_CHANNELS = 32
# table 2 of the paper: expansion, output channels, number of blocks, stride of the first block
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution and a linear 1x1 projection; the input is added where the shapes are equal."""

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            parts["expand"] = ConvUnit(in_channels, hidden, 1)
        parts["depthwise"] = ConvUnit(hidden, hidden, 3, stride=stride, groups=hidden)
        parts["project"] = ConvUnit(hidden, out_channels, 1, activation=None)
        self.layers = nn.Sequential(parts)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.layers(features)
        return features + changed if self.adds_input else changed


class MobileNetV2(nn.Module):
    """Images (n, c, h, w) in, logits (n, classes) out."""

    def __init__(self, width_multiplier: float, classes: int, in_channels: int) -> None:
        super().__init__()
        width = scaled_channels(_STEM_CHANNELS, width_multiplier)
        self.stem = ConvUnit(in_channels, width, 3, stride=2)
        blocks = []
        for expansion, channels, count, first_stride in _STAGES:
            for stride in (first_stride, *(1,) * (count - 1)):
                before, width = width, scaled_channels(channels, width_multiplier)
                blocks.append(InvertedResidual(before, width, expansion=expansion, stride=stride))
        self.blocks = nn.Sequential(*blocks)
        # multipliers below 1 do not apply to the last convolution (section 4 of the paper)
        last = scaled_channels(_LAST_CHANNELS, max(1.0, width_multiplier))
        self.last = ConvUnit(width, last, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(last, classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.last(self.blocks(self.stem(images)))  # (n, c, h, w)
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))  # (n, classes)
        return logits


def mobilenet_v2(*, width_multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3) -> MobileNetV2:
    """MobileNetV2 for images of any resolution, with random weights."""
    return MobileNetV2(width_multiplier, classes, in_channels)
