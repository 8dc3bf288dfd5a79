"""Writes operators of ONNX files that have no model of ours (profiler.formats.onnx.opaque) as TFLite's own, which compute the same.

The axes of a tensor are those of the ONNX file, (n, c, h, w) for an image, but TFLite stores images with the channels last. So each
tensor knows in which order its axes are stored, operators take any order that they can, and a TRANSPOSE is only written where an
operator needs another one. A Transpose of the file thus often costs nothing, as with converters.

Sources: the operators of ONNX (https://onnx.ai/onnx/operators) and of TFLite (tensorflow/lite/kernels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.errors import ModelError
from profiler.formats.onnx.tensors import has_subgraph, open_session, opset_of
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.schema import FLOAT32
from profiler.layers.layer import Shape

Array = NDArray[Any]
Order = tuple[int, ...]

CHANNELS_LAST: Order = (0, 2, 3, 1)
"""How TFLite stores an image (n, c, h, w)."""
_TYPES: dict[int, int] = {
    TensorProto.FLOAT: FLOAT32, TensorProto.BOOL: schema.TensorType.BOOL,
    # TFLite's kernels take whole numbers of 32 bits everywhere, and of 64 only here and there
    TensorProto.INT32: schema.TensorType.INT32, TensorProto.INT64: schema.TensorType.INT32,
}  # fmt: skip
_READ_IN_THE_FILES_ORDER = ("MatMul", "FusedMatMul", "Gemm", "Softmax", "LogSoftmax")
"""Operators on the last axes, whose four dimensions are those of no image: alone, they read them as in the file."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A computed tensor."""

    number: int
    """Of the tensor in the TFLite file."""
    shape: Shape
    """With the axes of the ONNX file."""
    order: Order
    """The axis of `shape` that is stored at each place."""

    def place(self, axis: int) -> int:
        """The place at which an axis is stored, which may be counted from the end."""
        return self.order.index(axis % len(self.shape))


def stored_shape(shape: Shape, order: Order) -> Shape:
    """The sizes of a tensor of this shape in the order in which they are stored."""
    return tuple(shape[axis] for axis in order)


def _alike(shape: Shape, one: Order, two: Order) -> bool:
    """True if the elements lie in the same sequence in both orders, which then differ in axes of one element only."""
    return [axis for axis in one if shape[axis] > 1] == [axis for axis in two if shape[axis] > 1]


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
    except _NotInTflite as exc:
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


class _NotInTflite(Exception):
    """The way in which an operator is used has no form of ours. The text is what it has or does."""


Operand = Stored | Array | float


