"""The options that a network is built with, be it built-in or a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from netadapt.errors import NetworkError
from netadapt.input_shapes import InputShapes, shapes_text
from netadapt.networks import build_network
from netadapt.networks.user_network import is_given, is_user_network, parse_inputs
from netadapt.users_code import absolute_name, short_name, users_code

if TYPE_CHECKING:
    from torch import nn

    from netadapt.networks.plain import Plain
    from netadapt.pruning.tracing import Traced
    from profiler.layers.graph import Graph

_MOST_TOLD = 3
"""The number of layers that an error names."""


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Everything that the shape of the original network depends on. A run stores it, so that the network can be built again."""

    name: str
    """A name in `netadapt.networks.NETWORKS`, or a user's function as `absolute_name` writes it."""
    width_multiplier: float = 1.0
    resolution: int = 224
    """The side of the square input image, in pixels."""
    classes: int = 1000
    """The number of classes; 0 for a network without a classifier."""
    small_input: bool = False
    """True to build the network for images of about 32 pixels; only mobilenet_v1 has this option."""
    inputs: str | None = None
    """The shapes of the model's inputs, as `parse_inputs` reads them; None for one image, of three channels and of the square
    resolution."""
    output: str | None = None
    """The name of the output that is scored; None for the one that fits the task, or for a network that returns a lone tensor."""
    training_output: str | None = None
    """The name of the output that is trained, where training returns others than evaluation; None where it does not."""

    @classmethod
    def chosen(
        cls,
        network: str,
        width_multiplier: float,
        resolution: int,
        small_input: bool,
        inputs: str | None,
        classes: int = 1000,
        output: str | None = None,
    ) -> Self:
        """The options from the arguments of a command. `NetworkError` for an input shape that cannot be read."""
        shapes = shapes_text(parse_inputs(inputs)) if inputs else None
        return cls(absolute_name(network), width_multiplier, resolution, classes, small_input, shapes, output)  # fmt: skip

    @property
    def input_shapes(self) -> InputShapes:
        """The shapes of the model's inputs, each of one example."""
        return parse_inputs(self.inputs) if self.inputs else ((1, 3, self.resolution, self.resolution),)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input. `NetworkError` unless it is one image."""
        if len(self.input_shapes) > 1 or len(self.input_shapes[0]) != 4:
            raise NetworkError(
                f"one image is needed as the input, not {shapes_text(self.input_shapes)}; other inputs are for your own networks "
                "and data"
            )
        _, channels, height, width = self.input_shapes[0]
        return channels, height, width

    @property
    def image_side(self) -> int:
        """The side of the input image in pixels. `NetworkError` for an input that is not square, as datasets' images are."""
        _, height, width = self.image_shape
        if height != width:
            raise NetworkError(
                f"images of datasets are square, an input of {height} by {width} pixels is not; choose a square --input"
            )
        return height

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of `build_network`, of which a user's network takes that of the classes."""
        channels, height, _ = (3, self.resolution, 0) if is_user_network(self.name) else self.image_shape
        common = {"width_multiplier": self.width_multiplier, "resolution": height, "in_channels": channels}
        return common | ({"classes": self.classes} if self.classes else {}) | ({"small_input": True} if self.small_input else {})

    def build(self) -> nn.Module:
        """Build the network with random weights from torch's global generator. Errors as for `plain`."""
        return self.plain().model

    def plain(self) -> Plain:
        """The same, with what was done to a user's network. `NetworkError` as for `build_network`, or if it rejects its input."""
        from netadapt.networks.plain import Plain, plain_network

        if is_given(self.name):
            raise NetworkError(
                f"{self.name.partition(':')[2]} was given to netadapt.adapt as an object, which only the program that called it "
                "has; call it there again with resume=True, which yields all steps, to export or to train them further"
            )
        model, name = build_network(self.name, **self.keywords), short_name(self.name)
        if not is_user_network(self.name):
            return Plain(model, ())
        with users_code(f"{name} does not accept an input of {shapes_text(self.input_shapes)}"):
            return plain_network(model, self.input_shapes, name)

    def graph(self) -> Graph:
        """The network's layers and blocks. Errors as for `traced`."""
        return self.traced(self.build()).graph

    def traced(self, model: nn.Module) -> Traced:
        """The layers and blocks of the network that `build` has built, and why other layers keep their widths.

        `NetworkError` if it cannot be traced, or nothing in it can be pruned.
        """
        from netadapt.pruning.tracing import trace_with_reasons

        name = short_name(self.name)
        with users_code(f"{name} cannot be traced"):
            found_layers = trace_with_reasons(model, self.input_shapes, name)
        if not found_layers.graph.widths:
            kept = [f"{layer} keeps its width, as {reason}" for layer, reason in found_layers.fixed.items()]
            more = f"; and {len(kept) - _MOST_TOLD} more layers" if len(kept) > _MOST_TOLD else ""
            why = "; ".join(kept[:_MOST_TOLD]) + more or "it has neither convolutions nor linear layers"
            raise NetworkError(f"nothing in {name} can be pruned: {why}")
        return found_layers
