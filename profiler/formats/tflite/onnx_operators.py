"""Writes operators of ONNX files that have no model of ours (profiler.formats.onnx.opaque) as TFLite's own, which compute the same.

Tensors keep the axes of the ONNX file, in whatever order they are stored (profiler.formats.tflite.ordered), so that a Transpose of
the file often costs nothing, as with converters.

Sources: the operators of ONNX (https://onnx.ai/onnx/operators) and of TFLite (tensorflow/lite/kernels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.errors import ModelError
from profiler.formats.onnx.tensors import has_subgraph, open_session, opset_of
from profiler.formats.tflite.einsum import einsum
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.ordered import CHANNELS_LAST, Array, NotInTflite, Operand, Steps, Stored, stored_shape
from profiler.formats.tflite.schema import FLOAT32
from profiler.layers.layer import Shape

_TYPES: dict[int, int] = {
    TensorProto.FLOAT: FLOAT32, TensorProto.BOOL: schema.TensorType.BOOL,
    # TFLite's kernels take whole numbers of 32 bits everywhere, and of 64 only here and there
    TensorProto.INT32: schema.TensorType.INT32, TensorProto.INT64: schema.TensorType.INT32,
}  # fmt: skip
_READ_IN_THE_FILES_ORDER = ("MatMul", "FusedMatMul", "Gemm", "Softmax", "LogSoftmax")
"""Operators on the last axes, whose four dimensions are those of no image: alone, they read them as in the file."""


def reads_in_the_files_order(model: ModelProto) -> bool:
    """True if the extracted operator, alone, is fed with tensors as they are in its file."""
    return model.graph.node[0].op_type in _READ_IN_THE_FILES_ORDER


def shape_in_file(value: ValueInfoProto) -> Shape:
    """The shape of an input or output of an extracted operator."""
    return tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)


def type_of(value: ValueInfoProto) -> int:
    """The TFLite type of an input or output of an extracted operator; that of floats where there is none."""
    return _TYPES.get(value.type.tensor_type.elem_type, FLOAT32)


def emit_operator(emitter: Emitter, name: str, model: ModelProto, inputs: Sequence[Stored]) -> list[Stored]:
    """Add the operator of an extracted file (profiler.formats.onnx.opaque) and return what it makes.

    `inputs` are what it reads, without constants. Raises `ModelError` if TFLite has no form of it.
    """
    (node,) = model.graph.node
    emit = _OPERATORS.get(node.op_type)
    shapes = [size.dim_value for value in model.graph.output for size in value.type.tensor_type.shape.dim]
    types = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    if emit is None or has_subgraph(node) or not types <= _TYPES.keys() or 0 in shapes:
        raise ModelError(f"{node.op_type} has no form of ours in TFLite, so build for a runtime of ONNX files")
    operator = _Operator(emitter, name, model, inputs)
    try:
        made = emit(operator)
    except NotInTflite as exc:
        raise ModelError(
            f"{node.op_type} {exc}, which has no form of ours in TFLite, so build for a runtime of ONNX files"
        ) from exc
    if not isinstance(made, list):
        made = [made]
    for tensor, value in zip(made, model.graph.output, strict=True):
        shape = shape_in_file(value)
        if tensor.shape != shape:
            raise ModelError(f"{name} ({node.op_type}) makes {tensor.shape} in TFLite and {shape} in its file; report this")
    return made


class _Operator(Steps):
    """An operator of an ONNX file that is being written."""

    def __init__(self, emitter: Emitter, name: str, model: ModelProto, inputs: Sequence[Stored]) -> None:
        super().__init__(emitter, name, _TYPES[model.graph.output[0].type.tensor_type.elem_type])
        self.model = model
        (self.node,) = model.graph.node
        self.kind = self.node.op_type
        self.attributes = {item.name: helper.get_attribute_value(item) for item in self.node.attribute}
        self.opset = opset_of(model)
        self.output_shape = shape_in_file(model.graph.output[0])
        constants = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
        computed = dict(zip((value.name for value in model.graph.input), inputs, strict=True))
        self.operands: list[Stored | Array | None] = [
            (computed.get(source, constants.get(source)) if source else None) for source in self.node.input
        ]

    def computed(self, index: int = 0) -> Stored:
        found = self.operand(index)
        if not isinstance(found, Stored):
            raise NotInTflite(f"has a constant as its input {index + 1}")
        return found

    def operand(self, index: int) -> Stored | Array:
        found = self.operands[index] if index < len(self.operands) else None
        if found is None:
            raise NotInTflite(f"has no input {index + 1}")
        return found

    def constant(self, index: int, attribute: str | None = None) -> Array | None:
        """A constant input, or the attribute that it was in older versions; None if it is left out."""
        found = self.operands[index] if index < len(self.operands) else None
        if isinstance(found, Stored):
            raise NotInTflite(f"computes its input {index + 1}")
        if found is None and attribute in self.attributes:
            return np.array(self.attributes[attribute])
        return found

    def attribute(self, name: str, default: Any) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def _unary(name: str, options: Callable[[], Any] | None = None) -> _Emit:
    return lambda op: op.unary(name, op.computed(), options() if options else None)


def _binary(name: str, element_type: int | None = None) -> _Emit:
    """An operator of two inputs, or of more that are taken one after the other."""

    def emit(op: _Operator) -> Stored:
        total: Operand = op.operand(0)
        for index in range(1, len(op.operands)):
            total = op.binary(name, total, op.operand(index), element_type)
        return total if isinstance(total, Stored) else op.computed()

    return emit


def _composed(function: Callable[[_Operator, Stored], Stored]) -> _Emit:
    return lambda op: function(op, op.computed())


def _clip(op: _Operator) -> Stored:
    x, limits = op.computed(), []
    for index, name, missing in ((1, "min", -math.inf), (2, "max", math.inf)):
        found = op.constant(index, name)
        limits.append(missing if found is None or abs(float(found.reshape(()))) > 3e38 else float(found.reshape(())))
    low, high = limits
    names: dict[tuple[float, float], str] = {
        (0, math.inf): "RELU", (0, 6): "RELU6", (0, 1): "RELU_0_TO_1", (-1, 1): "RELU_N1_TO_1",
    }  # fmt: skip
    whole = names.get((low, high))
    if whole is not None:
        return op.unary(whole, x)
    if low > -math.inf:
        x = op.binary("MAXIMUM", x, low)
    return op.binary("MINIMUM", x, high) if high < math.inf else x


def _hard_sigmoid(op: _Operator, x: Stored) -> Stored:
    scaled = op.binary("MUL", x, op.attribute("alpha", 0.2))
    return op.unary("RELU_0_TO_1", op.binary("ADD", scaled, op.attribute("beta", 0.5)))


def _elu(op: _Operator, x: Stored) -> Stored:
    """max(x, 0) + min(0, alpha * (exp(x) - 1)), for SELU times gamma, and for CELU of x / alpha below the exponent."""
    alpha = op.attribute("alpha", 1.67326319217681884765625 if op.kind == "Selu" else 1.0)
    negative = op.binary("MINIMUM", x, 0)
    if op.kind == "Celu":
        negative = op.binary("MUL", negative, 1 / alpha)
    negative = op.binary("MUL", op.binary("SUB", op.unary("EXP", negative, schema.ExpOptionsT()), 1), alpha)
    total = op.binary("ADD", op.unary("RELU", x), negative)
    if op.kind != "Selu":
        return total
    return op.binary("MUL", total, op.attribute("gamma", 1.05070102214813232421875))


def _prelu(op: _Operator) -> Stored:
    x, slope = op.computed(), op.operand(1)
    if isinstance(slope, Stored):
        positive, negative = op.unary("RELU", x), op.binary("MINIMUM", x, 0)
        return op.binary("ADD", positive, op.binary("MUL", slope, negative))
    # its slopes have no axis for the batch
    full = slope.reshape((1,) * (len(x.shape) - slope.ndim) + slope.shape).transpose(x.order)
    if full.shape[0] != 1:
        raise NotInTflite("has slopes for each image")
    return op.add("PRELU", [x.number, op.store(full[0])], x.shape, x.order)


def _softplus(op: _Operator, x: Stored) -> Stored:
    power = op.unary("EXP", x, schema.ExpOptionsT())
    return op.unary("LOG", op.binary("ADD", power, 1))


def _mish(op: _Operator, x: Stored) -> Stored:
    return op.binary("MUL", x, op.unary("TANH", _softplus(op, x)))


def _softsign(op: _Operator, x: Stored) -> Stored:
    return op.binary("DIV", x, op.binary("ADD", op.unary("ABS", x, schema.AbsOptionsT()), 1))


def _gelu(op: _Operator, x: Stored) -> Stored:
    if op.kind in ("BiasGelu", "FastGelu") and len(op.operands) > 1 and op.operands[1] is not None:
        x = op.binary("ADD", x, op.operand(1))
    is_approximate = op.kind == "FastGelu" or op.attribute("approximate", "none") == "tanh"
    return op.unary("GELU", x, schema.GeluOptionsT(approximate=is_approximate))


def _quick_gelu(op: _Operator, x: Stored) -> Stored:
    return op.binary("MUL", x, op.unary("LOGISTIC", op.binary("MUL", x, op.attribute("alpha", 1.702))))


def _pow(op: _Operator) -> Stored:
    x, power = op.operand(0), op.operand(1)
    if isinstance(x, Stored) and isinstance(power, np.ndarray) and power.size == 1:
        exponent = float(power.reshape(()))
        if exponent == 2:
            return op.unary("SQUARE", x, schema.SquareOptionsT())
        if exponent == 0.5:
            return op.unary("SQRT", x)
    return op.binary("POW", x, power if isinstance(power, Stored) else power.astype(np.float32))


def _mean_of_inputs(op: _Operator) -> Stored:
    total = _binary("ADD")(op)
    assert isinstance(total, Stored)
    return op.binary("MUL", total, 1 / len(op.operands))


def _softmax(name: str, options: Callable[[], Any]) -> _Emit:
    def emit(op: _Operator) -> Stored:
        x = op.computed()
        axis = op.attribute("axis", -1 if op.opset >= 13 else 1) % len(x.shape)
        if op.opset < 13 and axis != len(x.shape) - 1:
            raise NotInTflite("runs over several axes")
        x = op.ordered(x, (*(item for item in x.order if item != axis), axis))
        return op.unary(name, x, options())

    return emit


def _reduce(op: _Operator) -> Stored:
    x, found = op.computed(), op.constant(1, "axes")
    if (found is None or not found.size) and op.attribute("noop_with_empty_axes", 0):
        return x
    axes = range(len(x.shape)) if found is None or not found.size else found.reshape(-1).tolist()
    keep = bool(op.attribute("keepdims", 1))
    if op.kind in ("ReduceL2", "ReduceSumSquare"):
        total = op.reduced("SUM", op.unary("SQUARE", x, schema.SquareOptionsT()), axes, keep)
        return op.unary("SQRT", total) if op.kind == "ReduceL2" else total
    if op.kind == "ReduceL1":
        return op.reduced("SUM", op.unary("ABS", x, schema.AbsOptionsT()), axes, keep)
    if op.kind == "ReduceLogSumExp":
        return op.unary("LOG", op.reduced("SUM", op.unary("EXP", x, schema.ExpOptionsT()), axes, keep))
    return op.reduced(_REDUCTIONS[op.kind], x, axes, keep)


def _global_pool(op: _Operator) -> Stored:
    x = op.computed()
    return op.reduced("MEAN" if op.kind == "GlobalAveragePool" else "REDUCE_MAX", x, range(2, len(x.shape)))


def _normalised(op: _Operator, x: Stored, axes: Sequence[int]) -> Stored:
    """(x - mean) / sqrt(variance + epsilon), with the statistics over these axes."""
    centred = op.binary("SUB", x, op.reduced("MEAN", x, axes))
    variance = op.reduced("MEAN", op.unary("SQUARE", centred, schema.SquareOptionsT()), axes)
    spread = op.unary("RSQRT", op.binary("ADD", variance, op.attribute("epsilon", 1e-5)))
    return op.binary("MUL", centred, spread)


def _scaled(op: _Operator, x: Stored, first: int, of_channels: bool) -> Stored:
    """Times the input `first`, plus the one behind it if there is one; of the channels, or of the last axes."""
    for name, index in (("MUL", first), ("ADD", first + 1)):
        if index < len(op.operands) and op.operands[index] is not None:
            operand = op.operand(index)
            if of_channels:
                shape = (1, x.shape[1], *(1 for _ in x.shape[2:]))
                operand = op.reshaped(operand, shape) if isinstance(operand, Stored) else operand.reshape(shape)
            x = op.binary(name, x, operand)
    return x


def _layer_normalisation(op: _Operator) -> Stored:
    x, first = op.computed(), 1
    if op.kind == "SkipLayerNormalization":  # reads a shortcut, scale, shift and bias
        x, first = op.binary("ADD", x, op.operand(1)), 2
        if len(op.operands) > 4 and op.operands[4] is not None:
            x = op.binary("ADD", x, op.operand(4))
        op.operands = op.operands[:4]
    axis = op.attribute("axis", -1) % len(x.shape)
    return _scaled(op, _normalised(op, x, range(axis, len(x.shape))), first, of_channels=False)


def _instance_normalisation(op: _Operator) -> Stored:
    x = op.computed()
    return _scaled(op, _normalised(op, x, range(2, len(x.shape))), 1, of_channels=True)


def _group_normalisation(op: _Operator) -> Stored:
    x, groups = op.computed(), op.attribute("num_groups", 1)
    if op.opset < 21 and op.operand(1).shape != (x.shape[1],):
        raise NotInTflite("has a scale for each group")
    within = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    normalised = _normalised(op, op.reshaped(x, within), range(2, len(within)))
    return _scaled(op, op.reshaped(normalised, x.shape), 1, of_channels=True)


def _batch_normalisation(op: _Operator) -> Stored:
    x, found = op.computed(), [op.constant(index) for index in range(1, 5)]
    scale, bias, mean, variance = (item for item in found if item is not None)
    factor = scale / np.sqrt(variance + op.attribute("epsilon", 1e-5))
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return op.binary("ADD", op.binary("MUL", x, factor.reshape(shape)), (bias - mean * factor).reshape(shape))


def _lp_normalisation(op: _Operator, x: Stored) -> Stored:
    if op.attribute("p", 2) != 2:
        raise NotInTflite("has another norm than that of squares")
    total = op.reduced("SUM", op.unary("SQUARE", x, schema.SquareOptionsT()), [op.attribute("axis", -1)])
    return op.binary("MUL", x, op.unary("RSQRT", total))


def _concat(op: _Operator) -> Stored:
    shape, rank = op.output_shape, len(op.output_shape)
    axis = op.attribute("axis", 0) % rank
    order = next((item.order for item in op.operands if isinstance(item, Stored)), tuple(range(rank)))
    numbers = [
        op.ordered(item, order).number if isinstance(item, Stored) else op.store(item.transpose(order))
        for item in map(op.operand, range(len(op.operands)))
    ]
    return op.add("CONCATENATION", numbers, shape, order, schema.ConcatenationOptionsT(axis=order.index(axis)))


def _split(op: _Operator) -> list[Stored]:
    x = op.computed()
    axis = op.attribute("axis", 0) % len(x.shape)
    sizes = op.constant(1, "split")
    each = -(-x.shape[axis] // len(op.node.output))
    parts = [min(each, x.shape[axis] - at) for at in range(0, x.shape[axis], each)] if sizes is None else sizes.tolist()
    made, start = [], 0
    for name, size in zip(op.node.output, parts, strict=True):
        if name:
            made.append(op.sliced(x, [range(start, start + size) if at == axis else range(n) for at, n in enumerate(x.shape)]))
        start += size
    return made


def _slice(op: _Operator) -> Stored:
    x = op.computed()
    starts, ends, axes, steps = (op.constant(place + 1, name) for place, name in enumerate(("starts", "ends", "axes", "steps")))
    if starts is None or ends is None:
        raise NotInTflite("has no limits")
    ranges = list(map(range, x.shape))
    chosen = range(len(starts)) if axes is None else axes.tolist()
    for at, axis in enumerate(chosen):
        step = 1 if steps is None else int(steps[at])
        ranges[axis % len(x.shape)] = ranges[axis % len(x.shape)][int(starts[at]) : int(ends[at]) : step]
    if not all(ranges):
        raise NotInTflite("takes nothing of an axis")
    for axis, item in enumerate(ranges):
        if item.step < 0:
            x = op.picked(x, axis, np.array(item))
            ranges[axis] = range(len(item))
    return op.sliced(x, ranges)


def _pad(op: _Operator) -> Stored:
    x, found, value = op.computed(), op.constant(1, "pads"), op.constant(2, "value")
    axes, mode = op.constant(3), op.attribute("mode", "constant")
    if found is None or (found < 0).any():
        raise NotInTflite("has negative pads")
    chosen = [axis % len(x.shape) for axis in (range(len(x.shape)) if axes is None else axes.tolist())]
    by_axis = dict(zip(chosen, zip(found[: len(chosen)].tolist(), found[len(chosen) :].tolist(), strict=True), strict=True))
    pads = [by_axis.get(axis, (0, 0)) for axis in range(len(x.shape))]
    if mode in ("edge", "wrap"):
        for axis, both in enumerate(pads):
            if any(both):
                x = op.picked(x, axis, np.pad(np.arange(x.shape[axis]), both, mode=mode))
        return x
    return op.padded(x, pads, 0 if value is None else float(value.reshape(())), mode)


def _gather(op: _Operator) -> Stored:
    table = op.operand(0)
    if not isinstance(table, Stored):
        return _looked_up(op, table)
    x, indices = op.computed(), op.constant(1)
    axis = op.attribute("axis", 0) % len(x.shape)
    if indices is None or indices.ndim > 1:
        raise NotInTflite("takes a table of indices")
    indices = indices % x.shape[axis]
    if indices.ndim == 1:
        return op.picked(x, axis, indices)
    one = op.sliced(x, [range(int(indices), int(indices) + 1) if at == axis else range(n) for at, n in enumerate(x.shape)])
    return op.reshaped(one, op.output_shape)


def _looked_up(op: _Operator, table: Array) -> Stored:
    """The rows of a constant at computed places, as an embedding has them; one without columns has rows of one number."""
    if op.attribute("axis", 0) != 0 or table.ndim > 2:
        raise NotInTflite("takes other parts of a constant than its rows")
    places = op.computed(1)
    count = math.prod(places.shape)
    rows = table.reshape(len(table), -1)
    found = op.add("EMBEDDING_LOOKUP", [op.reshaped(places, (count,)).number, op.store(rows)], (count, rows.shape[1]), (0, 1))
    return op.reshaped(found, op.output_shape)


def _transpose(op: _Operator) -> Stored:
    x = op.computed()
    return op.transposed(x, op.attribute("perm", tuple(reversed(range(len(x.shape))))))


def _expand(op: _Operator) -> Stored:
    x, rank = op.computed(), len(op.output_shape)
    x = op.reshaped(x, (1,) * (rank - len(x.shape)) + x.shape)
    size = op.store(stored_shape(op.output_shape, x.order))
    return op.add("BROADCAST_TO", [x.number, size], op.output_shape, x.order, schema.BroadcastToOptionsT(), 2)


def _tile(op: _Operator) -> Stored:
    x, repeats = op.computed(), op.constant(1)
    if repeats is None:
        raise NotInTflite("has no repeats")
    times = op.store([int(repeats[axis]) for axis in x.order])
    return op.add("TILE", [x.number, times], op.output_shape, x.order, schema.TileOptionsT())


def _depth_to_space(op: _Operator, x: Stored) -> Stored:
    (n, c, h, w), b = x.shape, op.attribute("blocksize", 1)
    c //= b * b
    if op.attribute("mode", "DCR") == "CRD":  # torch's pixel shuffle
        parts = op.transposed(op.reshaped(x, (n, c, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    else:
        parts = op.transposed(op.reshaped(x, (n, b, b, c, h, w)), (0, 3, 4, 1, 5, 2))
    return op.reshaped(parts, (n, c, h * b, w * b))


def _space_to_depth(op: _Operator, x: Stored) -> Stored:
    (n, c, h, w), b = x.shape, op.attribute("blocksize", 1)
    parts = op.transposed(op.reshaped(x, (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return op.reshaped(parts, (n, c * b * b, h // b, w // b))


def _matmul(op: _Operator) -> Stored:
    """MatMul, FusedMatMul with its factor and transposed matrices, and Gemm with an addition."""
    operands: list[Stored | Array] = []
    for index, which in enumerate("AB"):
        operand, rank = op.operand(index), len(op.operand(index).shape)
        perms = {f"transBatch{which}": (*range(1, rank - 1), 0, rank - 1), f"trans{which}": (*range(rank - 2), rank - 1, rank - 2)}
        for attribute, perm in perms.items():
            if op.attribute(attribute, 0):
                operand = op.transposed(operand, perm) if isinstance(operand, Stored) else operand.transpose(perm)
        operands.append(operand)
    product = op.multiplied(*operands)
    if (factor := op.attribute("alpha", 1.0)) != 1:
        product = op.binary("MUL", product, factor)
    if len(op.operands) < 3 or op.operands[2] is None:
        return product
    added: Operand = op.operand(2)
    if (factor := op.attribute("beta", 1.0)) != 1:
        added = op.binary("MUL", added, factor) if isinstance(added, Stored) else np.asarray(added) * factor
    return op.binary("ADD", product, added)


def _window(op: _Operator, rank: int, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    """Kernel, strides and dilations of two axes, and the padding of four, for a sequence or an image."""
    if op.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotInTflite("pads by itself")
    two = 4 - rank  # a sequence is an image of one row
    lists = [list(kernel), *(op.attribute(name, [1] * len(kernel)) for name in ("strides", "dilations"))]
    kernel, strides, dilations = ([1] * two + list(item) for item in lists)
    pads = op.attribute("pads", [0] * 2 * (rank - 2))
    both = [(0, 0)] * two + list(zip(pads[: rank - 2], pads[rank - 2 :], strict=True))
    return list(kernel), list(strides), list(dilations), [(0, 0), (0, 0), *both]


def _conv(op: _Operator) -> Stored:
    """A convolution of a sequence, or of an image where it is no layer of ours."""
    x, weights, bias = op.computed(), op.constant(1), op.constant(2)
    rank = len(x.shape)
    if weights is None or rank not in (3, 4):
        raise NotInTflite(f"reads {rank} dimensions")
    weights = weights.reshape(*weights.shape[:2], 1, -1) if rank == 3 else weights  # (out, in / groups, kh, kw)
    kernel, strides, dilations, pads = _window(op, rank, weights.shape[4 - rank + 2 :] if rank == 3 else weights.shape[2:])
    groups, out = op.attribute("group", 1), weights.shape[0]
    image = op.padded(op.as_image(x), pads)
    n, channels, height, width = image.shape
    sizes = [(size - (k - 1) * d - 1) // s + 1 for size, k, s, d in zip((height, width), kernel, strides, dilations, strict=True)]
    common = {
        "padding": schema.Padding.VALID, "strideH": strides[0], "strideW": strides[1],
        "dilationHFactor": dilations[0], "dilationWFactor": dilations[1],
    }  # fmt: skip
    zeros = op.store(np.zeros(out, np.float32) if bias is None else bias)
    if groups == channels > 1:
        inputs = [image.number, op.store(np.ascontiguousarray(weights.transpose(1, 2, 3, 0))), zeros]
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=out // channels, **common)
        made = op.add("DEPTHWISE_CONV_2D", inputs, (n, out, *sizes), CHANNELS_LAST, options, 2)
    else:
        inputs = [image.number, op.store(np.ascontiguousarray(weights.transpose(0, 2, 3, 1))), zeros]
        options = schema.Conv2DOptionsT(**common)
        made = op.add("CONV_2D", inputs, (n, out, *sizes), CHANNELS_LAST, options, 6 if groups > 1 else 1)
    return op.reshaped(made, op.output_shape)


def _conv_transpose(op: _Operator) -> Stored:
    """A transposed convolution of a sequence, or of an image where it is no layer of ours: computed in full, then cropped."""
    x, weights, bias = op.computed(), op.constant(1), op.constant(2)
    rank = len(x.shape)
    if weights is None or rank not in (3, 4) or op.attribute("group", 1) > 1:
        raise NotInTflite("has groups" if rank in (3, 4) else f"reads {rank} dimensions")
    kernel, strides, dilations, pads = _window(op, rank, weights.shape[2:])
    weights = weights.reshape(*weights.shape[:2], *kernel)  # (in, out, kh, kw)
    image = op.as_image(x)
    whole = [(size - 1) * s + k for size, s, k in zip(image.shape[2:], strides, kernel, strict=True)]
    sizes = [1, *op.output_shape[2:]][-2:]
    ranges = [range(before, before + size) for (before, _), size in zip(pads[2:], sizes, strict=True)]
    if set(dilations) != {1} or any(taken.stop > size for taken, size in zip(ranges, whole, strict=True)):
        raise NotInTflite("has dilation, or pads its output")
    shape = (image.shape[0], weights.shape[1], *whole)
    options = schema.TransposeConvOptionsT(padding=schema.Padding.VALID, strideH=strides[0], strideW=strides[1])
    inputs = [op.store(stored_shape(shape, CHANNELS_LAST)), op.store(np.ascontiguousarray(weights.transpose(1, 2, 3, 0)))]
    inputs += [image.number, *([] if bias is None else [op.store(bias)])]
    made = op.add("TRANSPOSE_CONV", inputs, shape, CHANNELS_LAST, options, 1 if bias is None else 3)
    return op.reshaped(op.sliced(made, [range(shape[0]), range(shape[1]), *ranges]), op.output_shape)


def _fused_conv(op: _Operator) -> Stored:
    """onnxruntime's convolution that adds a shortcut, its fourth input, and applies an activation."""
    made, name, numbers = _conv(op), op.attribute("activation", ""), op.attribute("activation_params", [])
    if len(op.operands) > 3 and op.operands[3] is not None:
        made = op.binary("ADD", made, op.operand(3))
    if name == "LeakyRelu":
        return op.unary("LEAKY_RELU", made, schema.LeakyReluOptionsT(alpha=numbers[0]))
    if name == "Clip":
        return op.binary("MINIMUM", op.binary("MAXIMUM", made, numbers[0]), numbers[1])
    activations = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}
    if name and name not in activations:
        raise NotInTflite(f"applies {name}")
    return op.unary(activations[name], made) if name else made


