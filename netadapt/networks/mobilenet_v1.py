"""MobileNetV1 (Howard et al., 2017, https://arxiv.org/abs/1704.04861): a convolution, 13 separable pairs, a classifier."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

_STEM_CHANNELS = 32
_PAIR_CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
# pairs that halve the picture, counted from 1, besides the stem: 224 pixels end as 7
_HALVING_PAIRS = (2, 4, 6, 12)
# for pictures of about 32 pixels: the stem keeps the size, and 32 pixels end as 4
_HALVING_PAIRS_SMALL = (2, 4, 6)


def scaled_channels(channels: int, width_multiplier: float) -> int:
    """The nearest multiple of 8, but never below 8 nor more than a tenth below what was asked for."""
    wanted = channels * width_multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class ConvUnit(nn.Sequential):
    """Convolution, batch normalisation, ReLU6: one fused layer once exported."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels), activation=nn.ReLU6(inplace=True)))


class SeparablePair(nn.Sequential):
    """A depthwise 3x3 and a pointwise 1x1 convolution, which together stand for a full 3x3 one."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        depthwise = ConvUnit(in_channels, in_channels, 3, stride=stride, groups=in_channels)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=ConvUnit(in_channels, out_channels, 1)))


class MobileNetV1(nn.Module):
    def __init__(self, width_multiplier: float, classes: int, in_channels: int, *, small_input: bool) -> None:
        super().__init__()
        halving = _HALVING_PAIRS_SMALL if small_input else _HALVING_PAIRS
        widths = [scaled_channels(channels, width_multiplier) for channels in (_STEM_CHANNELS, *_PAIR_CHANNELS)]
        self.stem = ConvUnit(in_channels, widths[0], 3, stride=1 if small_input else 2)
        self.pairs = nn.Sequential(
            *(
                SeparablePair(before, after, stride=2 if number in halving else 1)
                for number, (before, after) in enumerate(pairwise(widths), start=1)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(widths[-1], classes)
        self._initialise()

    def _initialise(self) -> None:
        """He's initialisation, so that signals neither grow nor vanish before batch normalisation has seen any."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.pairs(self.stem(pictures))  # (n, c, h, w)
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))  # (n, classes)
        return logits


def mobilenet_v1(
    *, width_multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3, small_input: bool = False
) -> MobileNetV1:
    """Any resolution runs; `small_input` keeps more of a small picture's detail (32 pixels: 32, 16, 8, 4)."""
    return MobileNetV1(width_multiplier, classes, in_channels, small_input=small_input)
