"""Describes nodes of ONNX Runtime that compute on 8-bit integers, as its optimiser leaves them.

Activations are uint8, which onnxruntime makes of a quantiser's int8 ones on x86. A layer of dtype `int8` has int8 weights or none,
one of dtype `uint8` has uint8 weights, whose kernels are other ones: convolutions took 1.4 to 1.6 times as long on an x86 processor
with AVX2 (onnxruntime 1.31.1, the shortest of 30 interleaved measurements). A scale for each channel or one for the whole tensor
makes no difference to a convolution there (0.96 to 1.03), but 1.5 in a QGemm, which is described only with a scale for each
channel. Nodes on int8 activations are not described.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from onnx import NodeProto, TensorProto, helper

from profiler.errors import LayerError
from profiler.formats.onnx.layers import (
    Description,
    Operation,
    channel_axis,
    describe,
    resize_kind,
    six_digits,
    window_of,
)
from profiler.formats.onnx.tensors import Tensors
from profiler.layers.layer import CHANNELS_LAST, USUAL_SLOPE, LayerSpec

_WEIGHT_TYPES: Mapping[int, str] = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}
_MOVES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "ReduceMax")
"""Operators that are the same for integers and floats."""


def describe_integers(node: NodeProto, tensors: Tensors, opset: int) -> Description | None:
    """The node as a layer that we would write as the same node; None if it is none, or computes on other types."""
    reads = tuple(name for name in node.input if name and name not in tensors.constants)
    made = [name for name in node.output if name]
    types = [tensors[name].element_type for name in (*reads, *made)]
    reader = _READERS.get(node.op_type)
    if TensorProto.UINT8 not in types or len(made) != 1:
        return None
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    try:
        if node.op_type in _MOVES:
            found = describe(node, tensors, opset)
            layer = replace(found.layer, dtype="int8") if found is not None else None
        else:
            layer = reader(Operation(node, tensors, opset, attributes)) if reader is not None else None
    except LayerError:
        return None
    converts = {"quantise": (TensorProto.FLOAT, TensorProto.UINT8), "dequantise": (TensorProto.UINT8, TensorProto.FLOAT)}
    if layer is None or len(reads) != len(layer.inputs):
        return None
    expected = converts.get(layer.op, (TensorProto.UINT8,) * len(types))
    return Description(layer, reads=reads) if tuple(types) == expected else None


def _layout(op: Operation, index: int = 0) -> str:
    """The layout of an operator whose kernel depends on it."""
    return CHANNELS_LAST if op.input(index) in op.tensors.channels_last else ""


def _conv(op: Operation) -> LayerSpec | None:
    weights = op.tensors[op.input(3)]
    if len(op.raw_shape(0)) != 4 or len(weights.shape) != 4 or weights.element_type not in _WEIGHT_TYPES:
        return None
    groups, channels = op.attribute("group", 1), op.shape(0)[-1]
    return LayerSpec(
        "depthwise_conv2d" if groups == channels > 1 else "conv2d", (op.shape(0),), op.output,
        **window_of(op, weights.shape[2:]), groups=groups, bias=bool(op.input(8)), dtype=_WEIGHT_TYPES[weights.element_type],
        layout=_layout(op),
    )  # fmt: skip


def _product(bias: int | None, op: Operation) -> LayerSpec | None:
    """A QGemm, or a QLinearMatMul, which has no bias."""
    weights = op.tensors[op.input(3)]
    over_channels = len(op.raw_shape(0)) >= 2 and op.shape(0) == op.raw_shape(0)
    if not over_channels or len(weights.shape) != 2 or weights.element_type not in _WEIGHT_TYPES:
        return None
    if op.attribute("transA", 0) or op.attribute("alpha", 1.0) != 1 or op.raw_shape(4) != (op.output[-1],):
        return None
    has_bias = bias is not None and bool(op.input(bias))
    dtype = _WEIGHT_TYPES[weights.element_type]
    return LayerSpec("fully_connected", (op.shape(0),), op.output, bias=has_bias, dtype=dtype)


def _pool(kind: str, op: Operation) -> LayerSpec | None:
    if len(op.raw_shape(0)) != 4:
        return None
    window = window_of(op, tuple(op.attribute("kernel_shape", ())))
    if kind == "avg_pool2d" and (window["dilation"] != (1, 1) or (any(window["padding"]) and op.attribute("count_include_pad", 0))):
        return None
    return LayerSpec(kind, (op.shape(0),), op.output, **window, dtype="int8", layout=_layout(op))


def _global_average(op: Operation) -> LayerSpec | None:
    return LayerSpec("global_avg_pool", (op.shape(0),), op.output, dtype="int8", layout=_layout(op))


def _binary(kind: str, op: Operation) -> LayerSpec | None:
    if len(op.raw_shape(0)) != len(op.raw_shape(3)):
        return None
    return LayerSpec(kind, (op.shape(0), op.shape(3)), op.output, dtype="int8")


def _concat(op: Operation) -> LayerSpec | None:
    if not channel_axis(op):
        return None
    shapes = tuple(op.shape(index) for index in range(2, len(op.node.input), 3))
    return LayerSpec("concat", shapes, op.output, dtype="int8", layout=_layout(op, 2))


def _softmax(op: Operation) -> LayerSpec | None:
    if not channel_axis(op) or op.attribute("opset", 13) < 13:
        return None
    return LayerSpec("softmax", (op.shape(0),), op.output, dtype="int8", layout=_layout(op))


def _resize(op: Operation) -> LayerSpec | None:
    kind = resize_kind(op)
    return None if kind is None else LayerSpec(kind, (op.shape(0),), op.output, dtype="int8", layout=_layout(op))


def _leaky_relu(op: Operation) -> LayerSpec | None:
    slope = six_digits(op.attribute("alpha", USUAL_SLOPE))
    return LayerSpec("leaky_relu", (op.shape(0),), op.output, slope=slope, dtype="int8")


def _transpose(op: Operation) -> LayerSpec | None:
    """A copy of an image into the channels-last layout, or back."""
    kind = {(0, 2, 3, 1): "reorder_input", (0, 3, 1, 2): "reorder_output"}.get(tuple(op.attribute("perm", ())))
    if kind is None or (op.input(0) in op.tensors.channels_last) != (kind == "reorder_output"):
        return None
    return LayerSpec(kind, (op.shape(0),), op.output, dtype="int8", layout=CHANNELS_LAST)


def _conversion(kind: str, op: Operation) -> LayerSpec | None:
    """A conversion with one scale for the whole tensor."""
    return LayerSpec(kind, (op.shape(0),), op.output, dtype="int8") if op.raw_shape(1) in ((), (1,)) else None


def _unary(kind: str, op: Operation) -> LayerSpec | None:
    return LayerSpec(kind, (op.shape(0),), op.output, dtype="int8")


_READERS: dict[str, Callable[[Operation], LayerSpec | None]] = {
    "QLinearConv": _conv,
    "QGemm": partial(_product, 6),
    "QLinearMatMul": partial(_product, None),
    "MaxPool": partial(_pool, "max_pool2d"),
    "NhwcMaxPool": partial(_pool, "max_pool2d"),
    "QLinearAveragePool": partial(_pool, "avg_pool2d"),
    "QLinearGlobalAveragePool": _global_average,
    "QLinearAdd": partial(_binary, "add"),
    "QLinearMul": partial(_binary, "mul"),
    "QLinearConcat": _concat,
    "QLinearSoftmax": _softmax,
    "QLinearSigmoid": partial(_unary, "sigmoid"),
    "QLinearLeakyRelu": _leaky_relu,
    "Resize": _resize,
    "Transpose": _transpose,
    "QuantizeLinear": partial(_conversion, "quantise"),
    "DequantizeLinear": partial(_conversion, "dequantise"),
}
