"""ResNet-18 and ResNet-50 (He et al., 2015, https://arxiv.org/abs/1512.03385).

ResNet-50 has its strides in the 3x3 convolutions, as in torchvision ("v1.5"), not in the 1x1 convolutions before them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from netadapt.networks.units import ConvUnit, initialise, scaled_channels

_CHANNELS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions of the four stages; the stem has as many as the first stage."""
_BOTTLENECK_EXPANSION = 4


class Residual(nn.Module):
    """Layers and a shortcut around them: the input itself or, where the shape changes, its 1x1 convolution."""

    def __init__(self, layers: Sequence[ConvUnit], in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        keeps_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if keeps_shape else ConvUnit(in_channels, out_channels, 1, stride=stride, activation=None)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.activation(self.layers(features) + self.shortcut(features))
        return changed


def _basic(in_channels: int, channels: int, out_channels: int, *, stride: int) -> Residual:
    layers = (
        ConvUnit(in_channels, channels, 3, stride=stride, activation=nn.ReLU),
        ConvUnit(channels, out_channels, 3, activation=None),
    )
    return Residual(layers, in_channels, out_channels, stride=stride)


def _bottleneck(in_channels: int, channels: int, out_channels: int, *, stride: int) -> Residual:
    layers = (
        ConvUnit(in_channels, channels, 1, activation=nn.ReLU),
        ConvUnit(channels, channels, 3, stride=stride, activation=nn.ReLU),
        ConvUnit(channels, out_channels, 1, activation=None),
    )
    return Residual(layers, in_channels, out_channels, stride=stride)


class ResNet(nn.Module):
    """Images (n, c, h, w) in, logits (n, classes) out. `depths` is the number of residuals of each of the four stages."""

    def __init__(self, depths: Sequence[int], width_multiplier: float, classes: int, in_channels: int, *, bottleneck: bool) -> None:
        super().__init__()
        residual, expansion = (_bottleneck, _BOTTLENECK_EXPANSION) if bottleneck else (_basic, 1)
        width = scaled_channels(_CHANNELS[0], width_multiplier)
        self.stem = ConvUnit(in_channels, width, 7, stride=2, activation=nn.ReLU)
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for number, (channels, depth) in enumerate(zip(_CHANNELS, depths, strict=True)):
            inner = scaled_channels(channels, width_multiplier)
            outer = scaled_channels(channels * expansion, width_multiplier)
            stage = []
            # every stage but the first halves the image; the pooling after the stem has done so for the first
            for stride in (1 if number == 0 else 2, *(1,) * (depth - 1)):
                stage.append(residual(width, inner, outer, stride=stride))
                width = outer
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(width, classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(self.stem_pool(self.stem(images)))  # (n, c, h, w)
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))  # (n, classes)
        return logits


def resnet18(*, width_multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-18 for images of any resolution, with random weights."""
    return ResNet((2, 2, 2, 2), width_multiplier, classes, in_channels, bottleneck=False)


def resnet50(*, width_multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-50 for images of any resolution, with random weights."""
    return ResNet((3, 4, 6, 3), width_multiplier, classes, in_channels, bottleneck=True)
