"""Eight-bit integers: the numbers that both formats' writers quantise with, as all post-training quantisers do.

Activations have one scale and zero point each, weights are symmetric with a scale for every output channel, biases are 32-bit
integers in steps of input scale times weight scale (Jacob et al., 2018, https://arxiv.org/abs/1712.05877). The weights are random,
so no ranges are calibrated: each kind of tensor has one that holds what layers with such weights compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
"""Of a weight; -128 stays unused, so that zero is in the middle."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A tensor's value is (integer - zero_point) * scale."""

    scale: float
    zero_point: int


COMMON = Quantisation(12 / 255, 0)
"""From -6 to 6: activations of unit variance, and whatever needs no other range."""
POSITIVE = Quantisation(6 / 255, -128)
"""From 0 to 6, what ReLU6 leaves: quantising to it is the activation."""
UNIT = Quantisation(1 / 256, -128)
"""From 0 to 1, for sigmoid and softmax; TFLite's kernels demand these very numbers."""


def quantised_weights(values: NDArray[np.float32], out_axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The integers, and the scale of each output channel."""
    others = tuple(axis for axis in range(values.ndim) if axis != out_axis)
    scales = np.maximum(np.abs(values).max(axis=others, keepdims=True), np.float32(1e-6)) / np.float32(LARGEST)
    return np.rint(values / scales).astype(np.int8), scales.reshape(-1)


def quantised_bias(values: NDArray[np.float32], source: Quantisation, weight_scales: NDArray[np.float32]) -> tuple[Any, Any]:
    """The 32-bit integers, and their scales."""
    scales = np.float32(source.scale) * weight_scales
    return np.rint(values / scales).astype(np.int32), scales
