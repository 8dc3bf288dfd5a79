"""A network: three convolutions and a classifier."""

from __future__ import annotations

from torch import nn

from netadapt.networks.units import ConvUnit, scaled_channels


def toy(*, width_multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """Any resolution runs."""
    first, second, third = (scaled_channels(channels, width_multiplier) for channels in (16, 32, 32))
    return nn.Sequential(
        ConvUnit(in_channels, first, 3, stride=2),
        ConvUnit(first, second, 3, stride=2),
        ConvUnit(second, third, 3, stride=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(third, classes),
    )
