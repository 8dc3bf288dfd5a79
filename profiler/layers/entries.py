"""Layers for which a runtime runs the same kernel in the same time: they are measured once, as one entry of a table.

Activations that are only a choice of bounds within the kernel cost nothing. Measured on an x86 processor with AVX2 (onnxruntime
1.31.1, LiteRT 2.3.0, nine layers, medians of 12 interleaved rounds), in relation to the same layer without an activation:

- onnxruntime, float32, blocked layout: convolutions with ReLU 0.96 to 1.05, one depthwise convolution 1.20 but 0.97 when it was all
  measured again; with ReLU6 up to 1.68, because that is a pass of its own over the output.
- onnxruntime, int8: with ReLU and with ReLU6 0.97 to 1.03. The activation is the range of the quantised output.
- LiteRT (XNNPACK), float32 and int8: with ReLU and with ReLU6 0.98 to 1.01, because every kernel clamps its output. An addition
  takes up to 1.8 times as long with either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from profiler.layers.layer import LayerSpec

CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "fully_connected")
EQUAL_ACTIVATIONS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("onnxruntime", "float32"): ("none", "relu"),
    ("onnxruntime", "int8"): ("none", "relu", "relu6"),
    ("tflite", "float32"): ("none", "relu", "relu6"),
    ("tflite", "int8"): ("none", "relu", "relu6"),
    ("tflite", "uint8"): ("none", "relu", "relu6"),
}
"""By fusion rules (profiler.runtimes) and data type, activations that cost the same; the first one stands for all."""


def entry_of(layer: LayerSpec, fusion: str | None) -> LayerSpec:
    """The layer that stands for this one in a table of a runtime with these fusion rules."""
    equal = EQUAL_ACTIVATIONS.get((fusion or "", layer.dtype), ())
    if layer.op not in CONVOLUTIONS or layer.activation not in equal or layer.opaque is not None:
        return layer
    if fusion == "onnxruntime" and layer.dtype == "float32" and not layer.layout:
        return layer  # in the plain layout an activation is a pass of its own
    return replace(layer, activation=equal[0])
