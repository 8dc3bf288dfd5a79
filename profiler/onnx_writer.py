"""Graphs of parametric layers as ONNX models with random weights: what is measured for every layer that has no file of its own.

The files follow PyTorch's exporter: NCHW, the same operators and attributes, weights called after their layer. An activation
is an operator of its own; onnxruntime fuses it into its layer where it can, exactly as it does with a user's network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.errors import ModelError
from profiler.graph import Graph, Node
from profiler.layers import LayerSpec, Shape

# 17 has every operator below (HardSwish came with 14) and is read by all runtimes since 2022; IR 8 is the version it came with.
OPSET = 17
IR_VERSION = 8
PRODUCER = "netadapt-profiler"
MAX_WEIGHT_BYTES = 2**31 - 2**20  # protobuf cannot hold 2 GiB; some room for the nodes

Array = npt.NDArray[Any]


def write_onnx(graph: Graph, seed: int = 0) -> bytes:
    """The network with He-scaled random weights, the same bytes for the same seed. `ModelError` for a layer it cannot hold."""
    _check(graph)
    emitter = _Emitter(np.random.default_rng(seed))
    for node in graph.nodes:
        emitter.layer(node)
    shapes = dict(graph.inputs) | {node.name: node.layer.output for node in graph.nodes}
    inputs = [_tensor(name, shape) for name, shape in graph.inputs]
    outputs = [_tensor(name, shapes[name]) for name in graph.outputs]
    proto = helper.make_graph(emitter.nodes, graph.name or "network", inputs, outputs, emitter.weights)
    model: ModelProto = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=PRODUCER
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def in_file(shape: Shape) -> Shape:
    """A channels-last shape as the file has it: pictures become NCHW, everything else stays."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _tensor(name: str, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, in_file(shape))


def _check(graph: Graph) -> None:
    for node in graph.nodes:
        if node.layer.cutout is not None:
            raise ModelError(f"{node.name} ({node.layer.op}) is cut out of a file and cannot be written inside another network")
        if node.layer.dtype != "float32":
            raise ModelError(f"{node.name} is {node.layer.dtype}, and as ONNX only float32 layers can be written, others not yet")
    if sum(layer.weight_bytes for layer in graph.layers) > MAX_WEIGHT_BYTES:
        raise ModelError(f"{graph.name} has over 2 GiB of weights, more than one ONNX file can hold")


@dataclass(slots=True)
class _Emitter:
    """Collects nodes and weights; a layer's tensor is called like the layer."""

    rng: np.random.Generator
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def layer(self, node: Node) -> None:
        activation = node.layer.activation
        if activation == "none":
            _EMIT[node.layer.op](self, node, node.name)
            return
        before = f"{node.name}.before_activation"
        _EMIT[node.layer.op](self, node, before)
        self.activation(activation, f"{node.name}.activation", before, node.name)

    def activation(self, kind: str, name: str, source: str, output: str) -> None:
        op_type, attributes, bounds = _ACTIVATIONS[kind]
        limits = [self.constant(f"{kind}.{index}", np.float32(bound)) for index, bound in enumerate(bounds)]
        self.node(op_type, [source, *limits], output, name, **attributes)

    def node(self, op_type: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))

    def weight(self, node: Node, shape: Shape, fan_in: int) -> str:
        # scaled as He et al. 2015 do, so that values neither vanish into slow denormals nor overflow in deep networks
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))
        return self._store(f"{node.name}.weight", values)

    def bias(self, node: Node) -> list[str]:
        if not node.layer.bias:
            return []
        values = self.rng.standard_normal(node.layer.out_channels, dtype=np.float32) * np.float32(0.1)
        return [self._store(f"{node.name}.bias", values)]

    def constant(self, name: str, value: Array | np.generic) -> str:
        """Stored once, however often it is asked for."""
        if name not in self.constants:
            self.constants[name] = np.asarray(value)
            self._store(name, self.constants[name])
        return name

    def _store(self, name: str, values: Array) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name


def _conv(emitter: _Emitter, node: Node, output: str) -> None:
    shape = node.layer.weight_shape  # (out, in / groups, k, k)
    weights = [emitter.weight(node, shape, int(np.prod(shape[1:]))), *emitter.bias(node)]
    emitter.node("Conv", [*node.inputs, *weights], output, node.name, group=node.layer.groups, **_window(node.layer))


def _conv_transpose(emitter: _Emitter, node: Node, output: str) -> None:
    layer = node.layer
    shape = (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)  # ONNX keeps these the other way round
    weights = [emitter.weight(node, shape, int(np.prod(layer.weight_shape[1:]))), *emitter.bias(node)]
    window = _window(layer) | {"output_padding": _output_padding(layer)}
    emitter.node("ConvTranspose", [*node.inputs, *weights], output, node.name, group=layer.groups, **window)


def _output_padding(layer: LayerSpec) -> list[int]:
    """What the output has beyond the size its kernel, stride and padding give."""
    top, left, bottom, right = layer.padding
    base = (
        (size - 1) * stride - pad + (kernel - 1) * dilation + 1
        for size, stride, pad, kernel, dilation in zip(
            layer.inputs[0][1:3], layer.stride, (top + bottom, left + right), layer.kernel, layer.dilation, strict=True
        )
    )
    return [size - least for size, least in zip(layer.output[1:3], base, strict=True)]


