"""The size of a network with zeros as Deep Compression stores it (Han, Mao and Dally, 2016, https://arxiv.org/abs/1510.00149).

Of each layer, the weights that are not zero are replaced by the nearest of a few shared values, which k-means finds from values at
equal distances. They are stored as places in the list of these, each with its distance from the one before, and both in Huffman
codes. A zero is stored where a distance is longer than its bits allow. Where it takes less, all weights are stored and no distance,
or a layer of few weights as it is, for a list of their values would be as long as they are. Everything is decoded again, and has to
be what was encoded.

The paper trains the shared values further, which is left out here.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from netadapt.errors import NetAdaptError
from netadapt.pruning.couplings import WEIGHTED
from netadapt.resources.compressed import CONVOLUTION, FLOAT_BITS, MATRIX, Coding

Symbols = NDArray[np.int64]
Values = NDArray[np.float32]
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ITERATIONS = 100
_LENGTH_BITS = 8
"""Of the length of each symbol's code, which is all that is stored of a Huffman code."""


class CompressionError(NetAdaptError):
    """What was decoded is not what was encoded, which is an error of this module."""


@dataclass(frozen=True, slots=True)
class Huffman:
    """Symbols in a canonical Huffman code."""

    lengths: Symbols
    """The bits of the code of each symbol from 0 on; 0 for one that does not occur."""
    data: bytes
    count: int

    @property
    def bits(self) -> int:
        """With the lengths."""
        return 8 * len(self.data) + _LENGTH_BITS * len(self.lengths)