def _pool(op: _Operator) -> Stored:
    """A pool of a sequence, or one of an image with counted borders, sizes that are rounded up, or another norm."""
    x = op.computed()
    rank = len(x.shape)
    if rank not in (3, 4) or len(op.node.output) > 1:
        raise NotInTflite(f"reads {rank} dimensions" if rank not in (3, 4) else "tells where it found the largest numbers")
    kernel, strides, dilations, pads = _window(op, rank, op.attribute("kernel_shape", ()))
    if set(dilations) != {1}:
        raise NotInTflite("has dilation")
    image, norm = op.as_image(x), op.attribute("p", 2)
    if op.kind == "LpPool":
        image = op.binary("POW", op.unary("ABS", image, schema.AbsOptionsT()), norm)
    sizes = (op.output_shape[2], op.output_shape[3]) if rank == 4 else (1, op.output_shape[2])
    counts, whole = [], list(pads)
    for axis, (size, k, s) in enumerate(zip(sizes, kernel, strides, strict=True), start=2):
        before, behind = pads[axis]
        needed = (size - 1) * s + k
        whole[axis] = (before, max(0, needed - image.shape[axis] - before))
        counted = before + behind if op.attribute("count_include_pad", 0) else 0
        first, last = (0, image.shape[axis] + counted) if counted else (before, before + image.shape[axis])
        counts.append([max(0, min(at * s + k, last) - max(at * s, first)) for at in range(size)])
    is_max = op.kind == "MaxPool"
    image = op.padded(image, whole, -math.inf if is_max else 0)
    options = schema.Pool2DOptionsT(
        padding=schema.Padding.VALID, filterHeight=kernel[0], filterWidth=kernel[1], strideH=strides[0], strideW=strides[1]
    )
    shape = (*image.shape[:2], *sizes)
    made = op.add("MAX_POOL_2D" if is_max else "AVERAGE_POOL_2D", [image.number], shape, CHANNELS_LAST, options)
    area = kernel[0] * kernel[1]
    if op.kind == "LpPool":
        made = op.binary("POW", op.binary("MUL", made, area), 1 / norm)
    elif not is_max and any(count != k for line, k in zip(counts, kernel, strict=True) for count in line):
        # the average of TFLite counts all that is padded
        made = op.binary("MUL", made, (area / np.outer(counts[0], counts[1])).astype(np.float32)[None, None])
    return op.reshaped(made, op.output_shape)


