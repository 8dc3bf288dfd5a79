"""The networks that can be adapted: built-in ones by name, and users' own by their function (netadapt.networks.user_network).

A new built-in network is one module, with a function that builds it, and one line in NETWORKS.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.support.text import did_you_mean
from netadapt.errors import NetworkError
from netadapt.networks.user_network import build_user_network, is_user_network, takes_classes
from netadapt.registry import load

if TYPE_CHECKING:
    from torch import nn

    from profiler.layers.graph import Graph

NETWORKS: dict[str, str] = {
    "mobilenet_v1": "netadapt.networks.mobilenet_v1:mobilenet_v1",
    "mobilenet_v2": "netadapt.networks.mobilenet_v2:mobilenet_v2",
    "mobilenet_v3_small": "netadapt.networks.mobilenet_v3:mobilenet_v3_small",
    "resnet18": "netadapt.networks.resnet:resnet18",
    "resnet50": "netadapt.networks.resnet:resnet50",
    "fastdepth": "netadapt.networks.fastdepth:fastdepth",
}
"""The `module:function` that builds each network, by name; imported when it is used, as torch takes seconds to load.

The functions share the keyword arguments of `build_network`; that of a network without a classifier has no `classes`.
"""
DEFAULT_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Description:
    """A network's size, as `netadapt networks` lists it."""

    name: str
    parameters: int
    """The number of trainable weights, those of batch normalisation included."""
    macs: int
    """Multiply-accumulates of one inference."""
    input: tuple[int, ...]
    """The shape of the model's input, (n, c, h, w)."""
    blocks: int
    """The number of coupling groups, whose widths can be chosen."""


def build_network(
    name: str,
    *,
    width_multiplier: float = 1.0,
    resolution: int = 224,
    classes: int = DEFAULT_CLASSES,
    in_channels: int = 3,
    **options: Any,
) -> nn.Module:
    """Build a network with random weights from torch's global generator. `NetworkError` for unknown names, options and sizes.

    `options` are those of the one network, such as `small_input` of mobilenet_v1. For a network without a classifier, `classes`
    must be the default. A user's network is built as its function defines it: with a width multiplier of 1 and no options.
    """
    if not 0 < width_multiplier <= 8:
        raise NetworkError(f"a width multiplier must be above 0 and at most 8, got {width_multiplier:g}")
    for what, size in (("resolution", resolution), ("number of classes", classes), ("number of input channels", in_channels)):
        if size < 1:
            raise NetworkError(f"the {what} must be at least 1, got {size}")
    if is_user_network(name):
        if width_multiplier != 1:
            raise NetworkError(f"--width-multiplier is for built-in networks only; choose the widths of {name} in its function")
        if options:
            raise NetworkError(f"{name} has no option {next(iter(options))!r}; leave it out, as a user's network has none")
        return build_user_network(name, classes)
    function = _function(name)
    shared = inspect.signature(build_network).parameters
    known = [option for option in inspect.signature(function).parameters if option not in shared]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else "leave it out, as it has none"
            raise NetworkError(f"{name} has no option {option!r}; {hint}")
    options |= {"width_multiplier": width_multiplier, "resolution": resolution, "in_channels": in_channels}
    if has_classifier(name):
        options["classes"] = classes
    elif classes != DEFAULT_CLASSES:
        raise NetworkError(
            f"{name} has no classifier and cannot have {classes} classes; omit the classes or choose another network"
        )
    model: nn.Module = function(**options)
    return model


def has_classifier(name: str) -> bool:
    """True if the network's outputs are scores of classes, whose number can be chosen. `NetworkError` for an unknown name."""
    if is_user_network(name):
        return takes_classes(name)
    return "classes" in inspect.signature(_function(name)).parameters


def _function(name: str) -> Callable[..., nn.Module]:
    if name not in NETWORKS:
        raise NetworkError(f"there is no network {name!r}; {did_you_mean(name, sorted(NETWORKS))}")
    function: Callable[..., nn.Module] = load(NETWORKS[name])
    return function


def network_graph(name: str, *, resolution: int = 224, in_channels: int = 3, **options: Any) -> Graph:
    """The graph, with its blocks, of the network that `build_network` builds with the same options."""
    from netadapt.pruning.tracing import trace

    model = build_network(name, resolution=resolution, in_channels=in_channels, **options)
    return trace(model, ((1, in_channels, resolution, resolution),), name)


def describe(name: str, *, resolution: int = 224, in_channels: int = 3, **options: Any) -> Description:
    """The size of the network that `build_network` builds with the same options."""
    import torch

    from netadapt.pruning.counting import count_blocks, count_macs

    shape = (1, in_channels, resolution, resolution)
    with torch.device("meta"):  # shapes without values, so that even a large network takes a moment only
        model = build_network(name, resolution=resolution, in_channels=in_channels, **options).eval()
        macs, blocks = count_macs(model, (shape,)), count_blocks(model, (shape,))
    return Description(name, sum(weight.numel() for weight in model.parameters()), macs, shape, blocks)


def describe_all(*, width_multiplier: float, resolution: int, classes: int) -> list[Description]:
    """The sizes of all built-in networks in the order of NETWORKS; `classes` is ignored for those without a classifier."""
    common: dict[str, Any] = {"width_multiplier": width_multiplier, "resolution": resolution}
    return [describe(name, **common, **({"classes": classes} if has_classifier(name) else {})) for name in NETWORKS]
