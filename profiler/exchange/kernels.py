"""Sliding windows as foreign tables describe them, by kernel and stride alone."""

from __future__ import annotations

from typing import Any

from profiler.layers.layer import LayerSpec, Shape


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """The padding before and after one axis with TensorFlow's SAME.

    The output has a pixel for each stride that begins in the input; an odd pixel of padding goes to the end.
    """
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def same_window(input: Shape, kernel: int, stride: int) -> dict[str, Any]:
    """The fields of a LayerSpec for a square window with SAME padding on an (n, h, w, c) input."""
    (top, bottom), (left, right) = (same_padding(length, kernel, stride) for length in input[1:3])
    return {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (top, left, bottom, right)}


def symmetric_window(kernel: int, stride: int) -> dict[str, Any]:
    """The fields of a LayerSpec for a square window with equal padding on all sides, as in PyTorch's networks."""
    return {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (kernel // 2,) * 4}


def same_output(input: Shape, channels: int, stride: int) -> Shape:
    """The (n, h, w, channels) output of a window with SAME padding."""
    return (input[0], -(-input[1] // stride), -(-input[2] // stride), channels)


def is_same(layer: LayerSpec) -> bool:
    """True if a square window with SAME padding describes the layer's window completely."""
    square = layer.kernel[0] == layer.kernel[1] and layer.stride[0] == layer.stride[1] and layer.dilation == (1, 1)
    return square and same_window(layer.inputs[0], layer.kernel[0], layer.stride[0])["padding"] == layer.padding
