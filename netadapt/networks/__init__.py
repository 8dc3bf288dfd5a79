"""The networks that can be adapted by name, and the user's own by their function (netadapt.networks.own).

A new one of ours is one file, with a function that builds it, and one line in NETWORKS.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.support.text import did_you_mean
from netadapt.errors import NetworkError
from netadapt.networks.own import build_own, is_own, takes_classes
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
"""Name to module:function. Named, not imported: torch takes seconds to load. One without a classifier takes no `classes`."""
DEFAULT_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Description:
    """What `netadapt networks` says of a network."""

    name: str
    parameters: int
    """All that training changes, batch normalisation included."""
    macs: int
    input: tuple[int, ...]
    """Of the model: (n, c, h, w)."""
    blocks: int
    """How many coupling groups there are, whose widths can be chosen."""


def build_network(
    name: str,
    *,
    width_multiplier: float = 1.0,
    resolution: int = 224,
    classes: int = DEFAULT_CLASSES,
    in_channels: int = 3,
    **options: Any,
) -> nn.Module:
    """The network with random weights from torch's own generator. `NetworkError` for unknown names, options and sizes.

    `options` are the network's own, such as `small_input` of mobilenet_v1. Without a classifier, `classes` must be the default.
    A network of the user's is as its function makes it: it has a width multiplier of 1 and no options.
    """
    if not 0 < width_multiplier <= 8:
        raise NetworkError(f"a width multiplier must be above 0 and at most 8, got {width_multiplier:g}")
    for what, size in (("resolution", resolution), ("number of classes", classes), ("number of input channels", in_channels)):
        if size < 1:
            raise NetworkError(f"the {what} must be at least 1, got {size}")
    if is_own(name):
        return _built_own(name, width_multiplier, classes, options)
    function = _function(name)
    _check_options(name, function, options)
    options |= {"width_multiplier": width_multiplier, "resolution": resolution, "in_channels": in_channels}
    if has_classifier(name):
        options["classes"] = classes
    elif classes != DEFAULT_CLASSES:
        raise NetworkError(f"{name} has no classifier and cannot have {classes} classes; leave them out, or take another network")
    model: nn.Module = function(**options)
    return model


def has_classifier(name: str) -> bool:
    """Whether its outputs are `classes`. `NetworkError` for an unknown name."""
    if is_own(name):
        return takes_classes(name)
    return "classes" in inspect.signature(_function(name)).parameters


def _built_own(name: str, width_multiplier: float, classes: int, options: dict[str, Any]) -> nn.Module:
    if width_multiplier != 1:
        raise NetworkError(f"a width multiplier is for our networks; make {name} as wide as you want it")
    if options:
        raise NetworkError(f"{name} has no option {next(iter(options))!r}; it is called without any")
    return build_own(name, classes)


def _function(name: str) -> Callable[..., nn.Module]:
    if name not in NETWORKS:
        raise NetworkError(f"there is no network {name!r}; {did_you_mean(name, sorted(NETWORKS))}")
    function: Callable[..., nn.Module] = load(NETWORKS[name])
    return function


def network_graph(name: str, *, resolution: int = 224, in_channels: int = 3, **options: Any) -> Graph:
    """The network's layers and blocks, as `build_network` with the same options would build it."""
    from netadapt.pruning.tracing import trace

    model = build_network(name, resolution=resolution, in_channels=in_channels, **options)
    return trace(model, (1, in_channels, resolution, resolution), name)


def describe(name: str, *, resolution: int = 224, in_channels: int = 3, **options: Any) -> Description:
    """Build and count it, with the options of `build_network`; nothing is computed, so it takes a moment only."""
    import torch

    from netadapt.pruning.counting import count_blocks, count_macs

    shape = (1, in_channels, resolution, resolution)
    with torch.device("meta"):
        model = build_network(name, resolution=resolution, in_channels=in_channels, **options).eval()
        macs, blocks = count_macs(model, shape), count_blocks(model, shape)
    return Description(name, sum(weight.numel() for weight in model.parameters()), macs, shape, blocks)


def describe_all(*, width_multiplier: float, resolution: int, classes: int) -> list[Description]:
    """Every network of NETWORKS, in its order; `classes` count where there is a classifier."""
    common: dict[str, Any] = {"width_multiplier": width_multiplier, "resolution": resolution}
    return [describe(name, **common, **({"classes": classes} if has_classifier(name) else {})) for name in NETWORKS]


def _check_options(name: str, function: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    shared = inspect.signature(build_network).parameters
    known = [option for option in inspect.signature(function).parameters if option not in shared]
    for option in options:
        if option not in known:
            raise NetworkError(f"{name} has no option {option!r}; {did_you_mean(option, known)}")