def _resize(op: _Operator) -> Stored:
    x = op.computed()
    if len(x.shape) != 4 or op.output_shape[:2] != x.shape[:2]:
        raise NotInTflite("changes other sizes than height and width")
    mode, coordinates = op.attribute("mode", "nearest"), op.attribute("coordinate_transformation_mode", "half_pixel")
    height, width = op.output_shape[2:]
    if mode == "linear" and not op.attribute("antialias", 0):
        kinds = {"align_corners": (True, False), "asymmetric": (False, False)}
        kinds |= dict.fromkeys(("half_pixel", "pytorch_half_pixel"), (False, True))
        if coordinates in kinds:
            corners, half = kinds[coordinates]
            image, size = op.as_image(x), op.store([height, width])
            options = schema.ResizeBilinearOptionsT(alignCorners=corners, halfPixelCenters=half)
            return op.add("RESIZE_BILINEAR", [image.number, size], op.output_shape, CHANNELS_LAST, options, 3)
    matrices = [_resizing(op, axis) for axis in (2, 3)]
    if all((matrix.max(axis=1) == 1).all() and (np.count_nonzero(matrix, axis=1) == 1).all() for matrix in matrices):
        for axis, matrix in zip((2, 3), matrices, strict=True):
            x = op.picked(x, axis, matrix.argmax(axis=1))
        return x
    x = op.multiplied(op.as_in_file(x), np.ascontiguousarray(matrices[1].T))  # along the width, then along the height
    swapped = op.multiplied(op.transposed(x, (0, 1, 3, 2)), np.ascontiguousarray(matrices[0].T))
    return op.transposed(swapped, (0, 1, 3, 2))


