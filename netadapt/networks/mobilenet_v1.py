"""MobileNetV1 (Howard et al., 2017, https://arxiv.org/abs/1704.04861): a convolution, 13 separable pairs and a classifier."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import pairwise

from torch import Tensor, nn

from netadapt.networks.units import ConvUnit, SeparablePair, initialise, scaled_channels

CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Output channels of the stem, then of the 13 pairs (table 1 of the paper)."""
HALVING_PAIRS = (2, 4, 6, 12)
"""Pairs with stride 2, counted from 1. The stem has stride 2 too, so that 224 pixels end as 7."""
# the same for images of about 32 pixels, where the stem has stride 1: 32 pixels end as 4
_HALVING_PAIRS_SMALL = (2, 4, 6)


def separable_pairs(widths: Sequence[int], halving: Container[int]) -> nn.Sequential:
    """Separable pairs from each width to the next; those in `halving`, counted from 1, have stride 2."""
    return nn.Sequential(
        *(
            SeparablePair(before, after, stride=2 if number in halving else 1)
            for number, (before, after) in enumerate(pairwise(widths), start=1)
        )
    )


class MobileNetV1(nn.Module):
    """Images (n, c, h, w) in, logits (n, classes) out."""

    def __init__(self, width_multiplier: float, classes: int, in_channels: int, *, small_input: bool) -> None:
        super().__init__()
        widths = [scaled_channels(channels, width_multiplier) for channels in CHANNELS]
        self.stem = ConvUnit(in_channels, widths[0], 3, stride=1 if small_input else 2)
        self.pairs = separable_pairs(widths, _HALVING_PAIRS_SMALL if small_input else HALVING_PAIRS)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(widths[-1], classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pairs(self.stem(images))  # (n, c, h, w)
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))  # (n, classes)
        return logits


def mobilenet_v1(
    *, width_multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3, small_input: bool = False
) -> MobileNetV1:
    """MobileNetV1 for images of any resolution, with random weights; `small_input` halves small images less often."""
    return MobileNetV1(width_multiplier, classes, in_channels, small_input=small_input)