@dataclass(frozen=True, slots=True)
class CompressedLayer:
    """The weights of one layer."""

    shape: tuple[int, ...]
    coding: Coding
    shared: Values
    """The shared values, zero first; all weights in their order where they are stored as they are."""
    values: Huffman | None
    """The places of the weights in `shared`; None where they are stored as they are."""
    distances: Huffman | None
    """Each less one; None where all weights are stored."""
    nonzero: int

    @property
    def shared_values(self) -> int | None:
        """The number of them, without zero; None where the weights are stored as they are."""
        return None if self.values is None else len(self.shared) - 1

    @property
    def bits(self) -> int:
        """Of the weights and the shared values, in Huffman codes unless these, with what tells them, take more."""
        if self.values is None:
            return self.bits_without_huffman
        coded = self.values.bits + (self.distances.bits if self.distances is not None else 0)
        return min(coded + FLOAT_BITS * (len(self.shared) - 1), self.bits_without_huffman)

    @property
    def bits_without_huffman(self) -> int:
        """The same with codes of equal length."""
        if self.values is None:
            return FLOAT_BITS * len(self.shared)
        each = self.coding.value_bits + (self.coding.distance_bits if self.distances is not None else 0)
        return self.values.count * each + FLOAT_BITS * (len(self.shared) - 1)

    def weights(self) -> Values:
        """The weights, decoded, in their own shape."""
        if self.values is None:
            return self.shared.reshape(self.shape)
        found = self.shared[decoded(self.values)]
        if self.distances is not None:
            every = np.zeros(int(np.prod(self.shape)), dtype=np.float32)
            every[np.cumsum(decoded(self.distances) + 1) - 1] = found
            found = every
        return found.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class CompressedNetwork:
    """A whole network; what is no weight of a convolution or linear layer is stored as it is."""

    layers: Mapping[str, CompressedLayer]
    """By the names of the modules."""
    other_bits: int
    original_bytes: int
    """Of all weights, biases and folded normalisations in 32 bits."""

    @property
    def size_bytes(self) -> int:
        return -(-(sum(layer.bits for layer in self.layers.values()) + self.other_bits) // 8)

    @property
    def bytes_without_huffman(self) -> int:
        return -(-(sum(layer.bits_without_huffman for layer in self.layers.values()) + self.other_bits) // 8)

    def load_into(self, model: nn.Module) -> None:
        """Replace the weights of the model, in place, by what is decoded."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                model.get_submodule(name).get_parameter("weight").copy_(torch.from_numpy(layer.weights()))


def compressed(model: nn.Module, codings: Mapping[str, Coding] | None = None) -> CompressedNetwork:
    """Compress the model's convolutions and linear layers. `codings`, by module, take the place of those of their kinds.

    Of a batch normalisation, two values for each channel are stored, as it is folded. `CompressionError` if decoding fails.
    """
    layers: dict[str, CompressedLayer] = {}
    stored: set[int] = set()
    weights = 0
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED) and id(module.weight) not in stored:
            coding = (codings or {}).get(name, MATRIX if isinstance(module, nn.Linear) else CONVOLUTION)
            layers[name] = compressed_layer(module.weight.detach().cpu().float().numpy(), coding)
            stored.add(id(module.weight))
            weights += module.weight.numel()
    others = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in stored)
    norms = [module for module in model.modules() if isinstance(module, _NORMALISATIONS)]
    others += sum(2 * norm.num_features - sum(value.numel() for value in norm.parameters()) for norm in norms)
    return CompressedNetwork(layers, FLOAT_BITS * others, FLOAT_BITS // 8 * (weights + others))


def compressed_layer(weights: Values, coding: Coding) -> CompressedLayer:
    """Compress one layer, whichever way takes less. `CompressionError` if it cannot be decoded."""
    flat = weights.astype(np.float32).reshape(-1)
    places = np.flatnonzero(flat)
    shared, labels = shared_values(flat[places], coding.values - 1)
    shared, labels = np.concatenate([np.zeros(1, dtype=np.float32), shared]), labels + 1
    every = np.zeros(len(flat), dtype=np.int64)
    every[places] = labels
    # the last weight of each reach is stored, even where it is zero
    distances = np.diff(places, prepend=-1)
    zeros = (distances - 1) // coding.reach
    ends = np.cumsum(zeros + 1) - 1
    steps = np.full(len(places) + int(zeros.sum()), coding.reach, dtype=np.int64)
    steps[ends] = distances - zeros * coding.reach
    listed = np.zeros(len(steps), dtype=np.int64)
    listed[ends] = labels
    ways = [
        CompressedLayer(weights.shape, coding, flat, None, None, len(places)),
        CompressedLayer(weights.shape, coding, shared, encoded(every, len(shared)), None, len(places)),
        CompressedLayer(
            weights.shape, coding, shared, encoded(listed, len(shared)), encoded(steps - 1, coding.reach), len(places)
        ),
    ]  # fmt: skip
    best = min(ways, key=lambda way: way.bits)
    if not np.array_equal(best.weights().reshape(-1), flat if best.values is None else shared[every]):
        raise CompressionError("a layer that was compressed is another when it is decoded; please report this")
    return best


def shared_values(weights: Values, count: int) -> tuple[Values, Symbols]:
    """At most `count` shared values, rising, and for each weight the place of the nearest: k-means from equal distances.

    Weights of fewer values are kept as they are. No value is zero, as that stands for what was pruned.
    """
    own, places = np.unique(weights, return_inverse=True)
    if len(own) <= count:
        return own, places.astype(np.int64)
    order = np.sort(weights.astype(np.float64))
    sums = np.concatenate([np.zeros(1), np.cumsum(order)])
    centres = np.linspace(order[0], order[-1], count)
    for _ in range(_ITERATIONS):
        edges = np.concatenate([[0], np.searchsorted(order, (centres[1:] + centres[:-1]) / 2), [len(order)]])
        sizes = np.diff(edges)
        moved = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = np.sort(moved)
    shared = np.unique(centres.astype(np.float32))
    shared = shared[shared != 0]
    middles = (shared[1:].astype(np.float64) + shared[:-1]) / 2
    return shared, np.searchsorted(middles, weights.astype(np.float64)).astype(np.int64)


def encoded(symbols: Symbols, kinds: int) -> Huffman:
    """Symbols from 0 to below `kinds` in a canonical Huffman code."""
    counts = np.bincount(symbols, minlength=kinds)
    lengths = _code_lengths(counts)
    codes = _canonical(lengths)
    each = lengths[symbols]
    total = int(each.sum())
    # each bit of the stream: the symbol that it belongs to, and its place in the symbol's code
    owner = np.repeat(np.arange(len(symbols)), each)
    place = np.arange(total) - np.repeat(np.cumsum(each) - each, each)
    bits = (codes[symbols[owner]] >> (each[owner] - 1 - place)) & 1
    return Huffman(lengths, np.packbits(bits.astype(np.uint8)).tobytes(), len(symbols))


def decoded(code: Huffman) -> Symbols:
    """The inverse of `encoded`. The length of a code that began at each bit is found at once; then the stream is followed."""
    if not code.count:
        return np.zeros(0, dtype=np.int64)
    longest = int(code.lengths.max())
    order = np.lexsort((np.arange(len(code.lengths)), code.lengths))
    order = order[code.lengths[order] > 0]
    # canonical codes, filled up with zeros to the longest, rise in this order
    starts = _canonical(code.lengths)[order] << (longest - code.lengths[order])
    bits = np.unpackbits(np.frombuffer(code.data, dtype=np.uint8))
    padded = np.concatenate([bits, np.zeros(longest, dtype=np.uint8)])
    windows = np.zeros(len(bits), dtype=np.int64)
    for place in range(longest):
        windows = windows << 1 | padded[place : place + len(bits)]
    symbols = order[np.searchsorted(starts, windows, side="right") - 1]
    steps, at = code.lengths[symbols].tolist(), 0
    begins = np.empty(code.count, dtype=np.int64)
    for number in range(code.count):
        begins[number] = at
        at += steps[at]
    found: Symbols = symbols[begins]
    return found


def _code_lengths(counts: Symbols) -> Symbols:
    """The lengths of Huffman codes for symbols that occur so often; one symbol alone has a code of one bit."""
    lengths = np.zeros(len(counts), dtype=np.int64)
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
        return lengths
    heapq.heapify(heap)
    while len(heap) > 1:
        (few, first, some), (more, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[some + others] += 1
        heapq.heappush(heap, (few + more, first, some + others))
    return lengths


def _canonical(lengths: Symbols) -> Symbols:
    """The codes, which rise with the lengths and, of equal ones, with the symbols."""
    codes = np.zeros(len(lengths), dtype=np.int64)
    code = before = 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        if length := int(lengths[symbol]):
            code <<= length - before
            codes[symbol] = code
            code, before = code + 1, length
    return codes
