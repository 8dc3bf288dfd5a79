"""The shapes of a network's inputs, for modules that do without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiler.layers.graph import Graph

InputShape = tuple[int, ...]
"""(n, c, h, w) of images, (n, …) of anything else."""


class WholeNumbers(InputShape):
    """The shape of an input of whole numbers, int64, such as token ids. Any other shape is that of floating-point numbers."""

    __slots__ = ()


InputShapes = tuple[InputShape, ...]
"""One shape for each input, in the order in which the network is called with them."""


def input_shapes_of(graph: Graph) -> InputShapes:
    """The shapes of the inputs of the network that the graph was traced from, whose images have their channels first."""
    # the data type of a layer is that of the first tensor that it reads
    types = {node.inputs[0]: node.layer.dtype for node in graph.nodes if node.inputs}
    return tuple(
        WholeNumbers(shape) if types.get(name) == "int64" else (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
        for name, shape in graph.inputs
    )


def with_count(shape: InputShape, count: int) -> InputShape:
    """The shape of so many examples, from that of any number of them."""
    return type(shape)((count, *shape[1:]))


def shapes_text(shapes: InputShapes) -> str:
    """As people write them with --input: 1x3x224x224, or 1x3x224x224,1x8:int64 for several, the second of whole numbers."""
    return ",".join("x".join(map(str, shape)) + (":int64" if isinstance(shape, WholeNumbers) else "") for shape in shapes)
