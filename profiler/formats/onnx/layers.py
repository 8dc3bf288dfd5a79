"""Describes a node of an optimised ONNX graph as a LayerSpec, if it is a kind of layer that we model.

There is a reader for each operator (https://onnx.ai/onnx/operators). It returns None if the operator is used in a way that no
LayerSpec describes. Its description is exact if we would write the same node for the LayerSpec. It is inexact if only the kind and
the shapes are right, and the node runs differently (quantised, with another activation, with weights that are computed at run
time).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from onnx import NodeProto, TensorProto, helper

from profiler.errors import LayerError
from profiler.formats.onnx.tensors import Tensors
from profiler.layers.layer import BINARY_OPS, CHANNELS_LAST, UNARY_OPS, USUAL_SLOPE, LayerSpec, Pair, Shape

_NO_LIMIT = 3e38  # exporters write the largest float for Clip's missing maximum


@dataclass(frozen=True, slots=True)
class Description:
    """A node as a layer."""

    layer: LayerSpec
    exact: bool = True
    """True if we would write the same node for this layer."""
    reads: tuple[str, ...] = ()
    """The tensors that it reads, without weights; a tensor that is read twice, as in x + x, is named twice."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A node with its attributes as Python values, and the tensors of its graph."""

    node: NodeProto
    tensors: Tensors
    opset: int
    attributes: dict[str, Any]

    def attribute(self, name: str, default: Any) -> Any:
        """The value of an attribute, with bytes decoded to text."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def input(self, index: int) -> str:
        """The name of an input tensor; '' if it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def raw_shape(self, index: int) -> Shape:
        """The shape of an input in the layout of the file."""
        return self.tensors[self.node.input[index]].shape

    def shape(self, index: int) -> Shape:
        """The shape of an input, channels last."""
        return self.tensors.shown(self.node.input[index])

    @property
    def output(self) -> Shape:
        """The shape of the first output, channels last."""
        return self.tensors.shown(self.node.output[0])

    def is_constant(self, index: int) -> bool:
        """True if the input does not depend on the inputs of the graph."""
        return self.input(index) in self.tensors.constants

    def number(self, index: int, name: str, default: float) -> float | None:
        """A number that newer opsets give as an optional input and older ones as an attribute; None if it is not constant."""
        if not self.input(index):
            return float(self.attribute(name, default))
        return float(self.tensors.array(self.input(index)).reshape(-1)[0]) if self.is_constant(index) else None


def describe(node: NodeProto, tensors: Tensors, opset: int) -> Description | None:
    """The node as a layer; None if it is no kind of layer that we model. `opset` is the version of the standard operators."""
    reader = _READERS.get(node.op_type)
    if node.op_type not in _ANY_LAYOUT and any(name in tensors.channels_last for name in (*node.input, *node.output)):
        return None  # its axes would be others
    if any(name in tensors.sequences for name in (*node.input, *node.output)):
        return None  # extracted, as we write no files of it
    if reader is None or node.domain not in ("", "ai.onnx", "com.microsoft") or sum(map(bool, node.output)) != 1:
        return None
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    try:
        found = reader(Operation(node, tensors, opset, attributes))
        if found is None:
            return None
        layer = replace(found.layer, dtype=tensors[node.input[0]].dtype)
    except LayerError:
        return None  # an attribute that we do not read, such as ceil_mode, gives it another output shape
    if layer.op in (*BINARY_OPS, *UNARY_OPS) and len(layer.output) > 4:
        return None  # which of its axes are channels is not known
    reads = tuple(name for name in node.input if name and name not in tensors.constants)
    types = {tensors[name].element_type for name in (*node.input, *node.output) if name in reads or name in node.output}
    # if it reads more tensors than the layer, then its weights, kernel or new shape are computed in the network
    exact = found.exact and types == {TensorProto.FLOAT} and len(reads) == len(layer.inputs)
    return Description(layer, exact, reads)


def _conv(op: Operation, weight: int = 1, bias: int = 2) -> Description | None:
    if len(op.raw_shape(0)) != 4 or len(op.raw_shape(weight)) != 4:
        return None
    groups = op.attribute("group", 1)
    channels = op.shape(0)[-1]
    activation, slope = fused_activation(op)
    kind = "depthwise_conv2d" if groups == channels > 1 else "conv2d"
    shortcut = (op.shape(3),) if op.node.op_type == "FusedConv" and op.input(3) else ()
    layer = LayerSpec(
        kind, (op.shape(0), *shortcut), op.output, **window_of(op, op.raw_shape(weight)[2:]),
        groups=groups, activation=activation or "none", slope=slope, bias=bool(op.input(bias)),
    )  # fmt: skip
    return Description(layer, exact=activation is not None)


