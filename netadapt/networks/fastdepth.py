"""FastDepth (Wofk et al., ICRA 2019, https://arxiv.org/abs/1903.03273): the depth in metres of every pixel of an image.

The encoder is MobileNetV1 without its classifier. The decoder is five separable pairs with 5x5 convolutions (NNConv5), each
followed by nearest-neighbour upsampling; three of them have additive skip connections from the encoder's features of the same
size. The architecture is that of `MobileNetSkipAdd` in https://github.com/dwofk/fast-depth.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from netadapt.networks.mobilenet_v1 import CHANNELS, HALVING_PAIRS, separable_pairs
from netadapt.networks.units import ConvUnit, SeparablePair, initialise, scaled_channels

_DECODER_CHANNELS = (512, 256, 128, 64, 32)
_TYPICAL_M = 3.0
"""The depth that an untrained head gives. Rooms are about as deep; from 0, the first hundred batches only learn this mean."""
# the decoder's pairs, counted from 1, to whose upsampled output the encoder's features are added
_SKIP_STAGES = (2, 3, 4)


class FastDepth(nn.Module):
    """Images (n, c, h, w) in, depths in metres (n, 1, h, w) out."""

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
        larger = [images]  # the input of each halving, whose size the decoder goes back to in reverse order
        features = self.stem(images)  # (n, c, h, w)
        for number, pair in enumerate(self.pairs, start=1):
            if number in HALVING_PAIRS:
                larger.append(features)
            features = pair(features)
        for number, pair in enumerate(self.decoder, start=1):
            skip = larger.pop()
            # to the exact size, as twice the present one is a pixel too large where a halving rounded up
            features = functional.interpolate(pair(features), size=skip.shape[-2:], mode="nearest")
            if number in _SKIP_STAGES:
                features = features + skip
        depths: Tensor = self.head(features)  # (n, 1, h, w)
        return depths


def fastdepth(*, width_multiplier: float = 1.0, resolution: int = 224, in_channels: int = 3) -> FastDepth:
    """FastDepth for images of any resolution, with random weights; `width_multiplier` scales the encoder and the decoder."""
    return FastDepth(width_multiplier, in_channels)
