"""The size of a network that is stored as Deep Compression does (Han, Mao and Dally, 2016, https://arxiv.org/abs/1510.00149).

Weights that are not zero are stored as places in a list of shared values, with the distance of each from the one before it in a few
bits. Where a distance is longer, a zero is stored in between. The exact size, with Huffman codes, depends on the weights
themselves (netadapt.weight_pruning.compressed_size); here it is estimated, without them, from the numbers of weights at any widths
and the densities of layers, whose zeros lie anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netadapt.resources.base import prefixed_text
from profiler.layers.graph import Graph
from profiler.layers.layer import WEIGHTED_OPS, LayerSpec
from profiler.modelled.densities import Densities, LayerDensity

FLOAT_BITS = 32


@dataclass(frozen=True, slots=True)
class Coding:
    """How the weights of a layer are stored."""

    value_bits: int
    """There are two to the power of these many shared values, zero among them."""
    distance_bits: int
    """Of the distance from one weight to the next, which is at least 1."""

    @property
    def values(self) -> int:
        return 1 << self.value_bits

    @property
    def reach(self) -> int:
        """The longest distance."""
        return 1 << self.distance_bits

    def bits(self, weights: float, stored: float) -> float:
        """Bits of a layer with so many weights, of which so many are stored, zeros between long distances among them.

        Without distances, or as they are, where that takes less.
        """
        listed = stored * (self.value_bits + self.distance_bits)
        shared = min(listed, weights * self.value_bits) + FLOAT_BITS * min(self.values, stored)
        return min(shared, FLOAT_BITS * weights)


CONVOLUTION, MATRIX = Coding(8, 8), Coding(5, 5)
"""As in the paper: 256 values for convolutions, 32 for fully connected layers."""


def coding_of(layer: LayerSpec) -> Coding:
    """The coding of a layer's kind."""
    return MATRIX if layer.op == "fully_connected" else CONVOLUTION


def stored_weights(weights: float, density: float, coding: Coding) -> float:
    """The expected number of weights that are stored: those that are not zero, and a zero for each full reach between two.

    The distance of weights that lie anywhere is longer than n with the probability (1 - density)ⁿ.
    """
    none = (1 - density) ** coding.reach
    return weights if density >= 1 else weights * density / (1 - none) if none < 1 else 0.0


class Compressed:
    """The estimated size of the whole network in bytes; biases are stored as they are."""

    name = "compressed"
    unit = "B"
    scales: ClassVar[Mapping[str, float]] = {
        "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
    }  # fmt: skip
    example = "200kB"
    needs_table = False
    measurable = False
    named_by_table = False

    def __init__(self, densities: Densities | None = None) -> None:
        self._layers = densities.layers if densities is not None else {}

    @staticmethod
    def amount_text(amount: float) -> str:
        return prefixed_text(amount, "B")

    @classmethod
    def of(cls, table: Any) -> Self:
        """The resource, with the densities of a modelled table that has some; otherwise no weight is zero."""
        loaded = getattr(table, "table", table)
        model = loaded.info.model if loaded is not None else None
        return cls(model.densities if model is not None else None)

    def price(self, graph: Graph) -> float:
        """The network's estimated size in bytes."""
        bits = 0.0
        for node in graph.nodes:
            layer = node.layer
            if node.repeats:
                continue
            if layer.opaque is not None:
                bits += 8 * layer.weight_bytes
                continue
            biases = layer.out_channels if layer.op in WEIGHTED_OPS and layer.bias else 0
            weights = layer.parameters - biases if layer.op in WEIGHTED_OPS else 0
            bits += FLOAT_BITS * (layer.parameters - weights)
            if weights:
                coding, density = coding_of(layer), self._layers.get(node.name, LayerDensity()).weight
                bits += coding.bits(weights, stored_weights(weights, density, coding))
        return bits / 8
