"""Int8 layers as ONNX, in the QDQ form of onnxruntime.quantization's static quantiser.

Every operator stands between a DequantizeLinear for each operand and a QuantizeLinear; onnxruntime's optimiser replaces the three
by one integer operator. As in a file of the quantiser, ReLU and ReLU6 are not written: the range of the layer before them begins at
zero and cuts off the rest. Two things differ:

- The graph begins and ends in integers.
- Activations are uint8, weights int8. On x86 onnxruntime turns the int8 activations of a quantiser into uint8 when it loads a file,
  but not the inputs and outputs of the graph, and would then compute the layer at either end in floats.

onnxruntime 1.31 executes these layers on x86 as follows:

- integer operators: convolutions, depthwise ones too (QLinearConv), fully connected layers (QGemm, QLinearMatMul), add, mul,
  concat, average pools, softmax, sigmoid (QLinearAdd and so on), and max pools, nearest upsampling, flatten and the global maximum
  to (n, c), which take integers as they are;
- floats between DequantizeLinear and QuantizeLinear: transposed convolutions, bilinear upsampling, hard-swish, hard-sigmoid, GELU,
  ELU, softplus, tanh and the global maximum to (n, 1, 1, c);
- only DequantizeLinear and QuantizeLinear: a ReLU or ReLU6 by itself, or after a layer that only moves values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from profiler.formats.int8 import COMMON, POSITIVE, UNIT, Quantisation, quantised_bias, quantised_weights
from profiler.formats.onnx.emitter import Array, Emitter
from profiler.formats.onnx.tensors import in_file
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import Shape

_RANGES = {"Relu": POSITIVE, "Clip": POSITIVE, "Sigmoid": UNIT, "HardSigmoid": UNIT, "Softmax": UNIT}
"""The ranges of the outputs of these operators; all others have COMMON."""
_MOVES = ("MaxPool", "AveragePool", "GlobalMaxPool", "ReduceMax", "Resize", "Flatten", "Reshape")
"""Operators whose output has the quantisation of their input."""
_MOVING_OPS = ("max_pool2d", "avg_pool2d", "global_max_pool", "upsample_nearest", "upsample_bilinear", "flatten")


class Int8Emitter(Emitter):
    """An emitter that quantises. A layer's integer tensor has the layer's name; the floats before it have the suffix `.float`."""

    reductions = ("ReduceMax",)  # onnxruntime averages integers only in a GlobalAveragePool

    def __init__(self, graph: Graph, seed: int) -> None:
        super().__init__(graph, seed)
        self._tensors: dict[str, Quantisation] = {}  # of all tensors so far
        self._dequantised: set[str] = set()
        self._weight_scales: dict[str, Array] = {}
        self._rectified = {node.name for node in graph.nodes if node.layer.activation != "none" and self.absorbs_activation(node)}
        self._floats = {node.name for node in graph.nodes if node.layer.op == "dequantise"}
        self._floats |= {name for node in graph.nodes if node.layer.op == "quantise" for name in node.inputs}

    def inputs(self) -> list[ValueInfoProto]:
        self._tensors |= {name: COMMON for name, _ in self.graph.inputs if name not in self._floats}
        return [self._declared(name, shape) for name, shape in self.graph.inputs]

    def outputs(self) -> list[ValueInfoProto]:
        return [self._declared(name, shape) for name, shape in self.output_shapes()]

    def _declared(self, name: str, shape: Shape) -> ValueInfoProto:
        kind = TensorProto.FLOAT if name in self._floats else TensorProto.UINT8
        return helper.make_tensor_value_info(name, kind, in_file(shape))

    def conversion(self, node: Node) -> None:
        """Add a conversion to or from integers."""
        (source,) = node.inputs
        quantisation = self._tensors.get(source, COMMON)
        op_type = "QuantizeLinear" if node.layer.op == "quantise" else "DequantizeLinear"
        super().node(op_type, [source, *self._parameters(quantisation)], node.name, node.name)
        if op_type == "QuantizeLinear":
            self._tensors[node.name] = quantisation

    def absorbs_activation(self, node: Node) -> bool:
        is_range = node.layer.activation in ("relu", "relu6") and node.layer.op not in _MOVING_OPS
        return is_range or super().absorbs_activation(node)

    def node(self, op_type: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        operands = [self._dequantise(tensor) if tensor in self._tensors else tensor for tensor in inputs]
        super().node(op_type, operands, f"{output}.float", name, **attributes)
        if op_type in _MOVES:
            quantisation = self._tensors[inputs[0]]
        elif output in self._rectified:
            quantisation = POSITIVE
        else:
            quantisation = _RANGES.get(op_type, COMMON)
        super().node("QuantizeLinear", [f"{output}.float", *self._parameters(quantisation)], output, f"{name}.quantise")
        self._tensors[output] = quantisation

    def _dequantise(self, tensor: str) -> str:
        """The name of the tensor in floats; its DequantizeLinear is written once."""
        made = f"{tensor}.dequantised"
        if tensor not in self._dequantised:
            self._dequantised.add(tensor)
            super().node("DequantizeLinear", [tensor, *self._parameters(self._tensors[tensor])], made, f"{tensor}.dequantise")
        return made

    def _parameters(self, quantisation: Quantisation) -> list[str]:
        """The names of the constants with the scale and the zero point."""
        name = f"quantisation.{quantisation.scale:.4f}"
        return [
            self.constant(f"{name}.scale", np.float32(quantisation.scale)),
            self.constant(f"{name}.zero_point", _unsigned(np.array(quantisation.zero_point))),
        ]

    def store_weight(self, node: Node, values: Array, out_axis: int) -> str:
        integers, scales = quantised_weights(values, out_axis)
        self._weight_scales[node.name] = scales
        return self._store_per_channel(f"{node.name}.weight", integers, scales, out_axis)

    def store_bias(self, node: Node, values: Array) -> str:
        if len(node.layer.inputs[0]) == 3:  # the writer adds this bias with an Add
            name = self.store(f"{node.name}.bias", _unsigned(np.rint(values / COMMON.scale)))
            self._tensors[name] = COMMON
            return name
        # a transposed convolution with groups has a scale for each output channel of a group
        scales = np.tile(self._weight_scales[node.name], len(values) // len(self._weight_scales[node.name]))
        integers, scales = quantised_bias(values, self._tensors[node.inputs[0]], scales)
        return self._store_per_channel(f"{node.name}.bias", integers, scales, 0)

    def _store_per_channel(self, name: str, integers: Array, scales: Array, axis: int) -> str:
        zero_points = np.zeros(len(scales), integers.dtype)
        stored = [self.store(name, integers), self.store(f"{name}.scale", scales), self.store(f"{name}.zero_point", zero_points)]
        super().node("DequantizeLinear", stored, f"{name}.dequantised", f"{name}.dequantise", axis=axis)
        return f"{name}.dequantised"


def _unsigned(integers: Array) -> Array:
    """The int8 numbers as uint8, where -128 becomes 0."""
    shifted: Array = np.clip(integers + 128, 0, 255).astype(np.uint8)
    return shifted
