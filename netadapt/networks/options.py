"""The options that a network is built with: by its name, or by the user's own function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from netadapt.errors import NetworkError
from netadapt.input_shape import InputShape
from netadapt.networks import build_network
from netadapt.networks.own import parse_input, settled, short, users_code

if TYPE_CHECKING:
    from torch import nn

    from profiler.layers.graph import Graph


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """All that decides the shape of the original network; stored with a run, so that the network can be built again."""

    name: str
    width_multiplier: float = 1.0
    resolution: int = 224
    classes: int = 1000
    """0 for a network without a classifier."""
    small_input: bool = False
    input: InputShape | None = None
    """The shape of the model's input, where one was given; otherwise three channels and the resolution squared."""

    @classmethod
    def chosen(
        cls, network: str, width_multiplier: float, resolution: int, small_input: bool, input_shape: str | None, classes: int = 1000
    ) -> Self:
        """From the words of the command line. `NetworkError` for an input shape that is none."""
        shape = parse_input(input_shape) if input_shape else None
        return cls(settled(network), width_multiplier, resolution, classes, small_input, shape)

    @property
    def input_shape(self) -> InputShape:
        return self.input or (1, 3, self.resolution, self.resolution)

    @property
    def image_side(self) -> int:
        """The side of the input image in pixels. `NetworkError` for an input that is not square, as datasets' images are."""
        _, _, height, width = self.input_shape
        if height != width:
            raise NetworkError(f"the images of a dataset are square, an input of {height} by {width} pixels is not")
        return height

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of `build_network`."""
        _, channels, height, _ = self.input_shape
        common = {"width_multiplier": self.width_multiplier, "resolution": height, "in_channels": channels}
        return common | ({"classes": self.classes} if self.classes else {}) | ({"small_input": True} if self.small_input else {})

    def build(self) -> nn.Module:
        """The network with random weights from torch's own generator. `NetworkError` for unknown names, options and sizes."""
        return build_network(self.name, **self.keywords)

    def graph(self, *, outputs: tuple[int, ...] | None = None) -> Graph:
        """The network's layers and blocks. `NetworkError` if it does not take its input, gives other outputs, or has no blocks."""
        import torch

        from netadapt.pruning.couplings import as_list
        from netadapt.pruning.tracing import trace

        model, name = self.build().eval(), short(self.name)
        with users_code(f"{name} does not take an input of {'x'.join(map(str, self.input_shape))}"), torch.inference_mode():
            found = [tuple(output.shape) for output in as_list(model(torch.zeros(self.input_shape)))]
            model(torch.zeros(2, *self.input_shape[1:]))  # as in training
        if outputs is not None and found != [outputs]:
            raise NetworkError(
                f"{name} gives {', '.join(map(str, found))} for one image, but the data asks for {outputs}; "
                "let its function take num_classes, or return a network with as many outputs"
            )
        with users_code(f"{name} cannot be traced"):
            graph = trace(model, self.input_shape, name)
        if not graph.widths:
            raise NetworkError(
                f"nothing in {name} can be pruned: it needs convolutions or linear layers that are called once, are not grouped, "
                "and whose outputs only layers read that can follow"
            )
        return graph