def _conv_transpose(op: Operation) -> Description | None:
    if len(op.raw_shape(0)) != 4:
        return None
    kernel = op.raw_shape(1)[2:]  # (in, out / groups, k, k)
    window = window_of(op, kernel)
    auto_pad = op.attribute("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID") or "output_shape" in op.attributes:
        # the padding is what has to be cropped to give the output size in the file
        extras = _pair(op, "output_padding", 0)
        sizes = zip(op.shape(0)[1:3], op.output[1:3], kernel, window["stride"], window["dilation"], extras, strict=True)
        totals = [(size - 1) * s + extra + (k - 1) * d + 1 - out for size, out, k, s, d, extra in sizes]
        window["padding"] = _split(totals, more_at_end=auto_pad == "SAME_UPPER")
    layer = LayerSpec(
        "conv_transpose2d", (op.shape(0),), op.output, **window, groups=op.attribute("group", 1), bias=bool(op.input(2))
    )
    return Description(layer)


def _gemm(op: Operation, weight: int = 1, bias: int = 2) -> Description | None:
    if len(op.raw_shape(0)) != 2 or op.attribute("transA", 0):
        return None
    # a Gemm with factors, or with a bias that is broadcast, is not the one that we write
    plain = op.attribute("alpha", 1.0) == 1 and op.attribute("beta", 1.0) == 1
    full_bias = not op.input(bias) or math.prod(op.raw_shape(bias)) == op.output[-1]
    activation, slope = fused_activation(op)
    layer = LayerSpec(
        "fully_connected", (op.shape(0),), op.output, activation=activation or "none", slope=slope, bias=bool(op.input(bias)),
    )  # fmt: skip
    return Description(layer, exact=plain and full_bias and activation is not None)


def _matmul(op: Operation, weight: int = 1) -> Description | None:
    """A product with a constant matrix. Where the channels of an image are not last, it runs over the width: None."""
    over_channels = len(op.raw_shape(0)) >= 2 and op.shape(0) == op.raw_shape(0)
    if not over_channels or len(op.raw_shape(weight)) != 2 or not op.is_constant(weight):
        return None
    return Description(LayerSpec("fully_connected", (op.shape(0),), op.output, bias=False, dtype=op.tensors[op.input(0)].dtype))


def _pool(op: Operation) -> Description | None:
    if len(op.raw_shape(0)) != 4:
        return None
    kind = "avg_pool2d" if op.node.op_type == "AveragePool" else "max_pool2d"
    window = window_of(op, tuple(op.attribute("kernel_shape", ())))
    # an average with dilation, or over counted zeros, is not the one that we write
    if kind == "avg_pool2d" and (window["dilation"] != (1, 1) or (any(window["padding"]) and op.attribute("count_include_pad", 0))):
        return None
    return Description(LayerSpec(kind, (op.shape(0),), op.output, **window))


def _global_pool(kind: str, op: Operation) -> Description | None:
    if len(op.raw_shape(0)) != 4:
        return None
    return Description(LayerSpec(kind, (op.shape(0),), op.output))


def _reduce(kind: str, op: Operation) -> Description | None:
    """A mean or maximum over height and width, which is a global pool."""
    if op.input(1):
        axes = op.tensors.array(op.input(1)).tolist() if op.is_constant(1) else None
    else:
        axes = op.attribute("axes", None)
    return _global_pool(kind, op) if axes is not None and sorted(axis % 4 for axis in axes) == [2, 3] else None


def _binary(kind: str, op: Operation) -> Description | None:
    if len(op.raw_shape(0)) != len(op.raw_shape(1)) or op.is_constant(0) or op.is_constant(1):
        return None
    return Description(LayerSpec(kind, (op.shape(0), op.shape(1)), op.output))


def _concat(op: Operation) -> Description | None:
    count = len(op.node.input)
    if not channel_axis(op) or any(op.is_constant(index) for index in range(count)):
        return None
    return Description(LayerSpec("concat", tuple(op.shape(index) for index in range(count)), op.output))


