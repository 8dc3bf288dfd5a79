"""The parts that the built-in networks are made of."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def scaled_channels(channels: int, width_multiplier: float) -> int:
    """`channels` times `width_multiplier`, rounded to a multiple of 8: at least 8, and at most 10 % below the exact product.

    The rule of the MobileNets: `_make_divisible` in https://github.com/tensorflow/models.
    """
    wanted = channels * width_multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def initialise(network: nn.Module) -> None:
    """Initialise all convolutions in place as He et al., 2015 (https://arxiv.org/abs/1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class ConvUnit(nn.Sequential):
    """Convolution, batch normalisation and, unless it is None, an activation. Exported, the three are one fused layer."""

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
    """A depthwise and a pointwise 1x1 convolution, which together replace a full convolution (depthwise separable)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, activation: type[nn.Module] = nn.ReLU6
    ) -> None:
        depthwise = ConvUnit(in_channels, in_channels, kernel, stride=stride, groups=in_channels, activation=activation)
        pointwise = ConvUnit(in_channels, out_channels, 1, activation=activation)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))