def _fully_connected(emitter: _Emitter, node: Node, output: str) -> None:
    layer, rank = node.layer, len(node.layer.inputs[0])
    if rank == 4:
        # over the channels of a picture this is a 1x1 convolution, which needs no transpose to channels last and back
        weight = emitter.weight(node, (*layer.weight_shape, 1, 1), layer.in_channels)
        emitter.node("Conv", [*node.inputs, weight, *emitter.bias(node)], output, node.name, kernel_shape=[1, 1])
    elif rank == 2:
        weight = emitter.weight(node, layer.weight_shape, layer.in_channels)
        emitter.node("Gemm", [*node.inputs, weight, *emitter.bias(node)], output, node.name, transB=1)
    else:
        weight = emitter.weight(node, layer.weight_shape[::-1], layer.in_channels)
        product = f"{node.name}.product" if layer.bias else output
        emitter.node("MatMul", [*node.inputs, weight], product, node.name)
        if layer.bias:
            emitter.node("Add", [product, *emitter.bias(node)], output, f"{node.name}.add")


def _pool(op_type: str) -> Emit:
    def emit(emitter: _Emitter, node: Node, output: str) -> None:
        attributes = _window(node.layer)
        if op_type == "AveragePool" and attributes.pop("dilations") != [1, 1]:
            raise ModelError(f"{node.name}: ONNX opset {OPSET} has no average pooling with dilation")
        emitter.node(op_type, list(node.inputs), output, node.name, **attributes)

    return emit


def _global_pool(op_type: str, reduction: str) -> Emit:
    """To (n, 1, 1, c), or as `mean` over height and width to (n, c)."""

    def emit(emitter: _Emitter, node: Node, output: str) -> None:
        if len(node.layer.output) == 2:
            emitter.node(reduction, list(node.inputs), output, node.name, axes=[2, 3], keepdims=0)
        else:
            emitter.node(op_type, list(node.inputs), output, node.name)

    return emit


def _binary(op_type: str) -> Emit:
    def emit(emitter: _Emitter, node: Node, output: str) -> None:
        ranks = {len(shape) for shape in node.layer.inputs}
        if len(node.inputs) != 2 or len(ranks) != 1:
            raise ModelError(f"{node.name}: ONNX's {op_type} takes two inputs, here of the same rank, not {node.layer.inputs}")
        emitter.node(op_type, list(node.inputs), output, node.name)

    return emit


def _upsample(mode: str, coordinates: str) -> Emit:
    """Resize with the attributes PyTorch exports `interpolate` with (bilinear: align_corners=False)."""

    def emit(emitter: _Emitter, node: Node, output: str) -> None:
        sizes = emitter.constant(f"{node.name}.sizes", np.array(in_file(node.layer.output), dtype=np.int64))
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
        if mode == "nearest":
            attributes["nearest_mode"] = "floor"
        emitter.node("Resize", [*node.inputs, "", "", sizes], output, node.name, **attributes)

    return emit


def _over_channels(op_type: str) -> Emit:
    def emit(emitter: _Emitter, node: Node, output: str) -> None:
        axis = 1 if len(node.layer.output) == 4 else len(node.layer.output) - 1
        emitter.node(op_type, list(node.inputs), output, node.name, axis=axis)

    return emit


def _flatten(emitter: _Emitter, node: Node, output: str) -> None:
    emitter.node("Flatten", list(node.inputs), output, node.name, axis=1)


def _unary(emitter: _Emitter, node: Node, output: str) -> None:
    emitter.activation(node.layer.op, node.name, node.inputs[0], output)


def _window(layer: LayerSpec) -> dict[str, Any]:
    return {
        "kernel_shape": list(layer.kernel),
        "strides": list(layer.stride),
        "dilations": list(layer.dilation),
        "pads": list(layer.padding),
    }


Emit = Callable[[_Emitter, Node, str], None]
"""Adds a layer, without its activation, that ends in the tensor of the given name."""

_ACTIVATIONS: dict[str, tuple[str, dict[str, float], tuple[float, ...]]] = {
    "relu": ("Relu", {}, ()),
    "relu6": ("Clip", {}, (0.0, 6.0)),
    "hard_swish": ("HardSwish", {}, ()),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, ()),  # PyTorch's slope; ONNX's own default is 0.2
    "sigmoid": ("Sigmoid", {}, ()),
}

_EMIT: dict[str, Emit] = {
    "conv2d": _conv,
    "depthwise_conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "fully_connected": _fully_connected,
    "avg_pool2d": _pool("AveragePool"),
    "max_pool2d": _pool("MaxPool"),
    "global_avg_pool": _global_pool("GlobalAveragePool", "ReduceMean"),
    "global_max_pool": _global_pool("GlobalMaxPool", "ReduceMax"),
    "upsample_nearest": _upsample("nearest", "asymmetric"),
    "upsample_bilinear": _upsample("linear", "half_pixel"),
    "add": _binary("Add"),
    "mul": _binary("Mul"),
    "concat": _over_channels("Concat"),
    "softmax": _over_channels("Softmax"),
    "flatten": _flatten,
    **dict.fromkeys(_ACTIVATIONS, _unary),
}