def _resizing(op: _Operator, axis: int) -> Array:
    """What a resize does along one axis, as a matrix (out, in): onnxruntime resizes the unit matrix for it."""
    before, after = op.computed().shape[axis], op.output_shape[axis]
    node = type(op.node)()
    node.CopyFrom(op.node)
    del node.input[:]
    scales = op.constant(2)
    asked = (
        {"sizes": np.array([1, 1, after, before])}
        if scales is None or not scales.size
        else {"scales": np.array([1, 1, scales[axis], 1], np.float32)}
    )
    node.input.extend(["x", "", "", "sizes"] if "sizes" in asked else ["x", "", "scales"])
    node.output[:] = ["y"]
    constants = [numpy_helper.from_array(array, name) for name, array in asked.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, before, before))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, after, before))]
    model = helper.make_model(
        helper.make_graph([node], "resize", inputs, outputs, constants), opset_imports=op.model.opset_import,
        ir_version=op.model.ir_version,
    )  # fmt: skip
    session = open_session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    matrix: Array = session.run(None, {"x": np.eye(before, dtype=np.float32)[None, None]})[0][0, 0]
    return matrix


def _where(op: _Operator) -> Stored:
    operands, rank = [op.operand(index) for index in range(3)], len(op.output_shape)
    orders = [item.order for item in operands if isinstance(item, Stored) and len(item.shape) == rank]
    order = orders[0] if orders else tuple(range(rank))
    numbers = [op.broadcastable(operand, rank, order) for operand in operands]
    return op.add("SELECT_V2", numbers, op.output_shape, order, schema.SelectV2OptionsT())


