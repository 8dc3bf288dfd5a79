"""Int8 layers in a .tflite file, as full integer post-training quantisation leaves them: no operator converts from or to floats.

The inputs and outputs of the file are int8. All activations share one scale and zero point, except for sigmoid and softmax, whose
kernels require theirs, and for operators that only move values. If the inputs of a concatenation differ, QUANTIZE brings them to
one scale first, as its kernel requires.

All layers run in integers. LiteRT 2.3 runs average pools, nearest upsampling, softmax, hard-swish, a ReLU or ReLU6 by itself and
the padding of a max pool in its own kernels, and all others in XNNPACK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from profiler.formats.int8 import COMMON, LARGEST, UNIT, Quantisation, quantised_bias, quantised_weights
from profiler.formats.tflite.emitter import Emitter
from profiler.layers.graph import Node
from profiler.layers.layer import Shape

_INT8: int = schema.TensorType.INT8

_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "HARD_SWISH": 1, "QUANTIZE": 1, "ELU": 1}
"""The first versions of operators with int8, if not the second (tensorflow/lite/tools/versioning/op_version.cc)."""
_MOVES = (
    "MAX_POOL_2D", "AVERAGE_POOL_2D", "REDUCE_MAX", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", "PAD", "PADV2", "SLICE",
    "RESHAPE", "RELU", "RELU6",
)  # fmt: skip
"""Operators whose output has the quantisation of their input, because their kernels or those of XNNPACK require it."""


class Int8Emitter(Emitter):
    """An emitter that quantises activations and weights."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._quantisations: dict[int, Quantisation] = {}  # of the activations, by tensor number

    def activation(self, name: str, shape: Shape) -> int:
        """Add a tensor that is computed; the operator that computes it sets its final quantisation."""
        tensor = self.tensor(name, shape, _INT8)
        self._quantise(tensor, COMMON)
        return tensor

    def constant(self, name: str, values: NDArray[Any] | Sequence[int]) -> int:
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            return super().constant(name, values)
        # a single number is stored as the largest integer; minus infinity, which pads a max pool, as the smallest
        is_bottom = bool(np.isneginf(values).all())
        tensor = self.stored(name, np.full(values.shape, -128 if is_bottom else LARGEST, np.int8))
        self._quantise(tensor, COMMON if is_bottom else Quantisation(float(values.max()) / LARGEST, 0))
        return tensor

    def stored_weights(
        self, node: Node, weights: NDArray[np.float32], bias: NDArray[np.float32] | None, out_axis: int, source: int
    ) -> list[int]:
        integers, scales = quantised_weights(weights, out_axis)
        tensors = [self.stored(f"{node.name}/weights", integers)]
        self._set(tensors[0], scales, np.zeros(len(scales)), out_axis)
        if bias is not None:
            integers, scales = quantised_bias(bias, self._quantisations[source], scales)
            tensors.append(self.stored(f"{node.name}/bias", integers))
            self._set(tensors[1], scales, np.zeros(len(scales)))
        return tensors

    def operator(self, name: str, inputs: Sequence[int], output: int, options: Any = None, version: int = 1) -> None:
        if name == "CONCATENATION":
            inputs = [self._as_common(tensor) for tensor in inputs]
        if name == "PADV2":
            self._quantise(inputs[2], self._quantisations[inputs[0]])
        if name in _MOVES:
            self._quantise(output, self._quantisations[inputs[0]])
        elif name in ("LOGISTIC", "SOFTMAX"):
            self._quantise(output, UNIT)
        super().operator(name, inputs, output, options, max(version, _VERSIONS.get(name, 2)))

    def _as_common(self, tensor: int) -> int:
        """The tensor with the COMMON quantisation; a QUANTIZE converts it if necessary."""
        if self._quantisations[tensor] == COMMON:
            return tensor
        table = self.tensors[tensor]
        made = self.activation(f"{table.name}/requantised", tuple(table.shape))
        self.operator("QUANTIZE", [tensor], made, schema.QuantizeOptionsT())
        return made

    def _quantise(self, tensor: int, quantisation: Quantisation) -> None:
        self._quantisations[tensor] = quantisation
        self._set(tensor, [quantisation.scale], [quantisation.zero_point])

    def _set(self, tensor: int, scales: Any, zero_points: Any, axis: int = 0) -> None:
        self.tensors[tensor].quantization = schema.QuantizationParametersT(
            scale=np.array(scales, np.float32), zeroPoint=np.array(zero_points, np.int64), quantizedDimension=axis
        )
