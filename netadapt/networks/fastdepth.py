"""FastDepth (Wofk et al., ICRA 2019, https://arxiv.org/abs/1903.03273): the distance of every pixel of an image.

MobileNetV1 without its classifier, then five separable pairs of 5x5 convolutions (NNConv5), each followed by nearest upsampling;
to three of them what the encoder saw at that size is added. As `MobileNetSkipAdd` in https://github.com/dwofk/fast-depth.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from netadapt.networks.mobilenet_v1 import CHANNELS, HALVING_PAIRS, separable_pairs
from netadapt.networks.units import ConvUnit, SeparablePair, initialise, scaled_channels

_DECODER_CHANNELS = (512, 256, 128, 64, 32)
_TYPICAL_M = 3.0
"""Where the head starts: rooms are about as deep, and from 0 the first hundred batches would be spent on getting there."""
# decoder stages, counted from 1, whose upsampled output the encoder's features are added to
_SKIP_STAGES = (2, 3, 4)


class FastDepth(nn.Module):
    def __init__(self, width_multiplier: float, in_channels: int) -> None:
        super().__init__()
        widths = [scaled_channels(channels, width_multiplier) for channels in CHANNELS]
        decoder = [widths[-1], *(scaled_channels(channels, width_multiplier) for channels in _DECODER_CHANNELS)]
        self.stem = ConvUnit(in_channels, widths[0], 3, stride=2)
        self.pairs = separable_pairs(widths, HALVING_PAIRS)
        self.decoder = nn.Sequential(*(SeparablePair(*pair, kernel=5, activation=nn.ReLU) for pair in pairwise(decoder)))
        self.head = ConvUnit(decoder[-1], 1, 1, activation=nn.ReLU)
        initialise(self)
        nn.init.constant_(self.head.get_submodule("norm").get_parameter("bias"), _TYPICAL_M)

    def forward(self, images: Tensor) -> Tensor:
        larger = [images]  # what each halving took in
        features = self.stem(images)  # (n, c, h, w)
        for number, pair in enumerate(self.pairs, start=1):
            if number in HALVING_PAIRS:
                larger.append(features)
            features = pair(features)
        for number, pair in enumerate(self.decoder, start=1):
            skip = larger.pop()
            # twice the size, or one pixel less where a halving had rounded up
            features = functional.interpolate(pair(features), size=skip.shape[-2:], mode="nearest")
            if number in _SKIP_STAGES:
                features = features + skip
        depths: Tensor = self.head(features)  # (n, 1, h, w)
        return depths


def fastdepth(*, width_multiplier: float = 1.0, resolution: int = 224, in_channels: int = 3) -> FastDepth:
    """Any resolution runs; the output has the image's size and one channel."""
    return FastDepth(width_multiplier, in_channels)