def _cast(op: _Operator, x: Stored) -> Stored:
    options = schema.CastOptionsT(inDataType=op.emitter.tensors[x.number].type, outDataType=op.element_type)
    return op.add("CAST", [x.number], x.shape, x.order, options)


def _arg_max(op: _Operator, x: Stored) -> Stored:
    axis = op.attribute("axis", 0) % len(x.shape)
    if op.attribute("select_last_index", 0):
        raise NotInTflite("takes the last of equal numbers")
    shape = tuple(size for at, size in enumerate(x.shape) if at != axis)
    order = tuple(item - (item > axis) for item in x.order if item != axis)
    options = schema.ArgMaxOptionsT if op.kind == "ArgMax" else schema.ArgMinOptionsT
    name = "ARG_MAX" if op.kind == "ArgMax" else "ARG_MIN"
    place = op.store(np.array(x.place(axis)))
    made = op.add(name, [x.number, place], shape, order, options(outputType=schema.TensorType.INT32))
    return op.reshaped(made, op.output_shape)


def _cumulative_sum(op: _Operator, x: Stored) -> Stored:
    axis = op.constant(1)
    if axis is None:
        raise NotInTflite("has no axis")
    options = schema.CumsumOptionsT(exclusive=bool(op.attribute("exclusive", 0)), reverse=bool(op.attribute("reverse", 0)))
    place = op.store(np.array(x.place(int(axis.reshape(())) % len(x.shape))))
    return op.add("CUMSUM", [x.number, place], x.shape, x.order, options)


