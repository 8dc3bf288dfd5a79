"""The layers of the page energyestimation.mit.edu: a line for each, with 25 whole numbers that commas or blanks separate.

The line's number; then for the inputs, the filters and the outputs each height, width, channels, number of maps or filters, number
of zeros and bits; stride down and across; padding above, below, left and right. The maps of the inputs are the images of a batch.
Filters of fewer channels than the inputs are those of a grouped convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from profiler.errors import LayerError, ModelError
from profiler.layers.layer import LayerSpec
from profiler.modelled.work import Assumptions

COLUMNS = 25
MOST_LINES = 10_000
SUFFIX = ".txt"
OPS = ("conv2d", "depthwise_conv2d", "fully_connected")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Inputs, filters or outputs of a layer."""

    height: int
    width: int
    channels: int
    maps: int
    zeros: int
    bits: int

    @property
    def density(self) -> float:
        """The share of values that are not zero."""
        return 1 - self.zeros / (self.height * self.width * self.channels * self.maps)


@dataclass(frozen=True, slots=True)
class PageLayer:
    """One line."""

    inputs: Tensor
    filters: Tensor
    outputs: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    """Above, below, left and right."""

    @property
    def batch(self) -> int:
        return self.inputs.maps

    def layer(self) -> LayerSpec:
        """The layer for one image. `LayerError` if the sizes contradict each other."""
        given = (1, self.inputs.height, self.inputs.width, self.inputs.channels)
        groups, rest = divmod(self.inputs.channels, self.filters.channels)
        if rest:
            raise LayerError(f"filters of {self.filters.channels} channels do not divide inputs of {self.inputs.channels}")
        if self.filters.maps != self.outputs.channels:
            raise LayerError(f"{self.filters.maps} filters do not make {self.outputs.channels} channels")
        above, below, left, right = self.padding
        op = "depthwise_conv2d" if groups == self.inputs.channels > 1 else "conv2d"
        output = (1, self.outputs.height, self.outputs.width, self.outputs.channels)
        kernel = (self.filters.height, self.filters.width)
        return LayerSpec(op, (given,), output, kernel, self.stride, padding=(above, left, below, right), groups=groups)

    def assumptions(self) -> Assumptions:
        """Batch, bits and zeros as the line says them; of different bits the most."""
        tensors = (self.inputs, self.filters, self.outputs)
        return Assumptions(self.batch, max(tensor.bits for tensor in tensors), *(tensor.density for tensor in tensors))

    def numbers(self) -> list[int]:
        """The 24 numbers behind the line's own."""
        tensors = (self.inputs, self.filters, self.outputs)
        each = [(one.height, one.width, one.channels, one.maps, one.zeros, one.bits) for one in tensors]
        return [*(number for numbers in each for number in numbers), *self.stride, *self.padding]


def read_page(text: str, name: str) -> tuple[PageLayer, ...]:
    """The layers in a file. `ModelError`, with the line, for what is not such a file, and for batches that differ."""
    lines = [(number, line.replace(",", " ").split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines or len(lines) > MOST_LINES:
        raise ModelError(f"{name} has {len(lines)} layers, and 1 to {MOST_LINES} are read")
    found: list[PageLayer] = []
    for number, words in lines:
        where = f"{name}, line {number}"
        if len(words) != COLUMNS or not all(word.isascii() and word.isdecimal() and len(word) < 13 for word in words):
            raise ModelError(f"{where}: {COLUMNS} whole numbers belong here, as energyestimation.mit.edu takes them")
        values = [int(word) for word in words]
        tensors = inputs, filters, outputs = (Tensor(*values[1:7]), Tensor(*values[7:13]), Tensor(*values[13:19]))
        layer = PageLayer(inputs, filters, outputs, (values[19], values[20]), (values[21], values[22], values[23], values[24]))
        for tensor in tensors:
            if min(tensor.height, tensor.width, tensor.channels, tensor.maps, tensor.bits) < 1 or tensor.density < 0:
                raise ModelError(f"{where}: sizes and bits are at least 1, and there are no more zeros than values")
        try:
            LayerSpec.from_dict(layer.layer().to_dict())  # refuses what is impossibly large
        except LayerError as exc:
            raise ModelError(f"{where}: {exc}") from exc
        if found and layer.batch != found[0].batch:
            raise ModelError(f"{where}: {layer.batch} images at a time, and {found[0].batch} before; all layers need one batch")
        found.append(layer)
    return tuple(found)


def write_page(layers: Iterable[PageLayer]) -> str:
    """The inverse of `read_page`."""
    return "".join(",".join(map(str, (number, *layer.numbers()))) + "\n" for number, layer in enumerate(layers, 1))


def page_layer(layer: LayerSpec, assumptions: Assumptions) -> PageLayer | None:
    """A layer as a line; None for one that the page has no form for."""
    if layer.op not in OPS or layer.opaque is not None or len(layer.inputs) > 1 or layer.dilation != (1, 1):
        return None
    plain = layer.op == "fully_connected"
    if plain and len(layer.output) != 2:
        return None
    (in_height, in_width), (out_height, out_width) = ((1, 1) if plain else shape[1:3] for shape in (layer.inputs[0], layer.output))
    images, bits = assumptions.batch * layer.inputs[0][0], assumptions.bits
    sizes = (
        (in_height, in_width, layer.in_channels, images),
        (*layer.kernel, layer.in_channels // layer.groups, layer.out_channels),
        (out_height, out_width, layer.out_channels, images),
    )
    tensors = [
        Tensor(*size, round((1 - density) * math.prod(size)), bits)
        for size, density in zip(sizes, assumptions.densities, strict=True)
    ]
    top, left, bottom, right = layer.padding
    return PageLayer(tensors[0], tensors[1], tensors[2], layer.stride, (top, bottom, left, right))
