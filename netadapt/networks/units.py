"""What the networks are made of."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def scaled_channels(channels: int, width_multiplier: float) -> int:
    """The nearest multiple of 8, but never below 8 nor more than a tenth below what was asked for."""
    wanted = channels * width_multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def initialise(network: nn.Module) -> None:
    """He's initialisation, so that signals neither grow nor vanish before batch normalisation has seen any."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class ConvUnit(nn.Sequential):
    """Convolution, batch normalisation, activation if there is one: one fused layer once exported."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU6,
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels))
        if activation is not None:
            parts["activation"] = activation(inplace=True)
        super().__init__(parts)


class SeparablePair(nn.Sequential):
    """A depthwise and a pointwise 1x1 convolution, which together stand for a full one."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, activation: type[nn.Module] = nn.ReLU6
    ) -> None:
        depthwise = ConvUnit(in_channels, in_channels, kernel, stride=stride, groups=in_channels, activation=activation)
        pointwise = ConvUnit(in_channels, out_channels, 1, activation=activation)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))
