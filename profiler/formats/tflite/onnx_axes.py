"""Operators of ONNX files that sum, normalise or choose along axes, and products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.formats.tflite.einsum import einsum
from profiler.formats.tflite.onnx_operator import Emit, Operator, composed
from profiler.formats.tflite.ordered import Array, NotInTflite, Operand, Stored


def _softmax(name: str, options: Callable[[], Any]) -> Emit:
    def emit(op: Operator) -> Stored:
        x = op.computed()
        axis = op.attribute("axis", -1 if op.opset >= 13 else 1) % len(x.shape)
        if op.opset < 13 and axis != len(x.shape) - 1:
            raise NotInTflite("runs over several axes")
        x = op.ordered(x, (*(item for item in x.order if item != axis), axis))
        return op.unary(name, x, options())

    return emit


def _reduce(op: Operator) -> Stored:
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


def _global_pool(op: Operator) -> Stored:
    x = op.computed()
    return op.reduced("MEAN" if op.kind == "GlobalAveragePool" else "REDUCE_MAX", x, range(2, len(x.shape)))


def _normalised(op: Operator, x: Stored, axes: Sequence[int]) -> Stored:
    """(x - mean) / sqrt(variance + epsilon), with the statistics over these axes."""
    centred = op.binary("SUB", x, op.reduced("MEAN", x, axes))
    variance = op.reduced("MEAN", op.unary("SQUARE", centred, schema.SquareOptionsT()), axes)
    spread = op.unary("RSQRT", op.binary("ADD", variance, op.attribute("epsilon", 1e-5)))
    return op.binary("MUL", centred, spread)


def _scaled(op: Operator, x: Stored, first: int, of_channels: bool) -> Stored:
    """Times the input `first`, plus the one behind it if there is one; of the channels, or of the last axes."""
    for name, index in (("MUL", first), ("ADD", first + 1)):
        if index < len(op.operands) and op.operands[index] is not None:
            operand = op.operand(index)
            if of_channels:
                shape = (1, x.shape[1], *(1 for _ in x.shape[2:]))
                operand = op.reshaped(operand, shape) if isinstance(operand, Stored) else operand.reshape(shape)
            x = op.binary(name, x, operand)
    return x


def _layer_normalisation(op: Operator) -> Stored:
    x, first = op.computed(), 1
    if op.kind == "SkipLayerNormalization":  # reads a shortcut, scale, shift and bias
        x, first = op.binary("ADD", x, op.operand(1)), 2
        if len(op.operands) > 4 and op.operands[4] is not None:
            x = op.binary("ADD", x, op.operand(4))
        op.operands = op.operands[:4]
    axis = op.attribute("axis", -1) % len(x.shape)
    return _scaled(op, _normalised(op, x, range(axis, len(x.shape))), first, of_channels=False)


def _instance_normalisation(op: Operator) -> Stored:
    x = op.computed()
    return _scaled(op, _normalised(op, x, range(2, len(x.shape))), 1, of_channels=True)


def _group_normalisation(op: Operator) -> Stored:
    x, groups = op.computed(), op.attribute("num_groups", 1)
    if op.opset < 21 and op.operand(1).shape != (x.shape[1],):
        raise NotInTflite("has a scale for each group")
    within = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    normalised = _normalised(op, op.reshaped(x, within), range(2, len(within)))
    return _scaled(op, op.reshaped(normalised, x.shape), 1, of_channels=True)


def _batch_normalisation(op: Operator) -> Stored:
    x, found = op.computed(), [op.constant(index) for index in range(1, 5)]
    scale, bias, mean, variance = (item for item in found if item is not None)
    factor = scale / np.sqrt(variance + op.attribute("epsilon", 1e-5))
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return op.binary("ADD", op.binary("MUL", x, factor.reshape(shape)), (bias - mean * factor).reshape(shape))


def _lp_normalisation(op: Operator, x: Stored) -> Stored:
    if op.attribute("p", 2) != 2:
        raise NotInTflite("has another norm than that of squares")
    total = op.reduced("SUM", op.unary("SQUARE", x, schema.SquareOptionsT()), [op.attribute("axis", -1)])
    return op.binary("MUL", x, op.unary("RSQRT", total))


def _arg_max(op: Operator, x: Stored) -> Stored:
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


def _cumulative_sum(op: Operator, x: Stored) -> Stored:
    axis = op.constant(1)
    if axis is None:
        raise NotInTflite("has no axis")
    options = schema.CumsumOptionsT(exclusive=bool(op.attribute("exclusive", 0)), reverse=bool(op.attribute("reverse", 0)))
    place = op.store(np.array(x.place(int(axis.reshape(())) % len(x.shape))))
    return op.add("CUMSUM", [x.number, place], x.shape, x.order, options)


def _matmul(op: Operator) -> Stored:
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


def _einsum(op: Operator) -> Stored:
    return einsum(op, op.attribute("equation", ""), [op.computed(index) for index in range(len(op.operands))])


_REDUCTIONS = {
    "ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN", "ReduceProd": "REDUCE_PROD",
}  # fmt: skip
OPERATORS: Mapping[str, Emit] = {
    "CumSum": composed(_cumulative_sum),
    "Einsum": _einsum,
    "Softmax": _softmax("SOFTMAX", lambda: schema.SoftmaxOptionsT(beta=1.0)),
    "LogSoftmax": _softmax("LOG_SOFTMAX", schema.LogSoftmaxOptionsT),
    "ArgMax": composed(_arg_max),
    "ArgMin": composed(_arg_max),
    **dict.fromkeys((*_REDUCTIONS, "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"), _reduce),
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LayerNormalization": _layer_normalisation,
    "SkipLayerNormalization": _layer_normalisation,
    "InstanceNormalization": _instance_normalisation,
    "GroupNormalization": _group_normalisation,
    "BatchNormalization": _batch_normalisation,
    "LpNormalization": composed(_lp_normalisation),
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "Gemm": _matmul,
}
"""By their names in ONNX."""