def _einsum(op: _Operator) -> Stored:
    return einsum(op, op.attribute("equation", ""), [op.computed(index) for index in range(len(op.operands))])


def _reciprocal(op: _Operator, x: Stored) -> Stored:
    return op.binary("DIV", 1, x)


_Emit = Callable[[_Operator], Stored | list[Stored]]

_BOOL: int = schema.TensorType.BOOL
_REDUCTIONS = {
    "ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN", "ReduceProd": "REDUCE_PROD",
}  # fmt: skip
_OPERATORS: dict[str, _Emit] = {
    "Relu": _unary("RELU"),
    "HardSwish": _unary("HARD_SWISH", schema.HardSwishOptionsT),
    "Sigmoid": _unary("LOGISTIC"),
    "Tanh": _unary("TANH"),
    "Neg": _unary("NEG", schema.NegOptionsT),
    "Abs": _unary("ABS", schema.AbsOptionsT),
    "Exp": _unary("EXP", schema.ExpOptionsT),
    "Log": _unary("LOG"),
    "Sqrt": _unary("SQRT"),
    "Sin": _unary("SIN"),
    "Cos": _unary("COS", schema.CosOptionsT),
    "Floor": _unary("FLOOR"),
    "Ceil": _unary("CEIL"),
    "Round": _unary("ROUND"),
    "Sign": _unary("SIGN"),
    "Not": _unary("LOGICAL_NOT", schema.LogicalNotOptionsT),
    "LeakyRelu": lambda op: op.unary("LEAKY_RELU", op.computed(), schema.LeakyReluOptionsT(alpha=op.attribute("alpha", 0.01))),
    "Elu": _composed(_elu),
    "Selu": _composed(_elu),
    "Celu": _composed(_elu),
    "Softplus": _composed(_softplus),
    "Softsign": _composed(_softsign),
    "Mish": _composed(_mish),
    "Gelu": _composed(_gelu),
    "BiasGelu": _composed(_gelu),
    "FastGelu": _composed(_gelu),
    "QuickGelu": _composed(_quick_gelu),
    "Swish": _composed(lambda op, x: op.binary("MUL", x, op.unary("LOGISTIC", x))),
    "HardSigmoid": _composed(_hard_sigmoid),
    "Reciprocal": _composed(_reciprocal),
    "Clip": _clip,
    "PRelu": _prelu,
    "Add": _binary("ADD"),
    "Sum": _binary("ADD"),
    "Mean": _mean_of_inputs,
    "Sub": _binary("SUB"),
    "Mul": _binary("MUL"),
    "Div": _binary("DIV"),
    "Max": _binary("MAXIMUM"),
    "Min": _binary("MINIMUM"),
    "Pow": _pow,
    "Greater": _binary("GREATER", _BOOL),
    "GreaterOrEqual": _binary("GREATER_EQUAL", _BOOL),
    "Less": _binary("LESS", _BOOL),
    "LessOrEqual": _binary("LESS_EQUAL", _BOOL),
    "Equal": _binary("EQUAL", _BOOL),
    "And": _binary("LOGICAL_AND", _BOOL),
    "Or": _binary("LOGICAL_OR", _BOOL),
    "Where": _where,
    "Cast": _composed(_cast),
    "CumSum": _composed(_cumulative_sum),
    "Einsum": _einsum,
    "Softmax": _softmax("SOFTMAX", lambda: schema.SoftmaxOptionsT(beta=1.0)),
    "LogSoftmax": _softmax("LOG_SOFTMAX", schema.LogSoftmaxOptionsT),
    "ArgMax": _composed(_arg_max),
    "ArgMin": _composed(_arg_max),
    **dict.fromkeys((*_REDUCTIONS, "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"), _reduce),
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LayerNormalization": _layer_normalisation,
    "SkipLayerNormalization": _layer_normalisation,
    "InstanceNormalization": _instance_normalisation,
    "GroupNormalization": _group_normalisation,
    "BatchNormalization": _batch_normalisation,
    "LpNormalization": _composed(_lp_normalisation),
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Transpose": _transpose,
    **dict.fromkeys(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"), lambda op: op.reshaped(op.computed(), op.output_shape)
    ),
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _composed(_depth_to_space),
    "SpaceToDepth": _composed(_space_to_depth),
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "Gemm": _matmul,
    "Conv": _conv,
    "FusedConv": _fused_conv,
    "ConvTranspose": _conv_transpose,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
}
