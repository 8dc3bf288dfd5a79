"""Operators of ONNX files that compute every number by itself, or with those at the same place in other tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.formats.tflite.onnx_operator import Emit, Operator, binary, composed, unary
from profiler.formats.tflite.ordered import NotInTflite, Stored


def _clip(op: Operator) -> Stored:
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


def _hard_sigmoid(op: Operator, x: Stored) -> Stored:
    scaled = op.binary("MUL", x, op.attribute("alpha", 0.2))
    return op.unary("RELU_0_TO_1", op.binary("ADD", scaled, op.attribute("beta", 0.5)))


def _elu(op: Operator, x: Stored) -> Stored:
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


def _prelu(op: Operator) -> Stored:
    x, slope = op.computed(), op.operand(1)
    if isinstance(slope, Stored):
        positive, negative = op.unary("RELU", x), op.binary("MINIMUM", x, 0)
        return op.binary("ADD", positive, op.binary("MUL", slope, negative))
    # its slopes have no axis for the batch
    full = slope.reshape((1,) * (len(x.shape) - slope.ndim) + slope.shape).transpose(x.order)
    if full.shape[0] != 1:
        raise NotInTflite("has slopes for each image")
    return op.add("PRELU", [x.number, op.store(full[0])], x.shape, x.order)


def _softplus(op: Operator, x: Stored) -> Stored:
    power = op.unary("EXP", x, schema.ExpOptionsT())
    return op.unary("LOG", op.binary("ADD", power, 1))


def _mish(op: Operator, x: Stored) -> Stored:
    return op.binary("MUL", x, op.unary("TANH", _softplus(op, x)))


def _softsign(op: Operator, x: Stored) -> Stored:
    return op.binary("DIV", x, op.binary("ADD", op.unary("ABS", x, schema.AbsOptionsT()), 1))


def _gelu(op: Operator, x: Stored) -> Stored:
    if op.kind in ("BiasGelu", "FastGelu") and len(op.operands) > 1 and op.operands[1] is not None:
        x = op.binary("ADD", x, op.operand(1))
    is_approximate = op.kind == "FastGelu" or op.attribute("approximate", "none") == "tanh"
    return op.unary("GELU", x, schema.GeluOptionsT(approximate=is_approximate))


def _quick_gelu(op: Operator, x: Stored) -> Stored:
    return op.binary("MUL", x, op.unary("LOGISTIC", op.binary("MUL", x, op.attribute("alpha", 1.702))))


def _pow(op: Operator) -> Stored:
    x, power = op.operand(0), op.operand(1)
    if isinstance(x, Stored) and isinstance(power, np.ndarray) and power.size == 1:
        exponent = float(power.reshape(()))
        if exponent == 2:
            return op.unary("SQUARE", x, schema.SquareOptionsT())
        if exponent == 0.5:
            return op.unary("SQRT", x)
    return op.binary("POW", x, power if isinstance(power, Stored) else power.astype(np.float32))


def _mean_of_inputs(op: Operator) -> Stored:
    total = binary("ADD")(op)
    assert isinstance(total, Stored)
    return op.binary("MUL", total, 1 / len(op.operands))


def _where(op: Operator) -> Stored:
    operands, rank = [op.operand(index) for index in range(3)], len(op.output_shape)
    orders = [item.order for item in operands if isinstance(item, Stored) and len(item.shape) == rank]
    order = orders[0] if orders else tuple(range(rank))
    numbers = [op.broadcastable(operand, rank, order) for operand in operands]
    return op.add("SELECT_V2", numbers, op.output_shape, order, schema.SelectV2OptionsT())


def _cast(op: Operator, x: Stored) -> Stored:
    options = schema.CastOptionsT(inDataType=op.emitter.tensors[x.number].type, outDataType=op.element_type)
    return op.add("CAST", [x.number], x.shape, x.order, options)


def _reciprocal(op: Operator, x: Stored) -> Stored:
    return op.binary("DIV", 1, x)


_BOOL: int = schema.TensorType.BOOL
OPERATORS: Mapping[str, Emit] = {
    "Relu": unary("RELU"),
    "HardSwish": unary("HARD_SWISH", schema.HardSwishOptionsT),
    "Sigmoid": unary("LOGISTIC"),
    "Tanh": unary("TANH"),
    "Neg": unary("NEG", schema.NegOptionsT),
    "Abs": unary("ABS", schema.AbsOptionsT),
    "Exp": unary("EXP", schema.ExpOptionsT),
    "Log": unary("LOG"),
    "Sqrt": unary("SQRT"),
    "Sin": unary("SIN"),
    "Cos": unary("COS", schema.CosOptionsT),
    "Floor": unary("FLOOR"),
    "Ceil": unary("CEIL"),
    "Round": unary("ROUND"),
    "Sign": unary("SIGN"),
    "Not": unary("LOGICAL_NOT", schema.LogicalNotOptionsT),
    "LeakyRelu": lambda op: op.unary("LEAKY_RELU", op.computed(), schema.LeakyReluOptionsT(alpha=op.attribute("alpha", 0.01))),
    "Elu": composed(_elu),
    "Selu": composed(_elu),
    "Celu": composed(_elu),
    "Softplus": composed(_softplus),
    "Softsign": composed(_softsign),
    "Mish": composed(_mish),
    "Gelu": composed(_gelu),
    "BiasGelu": composed(_gelu),
    "FastGelu": composed(_gelu),
    "QuickGelu": composed(_quick_gelu),
    "Swish": composed(lambda op, x: op.binary("MUL", x, op.unary("LOGISTIC", x))),
    "HardSigmoid": composed(_hard_sigmoid),
    "Reciprocal": composed(_reciprocal),
    "Clip": _clip,
    "PRelu": _prelu,
    "Add": binary("ADD"),
    "Sum": binary("ADD"),
    "Mean": _mean_of_inputs,
    "Sub": binary("SUB"),
    "Mul": binary("MUL"),
    "Div": binary("DIV"),
    "Max": binary("MAXIMUM"),
    "Min": binary("MINIMUM"),
    "Pow": _pow,
    "Greater": binary("GREATER", _BOOL),
    "GreaterOrEqual": binary("GREATER_EQUAL", _BOOL),
    "Less": binary("LESS", _BOOL),
    "LessOrEqual": binary("LESS_EQUAL", _BOOL),
    "Equal": binary("EQUAL", _BOOL),
    "And": binary("LOGICAL_AND", _BOOL),
    "Or": binary("LOGICAL_OR", _BOOL),
    "Where": _where,
    "Cast": composed(_cast),
}
"""By their names in ONNX."""
