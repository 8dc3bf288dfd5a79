"""The shapes of a network's inputs, for modules that do without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiler.layers.graph import Graph

InputShape = tuple[int, ...]
"""(n, c, h, w) of images, (n, …) of anything else."""
InputShapes = tuple[InputShape, ...]
"""One shape for each input, in the order in which the network is called with them."""


def input_shapes_of(graph: Graph) -> InputShapes:
    """The shapes of the inputs of the network that the graph was traced from, whose images have their channels first."""
    return tuple((n, *rest[-1:], *rest[:-1]) if len(rest) == 3 else (n, *rest) for _, (n, *rest) in graph.inputs)


def shapes_text(shapes: InputShapes) -> str:
    """As people write them with --input: 1x3x224x224, or 1x3x224x224,1x8 for several."""
    return ",".join("x".join(map(str, shape)) for shape in shapes)
