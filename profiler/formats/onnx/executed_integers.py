"""Writes layers of 8-bit integers as the nodes that ONNX Runtime itself executes: QLinearConv, QGemm, QLinearAdd and so on."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from profiler.errors import ModelError
from profiler.formats.int8 import COMMON, UNIT, Quantisation, quantised_bias, quantised_weights
from profiler.formats.onnx.emitter import Emitter
from profiler.formats.onnx.tensors import in_file
from profiler.formats.onnx.writer import emit_plain, window_attributes
from profiler.layers.graph import Graph, Node
from profiler.layers.integers import INTEGERS, is_one_operator
from profiler.layers.layer import CHANNELS_LAST, LayerSpec, Shape

DOMAIN = "com.microsoft"


class IntegerEmitter(Emitter):
    """An emitter of executed nodes, whose activations are floats or uint8 with the channels first or last, as their layers say."""

    def __init__(self, graph: Graph, seed: int) -> None:
        super().__init__(graph, seed)
        self._types = {name: TensorProto.FLOAT for name, _ in graph.inputs}
        for node in graph.nodes:
            layer = node.layer
            self._types[node.name] = (
                TensorProto.FLOAT if layer.dtype not in INTEGERS or layer.op == "dequantise" else TensorProto.UINT8
            )
            for name in node.inputs:
                if name in dict(graph.inputs) and layer.dtype in INTEGERS and layer.op != "quantise":
                    self._types[name] = TensorProto.UINT8
            if layer.layout == CHANNELS_LAST:
                self.channels_last.update(() if layer.op == "reorder_input" else node.inputs)
                self.channels_last.update(() if layer.op == "reorder_output" else (node.name,))
            elif len(layer.output) == 4 and not self.channels_last.isdisjoint(node.inputs):
                self.channels_last.add(node.name)

    def inputs(self) -> list[ValueInfoProto]:
        return [self._declared(name, shape) for name, shape in self.graph.inputs]

    def outputs(self) -> list[ValueInfoProto]:
        return [self._declared(name, shape) for name, shape in self.output_shapes()]

    def _declared(self, name: str, shape: Shape) -> ValueInfoProto:
        shape = shape if name in self.channels_last else in_file(shape)
        return helper.make_tensor_value_info(name, self._types[name], shape)

    def integers(self, node: Node) -> None:
        """Add the node of a layer of integers, or a copy into another layout. `ModelError` if there is no such node."""
        layer, name = node.layer, node.name
        last = layer.layout == CHANNELS_LAST
        if layer.activation != "none":
            raise ModelError(f"{name}: no {layer.op} of integers applies a {layer.activation} itself")
        match layer.op:
            case "conv2d" | "depthwise_conv2d":
                self._add(node, "QLinearConv", [*self._operands(node), *self._weights(node, COMMON)], **self._attributes(layer))
            case "fully_connected":
                self._product(node)
            case "add" | "mul":
                self._add(node, f"QLinear{layer.op.capitalize()}", [*self._operands(node), *self._parameters(COMMON)])
            case "concat":
                axis = 3 if last else 1 if len(layer.output) == 4 else len(layer.output) - 1
                self._add(node, "QLinearConcat", [*self._parameters(COMMON), *self._operands(node)], axis=axis)
            case "global_avg_pool" if len(layer.output) == 4:
                operands = [*self._operands(node), *self._parameters(COMMON)]
                self._add(node, "QLinearGlobalAveragePool", operands, channels_last=int(last))
            case "avg_pool2d":
                window = {name: value for name, value in window_attributes(layer).items() if name != "dilations"}
                operands = [*self._operands(node), *self._parameters(COMMON)]
                self._add(node, "QLinearAveragePool", operands, channels_last=int(last), **window)
            case "max_pool2d" if last:
                self._add(node, "NhwcMaxPool", list(node.inputs), **window_attributes(layer))
            case "upsample_nearest" | "upsample_bilinear" if last:
                sizes = self.constant(f"{name}.sizes", np.array(layer.output, dtype=np.int64))
                nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
                bilinear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
                way = nearest if layer.op == "upsample_nearest" else bilinear
                self.node("Resize", [*node.inputs, "", "", sizes], name, name, **way)
            case "max_pool2d" | "upsample_nearest" | "flatten" | "global_max_pool" if is_one_operator(layer):
                emit_plain(self, node)
            case "softmax":
                axis = 3 if last else 1 if len(layer.output) == 4 else len(layer.output) - 1
                self._add(node, "QLinearSoftmax", [*self._operands(node), *self._parameters(UNIT)], axis=axis, opset=self.opset)
            case "sigmoid":
                self._add(node, "QLinearSigmoid", [*self._operands(node), *self._parameters(UNIT)])
            case "leaky_relu":
                self._add(node, "QLinearLeakyRelu", [*self._operands(node), *self._parameters(COMMON)], alpha=layer.slope)
            case "quantise":
                self.node("QuantizeLinear", self._operands(node), name, name)
            case "dequantise":
                self.node("DequantizeLinear", self._operands(node), name, name)
            case "reorder_input" | "reorder_output" if last:
                perm = [0, 2, 3, 1] if layer.op == "reorder_input" else [0, 3, 1, 2]
                self.node("Transpose", list(node.inputs), name, name, perm=perm)
            case _:
                raise ModelError(f"{name} ({layer.op}, {layer.dtype}) cannot be written as an executed layer")

    def _add(self, node: Node, op_type: str, inputs: list[str], **attributes: Any) -> None:
        self.node(op_type, inputs, node.name, node.name, domain=DOMAIN, **attributes)

    def _operands(self, node: Node) -> list[str]:
        """The activations that the layer reads, each with the names of its scale and its zero point."""
        return [name for source in node.inputs for name in (source, *self._parameters(COMMON))]

    def _attributes(self, layer: LayerSpec) -> dict[str, Any]:
        channels_last = {"channels_last": 1} if layer.layout == CHANNELS_LAST else {}
        return {"group": layer.groups, **window_attributes(layer), **channels_last}

    def _product(self, node: Node) -> None:
        layer = node.layer
        if len(layer.inputs[0]) == 2:
            weights, scales, zero_points, *rest = self._weights(node, COMMON)
            scale, zero_point, *bias = rest
            inputs = [*self._operands(node), weights, scales, zero_points, *(bias or [""]), scale, zero_point]
            self._add(node, "QGemm", inputs, transB=1)
        elif len(layer.inputs[0]) == 3 and not layer.bias:
            inputs = [*self._operands(node), *self._weights(node, COMMON, transposed=True)]
            self.node("QLinearMatMul", inputs, node.name, node.name)
        else:
            raise ModelError(f"{node.name}: no product of integers over {layer.inputs[0]} is one node")

    def _weights(self, node: Node, output: Quantisation, *, transposed: bool = False) -> list[str]:
        """Weights with their scales and zero points, the parameters of the output, and biases if there are any."""
        layer = node.layer
        shape = layer.weight_shape
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        signed, scales = quantised_weights(values, 0)
        # a quantiser gives unsigned symmetric weights this zero point
        zero_point, dtype = (128, np.dtype(np.uint8)) if layer.dtype == "uint8" else (0, np.dtype(np.int8))
        weights = (signed.astype(np.int16) + zero_point).astype(dtype)
        names = [
            self.store(f"{node.name}.weight", np.ascontiguousarray(weights.T if transposed else weights)),
            self.store(f"{node.name}.weight_scale", scales),
            self.store(f"{node.name}.weight_zero_point", np.full(len(scales), zero_point, dtype)),
        ]
        names += self._parameters(output)
        if layer.bias:
            floats = self.rng.standard_normal(layer.out_channels, dtype=np.float32) * np.float32(0.1)
            biases, _ = quantised_bias(floats, COMMON, scales)
            names.append(self.store(f"{node.name}.bias", biases))
        return names

    def _parameters(self, quantisation: Quantisation) -> list[str]:
        """The names of the constants with the scale and the zero point."""
        name = f"quantisation.{quantisation.scale:.4f}"
        return [
            self.constant(f"{name}.scale", np.float32(quantisation.scale)),
            self.constant(f"{name}.zero_point", np.array(quantisation.zero_point + 128, np.uint8)),
        ]