def _softmax(op: Operation) -> Description | None:
    # before opset 13 it ran over all dimensions from the axis to the last
    if not channel_axis(op) or (op.opset < 13 and len(op.output) != 2):
        return None
    return Description(LayerSpec("softmax", (op.shape(0),), op.output))


def channel_axis(op: Operation) -> bool:
    """True if the axis of the operator is the channel axis."""
    rank = len(op.output)
    axis = op.attribute("axis", -1 if op.opset >= 13 else 1)
    first = rank == 4 and op.node.output[0] not in op.tensors.channels_last
    return rank > 1 and bool(axis % rank == (1 if first else rank - 1))


def _resize(op: Operation) -> Description | None:
    kind, layout = resize_kind(op), CHANNELS_LAST if op.input(0) in op.tensors.channels_last else ""
    return None if kind is None else Description(LayerSpec(kind, (op.shape(0),), op.output, layout=layout))


def resize_kind(op: Operation) -> str | None:
    """The kind of a resize as PyTorch exports `interpolate`, nearest or bilinear; None for others.

    Opset 10 and Upsample know only PyTorch's kind of nearest.
    """
    old = op.opset < 11
    mode = op.attribute("mode", "nearest")
    coordinates = op.attribute("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = op.attribute("nearest_mode", "floor" if old else "round_prefer_floor")
    if mode == "nearest" and (coordinates, rounding) == ("asymmetric", "floor"):
        return "upsample_nearest"
    if mode == "linear" and coordinates in ("half_pixel", "pytorch_half_pixel") and not op.attribute("antialias", 0):
        return "upsample_bilinear"
    return None


def _flatten(op: Operation) -> Description | None:
    """A flatten, reshape or squeeze to (n, values) or to (n, 1, 1, values); one that changes nothing is no layer."""
    changes = len(op.raw_shape(0)) > 2 or len(op.output) == 4
    return Description(LayerSpec("flatten", (op.shape(0),), op.output)) if changes else None


def _clip(op: Operation) -> Description | None:
    kind = _clip_kind(op.number(1, "min", -math.inf), op.number(2, "max", math.inf))
    return _unary(kind, op) if kind else None


def _unary(kind: str, op: Operation) -> Description | None:
    return Description(LayerSpec(kind, (op.shape(0),), op.output))


def _leaky_relu(op: Operation) -> Description | None:
    slope = six_digits(op.attribute("alpha", USUAL_SLOPE))
    return Description(LayerSpec("leaky_relu", (op.shape(0),), op.output, slope=slope))


def _elu(op: Operation) -> Description | None:
    return _unary("elu", op) if op.attribute("alpha", 1.0) == 1 else None


def _gelu(op: Operation) -> Description | None:
    return _unary("gelu", op) if op.attribute("approximate", "none") == "none" else None


def _quick_gelu(op: Operation) -> Description | None:
    """x * sigmoid(alpha * x), which is SiLU for an alpha of 1."""
    return _unary("silu", op) if op.attribute("alpha", 1.702) == 1 else None


def _clip_kind(low: float | None, high: float | None) -> str | None:
    """The activation that clips to this range; None if it is not one that we model."""
    if low != 0 or high is None:
        return None
    if high == 6:
        return "relu6"
    return "relu" if high > _NO_LIMIT else None


def fused_activation(op: Operation) -> tuple[str | None, float]:
    """The activation that onnxruntime fused in, or `none`, and its slope; None if it is not one that we model."""
    name = op.attribute("activation", "")
    if name == "Clip":
        return _clip_kind(*op.attribute("activation_params", [None, None])), USUAL_SLOPE
    if name == "LeakyRelu":  # a FusedConv has its slope in a list, a FusedGemm in an attribute
        (slope,) = op.attribute("activation_params", [op.attribute("activation_alpha", USUAL_SLOPE)])
        return "leaky_relu", six_digits(slope)
    if name == "Elu":
        return ("elu" if op.attribute("activation_alpha", 1.0) == 1 else None), USUAL_SLOPE
    return _FUSED_ACTIVATIONS.get(name), USUAL_SLOPE


def six_digits(number: float) -> float:
    """The number without what float32 adds to it: 0.1 instead of 0.10000000149."""
    return float(f"{number:.6g}")


def window_of(op: Operation, kernel: Shape) -> dict[str, Any]:
    """Kernel, stride, dilation and padding as fields of a LayerSpec; `auto_pad` follows the ONNX specification."""
    if len(kernel) != 2:
        raise LayerError(f"{op.node.op_type}: the kernel has {len(kernel)} dimensions; only two are supported")
    stride = _pair(op, "strides")
    dilation = _pair(op, "dilations")
    pads = tuple(op.attribute("pads", (0, 0, 0, 0)))
    auto_pad = op.attribute("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        pads = (0, 0, 0, 0)
    elif auto_pad != "NOTSET":
        sizes = zip(op.shape(0)[1:3], kernel, stride, dilation, strict=True)
        totals = [max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0) for size, k, s, d in sizes]
        pads = _split(totals, more_at_end=auto_pad == "SAME_UPPER")
    if len(pads) != 4:
        raise LayerError(f"{op.node.op_type}: padding must have four numbers, got {pads}")
    return {"kernel": tuple(kernel), "stride": stride, "dilation": dilation, "padding": pads}


def _split(totals: list[int], *, more_at_end: bool) -> tuple[int, ...]:
    """The total padding of height and width as (top, left, bottom, right); one side receives the odd pixel."""
    less = [total // 2 for total in totals]
    more = [total - total // 2 for total in totals]
    return (*less, *more) if more_at_end else (*more, *less)


def _pair(op: Operation, name: str, default: int = 1) -> Pair:
    """An attribute with two numbers; the default in both places if it has another length."""
    values = op.attribute(name, ())
    return (int(values[0]), int(values[1])) if len(values) == 2 else (default, default)


def _inexact(reader: Reader) -> Reader:
    """A reader with the descriptions of `reader`, all of them inexact."""

    def read(op: Operation) -> Description | None:
        found = reader(op)
        return Description(found.layer, exact=False) if found else None

    return read


_ANY_LAYOUT = (
    "Add", "Mul", "Concat", "Softmax", "Clip", "Relu", "HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu", "QuickGelu", "Gelu",
    "Elu", "Softplus", "Tanh", "MatMul", "Resize", "QLinearConv",
)  # fmt: skip
"""The operators whose description holds wherever the channels are in the file."""

Reader = Callable[[Operation], Description | None]

_FUSED_ACTIVATIONS = {
    "": "none", "Relu": "relu", "HardSwish": "hard_swish", "HardSigmoid": "hard_sigmoid", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Softplus": "softplus",
}  # fmt: skip

_READERS: dict[str, Reader] = {
    "Conv": _conv,
    "FusedConv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "MatMul": _matmul,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "GlobalAveragePool": partial(_global_pool, "global_avg_pool"),
    "GlobalMaxPool": partial(_global_pool, "global_max_pool"),
    "ReduceMean": partial(_reduce, "global_avg_pool"),
    "ReduceMax": partial(_reduce, "global_max_pool"),
    "Add": partial(_binary, "add"),
    "Mul": partial(_binary, "mul"),
    "Concat": _concat,
    "Softmax": _softmax,
    "Resize": _resize,
    "Upsample": _resize,
    "Flatten": _flatten,
    "Reshape": _flatten,
    "Squeeze": _flatten,
    "Unsqueeze": _flatten,
    "Clip": _clip,
    "Relu": partial(_unary, "relu"),
    "HardSwish": partial(_unary, "hard_swish"),
    "HardSigmoid": partial(_unary, "hard_sigmoid"),
    "Sigmoid": partial(_unary, "sigmoid"),
    "LeakyRelu": _leaky_relu,
    "QuickGelu": _quick_gelu,
    "Gelu": _gelu,
    "Elu": _elu,
    "Softplus": partial(_unary, "softplus"),
    "Tanh": partial(_unary, "tanh"),
    # quantised layers are measured unchanged, but their kind and shapes determine their multiply-accumulate operations
    "QLinearConv": _inexact(partial(_conv, weight=3, bias=8)),
    "ConvInteger": _inexact(partial(_conv, weight=1, bias=4)),
    "QGemm": _inexact(partial(_gemm, weight=3, bias=6)),
    "QLinearMatMul": _inexact(partial(_matmul, weight=3)),
    "MatMulInteger": _inexact(_matmul),
    "MatMulIntegerToFloat": _inexact(_matmul),
    "DynamicQuantizeMatMul": _inexact(_matmul),
}
