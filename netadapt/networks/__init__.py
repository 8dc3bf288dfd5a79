"""The networks that can be adapted by name. A new one is one file, with a function that builds it, and one line in NETWORKS."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.errors import ToolError
from netadapt.registry import did_you_mean, load

if TYPE_CHECKING:
    from torch import nn

    from profiler.graph import Graph

NETWORKS: dict[str, str] = {
    "mobilenet_v1": "netadapt.networks.mobilenet_v1:mobilenet_v1",
    "mobilenet_v2": "netadapt.networks.mobilenet_v2:mobilenet_v2",
    "resnet18": "netadapt.networks.resnet:resnet18",
    "resnet50": "netadapt.networks.resnet:resnet50",
    "fastdepth": "netadapt.networks.fastdepth:fastdepth",
}
"""Name to module:function. Named, not imported: torch takes seconds to load. One without a classifier takes no `classes`."""
DEFAULT_CLASSES = 1000


class NetworkError(ToolError):
    """A network that we do not have, or that cannot be built as asked."""


@dataclass(frozen=True, slots=True)
class Description:
    """What `netadapt networks` says of a network."""

    name: str
    parameters: int
    """All that training changes, batch normalisation included."""
    macs: int
    input: tuple[int, ...]
    """Of the model: (n, c, h, w)."""
    blocks: dict[str, int]
    """Width of every coupling group, in the order of the network."""


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
    """
    if not 0 < width_multiplier <= 8:
        raise NetworkError(f"a width multiplier must be above 0 and at most 8, got {width_multiplier:g}")
    for what, size in (("resolution", resolution), ("number of classes", classes), ("number of input channels", in_channels)):
        if size < 1:
            raise NetworkError(f"the {what} must be at least 1, got {size}")
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
    return "classes" in inspect.signature(_function(name)).parameters


def _function(name: str) -> Callable[..., nn.Module]:
    if name not in NETWORKS:
        raise NetworkError(f"there is no network {name!r}; {did_you_mean(name, NETWORKS)}")
    return load(NETWORKS[name])


def network_graph(name: str, *, resolution: int = 224, in_channels: int = 3, **options: Any) -> Graph:
    """The network's layers and blocks, as `build_network` with the same options would build it."""
    from netadapt.tracing import trace

    model = build_network(name, resolution=resolution, in_channels=in_channels, **options)
    return trace(model, (1, in_channels, resolution, resolution), name)


def describe(name: str, **options: Any) -> Description:
    """Build and trace it, with the options of `build_network`."""
    model = build_network(name, **options)
    graph = network_graph(name, **options)
    _, (n, height, width, channels) = graph.inputs[0]
    parameters = sum(weight.numel() for weight in model.parameters())
    return Description(name, parameters, graph.macs, (n, channels, height, width), graph.widths)


def _check_options(name: str, function: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    shared = inspect.signature(build_network).parameters
    known = [option for option in inspect.signature(function).parameters if option not in shared]
    for option in options:
        if option not in known:
            raise NetworkError(f"{name} has no option {option!r}; {did_you_mean(option, known)}")
