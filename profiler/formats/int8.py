"""Eight-bit quantisation of the layers that both formats write, by the scheme of post-training quantisers.

Each activation tensor has one scale and zero point. Weights are symmetric, with a scale for every output channel. Biases are 32-bit
integers in steps of input scale times weight scale (Jacob et al., 2018, https://arxiv.org/abs/1712.05877). The weights are random,
so the ranges are not calibrated: each kind of tensor has a fixed range that fits what layers with such weights compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
"""The largest weight; -128 stays unused, so that the range is symmetric around zero."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The quantisation of a tensor, whose values are (integer - zero_point) * scale."""

    scale: float
    zero_point: int


COMMON = Quantisation(12 / 255, 0)
"""The range from -6 to 6, for activations of unit variance and for all tensors without another range."""
POSITIVE = Quantisation(6 / 255, -128)
"""The range from 0 to 6, which is that of ReLU6: quantising to it applies the activation."""
UNIT = Quantisation(1 / 256, -128)
"""The range from 0 to 1, for sigmoid and softmax; TFLite's kernels require exactly these numbers."""


def quantised_weights(values: NDArray[np.float32], out_axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The int8 weights in the shape of `values`, and the scales of the output channels on `out_axis`, in the shape (out,)."""
    others = tuple(axis for axis in range(values.ndim) if axis != out_axis)
    scales = np.maximum(np.abs(values).max(axis=others, keepdims=True), np.float32(1e-6)) / np.float32(LARGEST)
    return np.rint(values / scales).astype(np.int8), scales.reshape(-1)


def quantised_bias(values: NDArray[np.float32], source: Quantisation, weight_scales: NDArray[np.float32]) -> tuple[Any, Any]:
    """The int32 biases and their scales, both in the shape (out,). `source` is the quantisation of the layer's input."""
    scales = np.float32(source.scale) * weight_scales
    return np.rint(values / scales).astype(np.int32), scales