class Steps:
    """Adds TFLite's operators one after the other, for what is one operator elsewhere."""

    def __init__(self, emitter: Emitter, name: str, element_type: int = FLOAT32) -> None:
        """`name` is that of the operator, and `element_type` a number of schema.TensorType, that of what it makes."""
        self.emitter, self.name, self.element_type = emitter, name, element_type
        self._count = 0

    def add(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Shape,
        order: Order,
        options: Any = None,
        version: int = 1,
        element_type: int | None = None,
    ) -> Stored:
        """Add an operator of TFLite, which makes a tensor of this shape in this order."""
        self._count += 1
        made_type = self.element_type if element_type is None else element_type
        number = self.emitter.tensor(f"{self.name}/{self._count}", stored_shape(shape, order), made_type)
        self.emitter.operator(name, inputs, number, options, version)
        return Stored(number, shape, order)

    def store(self, values: Array | Sequence[int]) -> int:
        """Add a constant, in numbers of 32 bits."""
        self._count += 1
        array = np.asarray(values)
        kinds = {"f": np.float32, "i": np.int32, "u": np.int32}
        if array.dtype.kind not in kinds:
            raise _NotInTflite(f"reads a constant of {array.dtype}")
        limits = np.iinfo(np.int32)
        array = np.clip(array, limits.min, limits.max) if array.dtype.kind != "f" else array
        return self.emitter.constant(f"{self.name}/constant_{self._count}", array.astype(kinds[array.dtype.kind]))

    def ordered(self, x: Stored, order: Order) -> Stored:
        """The tensor in this order. Where only axes of one element move, nothing is transposed."""
        if x.order == order:
            return x
        element_type = self.emitter.tensors[x.number].type
        shape = stored_shape(x.shape, order)
        if _alike(x.shape, x.order, order):
            options = schema.ReshapeOptionsT(newShape=np.array(shape, np.int32))
            return self.add("RESHAPE", [x.number, self.store(shape)], x.shape, order, options, element_type=element_type)
        perm = [x.order.index(axis) for axis in order]
        return self.add(
            "TRANSPOSE", [x.number, self.store(perm)], x.shape, order, schema.TransposeOptionsT(), element_type=element_type
        )

    def as_in_file(self, x: Stored) -> Stored:
        return self.ordered(x, tuple(range(len(x.shape))))

    def as_image(self, x: Stored) -> Stored:
        """The image with its channels last; a sequence (n, c, l) becomes an image of one row first."""
        if len(x.shape) == 3:
            x = self.reshaped(x, (x.shape[0], x.shape[1], 1, x.shape[2]))
        if len(x.shape) != 4:
            raise _NotInTflite(f"reads {len(x.shape)} dimensions")
        return self.ordered(x, CHANNELS_LAST)

    def unary(self, name: str, x: Stored, options: Any = None, version: int = 1) -> Stored:
        return self.add(name, [x.number], x.shape, x.order, options, version)

    def binary(self, name: str, one: Operand, two: Operand, element_type: int | None = None) -> Stored:
        """An operator on numbers at the same place, broadcast as in ONNX."""
        both = [item if isinstance(item, Stored | np.ndarray) else np.array(item, np.float32) for item in (one, two)]
        shape = tuple(np.broadcast_shapes(*(operand.shape for operand in both)))
        order = next((item.order for item in both if isinstance(item, Stored) and len(item.shape) == len(shape)), None)
        order = order or tuple(range(len(shape)))
        numbers = [self.broadcastable(operand, len(shape), order) for operand in both]
        options = {
            "ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT, "DIV": schema.DivOptionsT,
            "MAXIMUM": schema.MaximumMinimumOptionsT, "MINIMUM": schema.MaximumMinimumOptionsT, "POW": schema.PowOptionsT,
            "SQUARED_DIFFERENCE": schema.SquaredDifferenceOptionsT,
        }  # fmt: skip
        return self.add(name, numbers, shape, order, options[name]() if name in options else None, element_type=element_type)

    def broadcastable(self, operand: Stored | Array, rank: int, order: Order) -> int:
        """The number of a tensor of this rank in this order, with axes of one element in front."""
        shape = (1,) * (rank - len(operand.shape)) + tuple(operand.shape)
        if isinstance(operand, Stored):
            return self.ordered(self.reshaped(operand, shape), order).number
        if operand.size == 1:
            return self.store(operand.reshape(()))
        return self.store(operand.reshape(shape).transpose(order))

    def reshaped(self, x: Stored, shape: Shape) -> Stored:
        """The tensor in another shape.

        Axes of the old and the new shape belong together, as few as possible, whose products are equal. If the axes of each such
        group are stored side by side, nothing has to be transposed; else the groups keep the places of their first axes.
        """
        if x.shape == shape:
            return x
        if math.prod(x.shape) != math.prod(shape):
            raise ModelError(f"{self.name}: {x.shape} cannot become {shape}, which has another number of elements; report this")
        groups = _common_groups(x.shape, shape)
        groups.sort(key=lambda group: min((x.place(axis) for axis in group[0] if x.shape[axis] > 1), default=0))
        wanted = tuple(axis for before, _ in groups for axis in before)
        if not _alike(x.shape, x.order, wanted):
            x = self.ordered(x, wanted)
        order = tuple(axis for _, after in groups for axis in after)
        stored = stored_shape(shape, order)
        options = schema.ReshapeOptionsT(newShape=np.array(stored, np.int32))
        element_type = self.emitter.tensors[x.number].type
        return self.add("RESHAPE", [x.number, self.store(stored)], shape, order, options, element_type=element_type)

    def transposed(self, x: Stored, perm: Sequence[int]) -> Stored:
        """The tensor with its axes in another order, of which nothing is seen in the file yet."""
        return Stored(x.number, tuple(x.shape[axis] for axis in perm), tuple(list(perm).index(axis) for axis in x.order))

    def reduced(self, name: str, x: Stored, axes: Sequence[int], keep: bool = True) -> Stored:
        """A sum, a mean or the like over these axes."""
        gone = {axis % len(x.shape) for axis in axes}
        places = self.store(sorted(x.place(axis) for axis in gone))
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(x.shape))
        order = x.order
        if not keep:
            left = [axis for axis in range(len(x.shape)) if axis not in gone]
            shape, order = tuple(x.shape[axis] for axis in left), tuple(left.index(axis) for axis in order if axis in left)
        return self.add(name, [x.number, places], shape, order, schema.ReducerOptionsT(keepDims=keep))

    def sliced(self, x: Stored, ranges: Sequence[range]) -> Stored:
        """The elements at these indices of every axis, whose steps are positive."""
        shape, stored = tuple(map(len, ranges)), [ranges[axis] for axis in x.order]
        begin = self.store([item.start for item in stored])
        if all(item.step == 1 for item in stored):
            return self.add("SLICE", [x.number, begin, self.store([*map(len, stored)])], shape, x.order, schema.SliceOptionsT())
        end, step = self.store([item[-1] + 1 for item in stored]), self.store([item.step for item in stored])
        return self.add("STRIDED_SLICE", [x.number, begin, end, step], shape, x.order, schema.StridedSliceOptionsT())

    def picked(self, x: Stored, axis: int, indices: Array) -> Stored:
        """The elements at these indices of one axis, in any order."""
        shape = tuple(len(indices) if at == axis else size for at, size in enumerate(x.shape))
        options = schema.GatherOptionsT(axis=x.place(axis))
        return self.add("GATHER", [x.number, self.store(indices)], shape, x.order, options)

    def padded(self, x: Stored, pads: Sequence[tuple[int, int]], value: float = 0, mode: str = "constant") -> Stored:
        """The tensor with so many elements before and behind on each axis; x itself if there are none."""
        if not any(map(any, pads)):
            return x
        shape = tuple(size + before + behind for size, (before, behind) in zip(x.shape, pads, strict=True))
        inputs = [x.number, self.store(np.array([pads[axis] for axis in x.order]))]
        if mode == "reflect":
            return self.add("MIRROR_PAD", inputs, shape, x.order, schema.MirrorPadOptionsT(mode=schema.MirrorPadMode.REFLECT))
        if value == 0:
            return self.add("PAD", inputs, shape, x.order, schema.PadOptionsT())
        inputs.append(self.store(np.array(value, np.float32)))
        return self.add("PADV2", inputs, shape, x.order, schema.PadV2OptionsT())

    def multiplied(self, one: Operand, two: Operand) -> Stored:
        """The product of matrices in the last two axes."""
        if isinstance(two, np.ndarray) and two.ndim == 2 and isinstance(one, Stored) and len(one.shape) > 1:
            # fully connected, whose weights are (out, in)
            inputs = [self.as_in_file(one).number, self.store(np.ascontiguousarray(two.T))]
            shape = (*one.shape[:-1], two.shape[1])
            options = schema.FullyConnectedOptionsT(keepNumDims=True)
            return self.add("FULLY_CONNECTED", inputs, shape, tuple(range(len(shape))), options, version=5)
        numbers, adjoint, shapes = [], [], []
        for operand in (one, two):
            array = operand if isinstance(operand, Stored) else np.asarray(operand)
            rank = len(array.shape)
            if rank < 2:
                raise _NotInTflite("multiplies a vector")
            shapes.append(tuple(array.shape))
            if isinstance(array, Stored):
                swapped = (*range(rank - 2), rank - 1, rank - 2)
                adjoint.append(array.order == swapped)
                numbers.append((array if adjoint[-1] else self.as_in_file(array)).number)
            else:
                adjoint.append(False)
                numbers.append(self.store(array))
        shape = (*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
        options = schema.BatchMatMulOptionsT(adjX=adjoint[0], adjY=adjoint[1])
        return self.add("BATCH_MATMUL", numbers, shape, tuple(range(len(shape))), options)


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
            raise _NotInTflite(f"has a constant as its input {index + 1}")
        return found

    def operand(self, index: int) -> Stored | Array:
        found = self.operands[index] if index < len(self.operands) else None
        if found is None:
            raise _NotInTflite(f"has no input {index + 1}")
        return found

    def constant(self, index: int, attribute: str | None = None) -> Array | None:
        """A constant input, or the attribute that it was in older versions; None if it is left out."""
        found = self.operands[index] if index < len(self.operands) else None
        if isinstance(found, Stored):
            raise _NotInTflite(f"computes its input {index + 1}")
        if found is None and attribute in self.attributes:
            return np.array(self.attributes[attribute])
        return found

    def attribute(self, name: str, default: Any) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def _common_groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes in groups of equal products, as many as possible, in order."""
    groups: list[tuple[list[int], list[int]]] = []
    old, new = 0, 0
    while old < len(before) and new < len(after):
        one, two = [old], [new]
        while (sizes := (math.prod(before[axis] for axis in one), math.prod(after[axis] for axis in two)))[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                one.append(one[-1] + 1)
            else:
                two.append(two[-1] + 1)
        groups.append((one, two))
        old, new = one[-1] + 1, two[-1] + 1
    if not groups:
        return [([*range(len(before))], [*range(len(after))])]
    groups[-1][0].extend(range(old, len(before)))  # axes of one element
    groups[-1][1].extend(range(new, len(after)))
    return groups


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
        raise _NotInTflite("has slopes for each image")
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
            raise _NotInTflite("runs over several axes")
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
        raise _NotInTflite("has a scale for each group")
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
        raise _NotInTflite("has another norm than that of squares")
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
        raise _NotInTflite("has no limits")
    ranges = list(map(range, x.shape))
    chosen = range(len(starts)) if axes is None else axes.tolist()
    for at, axis in enumerate(chosen):
        step = 1 if steps is None else int(steps[at])
        ranges[axis % len(x.shape)] = ranges[axis % len(x.shape)][int(starts[at]) : int(ends[at]) : step]
    if not all(ranges):
        raise _NotInTflite("takes nothing of an axis")
    for axis, item in enumerate(ranges):
        if item.step < 0:
            x = op.picked(x, axis, np.array(item))
            ranges[axis] = range(len(item))
    return op.sliced(x, ranges)


def _pad(op: _Operator) -> Stored:
    x, found, value = op.computed(), op.constant(1, "pads"), op.constant(2, "value")
    axes, mode = op.constant(3), op.attribute("mode", "constant")
    if found is None or (found < 0).any():
        raise _NotInTflite("has negative pads")
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
    x, indices = op.computed(), op.constant(1)
    axis = op.attribute("axis", 0) % len(x.shape)
    if indices is None or indices.ndim > 1:
        raise _NotInTflite("takes a table of indices")
    indices = indices % x.shape[axis]
    if indices.ndim == 1:
        return op.picked(x, axis, indices)
    one = op.sliced(x, [range(int(indices), int(indices) + 1) if at == axis else range(n) for at, n in enumerate(x.shape)])
    return op.reshaped(one, op.output_shape)


def _transpose(op: _Operator) -> Stored:
    x = op.computed()
    return op.transposed(x, op.attribute("perm", tuple(reversed(range(len(x.shape))))))


def _expand(op: _Operator) -> Stored:
    x, rank = op.computed(), len(op.output_shape)
    x = op.reshaped(x, (1,) * (rank - len(x.shape)) + x.shape)
    size = op.store(stored_shape(op.output_shape, x.order))
    return op.add("BROADCAST_TO", [x.number, size], op.output_shape, x.order, schema.BroadcastToOptionsT())


def _tile(op: _Operator) -> Stored:
    x, repeats = op.computed(), op.constant(1)
    if repeats is None:
        raise _NotInTflite("has no repeats")
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
        raise _NotInTflite("pads by itself")
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
        raise _NotInTflite(f"reads {rank} dimensions")
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
        raise _NotInTflite(f"applies {name}")
    return op.unary(activations[name], made) if name else made


def _pool(op: _Operator) -> Stored:
    """A pool of a sequence, or one of an image with counted borders, sizes that are rounded up, or another norm."""
    x = op.computed()
    rank = len(x.shape)
    if rank not in (3, 4) or len(op.node.output) > 1:
        raise _NotInTflite(f"reads {rank} dimensions" if rank not in (3, 4) else "tells where it found the largest numbers")
    kernel, strides, dilations, pads = _window(op, rank, op.attribute("kernel_shape", ()))
    if set(dilations) != {1}:
        raise _NotInTflite("has dilation")
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
        raise _NotInTflite("changes other sizes than height and width")
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
    condition, rank = op.computed(), len(op.output_shape)
    order = condition.order if len(condition.shape) == rank else tuple(range(rank))
    numbers = [op.broadcastable(op.operand(index), rank, order) for index in range(3)]
    return op.add("SELECT_V2", numbers, op.output_shape, order, schema.SelectV2OptionsT())


def _cast(op: _Operator, x: Stored) -> Stored:
    options = schema.CastOptionsT(inDataType=op.emitter.tensors[x.number].type, outDataType=op.element_type)
    return op.add("CAST", [x.number], x.shape, x.order, options)


def _arg_max(op: _Operator, x: Stored) -> Stored:
    axis = op.attribute("axis", 0) % len(x.shape)
    if op.attribute("select_last_index", 0):
        raise _NotInTflite("takes the last of equal numbers")
    shape = tuple(size for at, size in enumerate(x.shape) if at != axis)
    order = tuple(item - (item > axis) for item in x.order if item != axis)
    options = schema.ArgMaxOptionsT if op.kind == "ArgMax" else schema.ArgMinOptionsT
    name = "ARG_MAX" if op.kind == "ArgMax" else "ARG_MIN"
    place = op.store(np.array(x.place(axis)))
    made = op.add(name, [x.number, place], shape, order, options(outputType=schema.TensorType.INT32))
    return op.reshaped(made, op.output_shape)


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
    "AveragePool": _pool,
    "MaxPool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
}
