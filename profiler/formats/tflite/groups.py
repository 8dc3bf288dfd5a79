"""Each kind of operator of a .tflite file as a layer, with what it absorbs of those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from profiler.formats.tflite.network import NO_PADDING, Network, activation
from profiler.formats.tflite.schema import Operator, same_padding
from profiler.layers.layer import Shape

_SAME: int = schema.Padding.SAME


@dataclass(frozen=True, slots=True)
class Group:
    """An operator, with the operators that it absorbs, as a layer."""

    op: str
    inputs: tuple[int, ...]
    """The numbers of the tensors that it reads, those of the absorbed operators included."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of the LayerSpec."""
    exact: bool = True
    """True if the fields describe the operator completely; otherwise it is extracted, and they describe it as far as possible."""
    absorbed: tuple[int, ...] = ()
    """The numbers of the earlier operators that belong to it."""
    shapes: tuple[Shape, ...] = ()
    """The shapes of the inputs, if they differ from those of the tensors."""


def group_of(network: Network, operator: Operator) -> Group | None:
    """The operator as a layer; None if there is no rule for it, or the rule does not apply."""
    rule = _RULES.get(operator.name)
    if rule is None or operator.is_custom or len(operator.outputs) != 1 or len(operator.inputs) < rule.operands:
        return None
    if min(operator.inputs[: rule.operands]) < 0 or (rule.options and not isinstance(operator.options, rule.options)):
        return None
    return rule.read(network, operator)


def _convolution(network: Network, operator: Operator) -> Group | None:
    contents, options = network.contents, operator.options
    source, weights = operator.inputs[:2]
    if not len(contents.shape(source)) == len(contents.shape(weights)) == len(contents.shape(operator.outputs[0])) == 4:
        return None
    filters = contents.shape(weights)
    channels = contents.shape(source)[3]
    is_depthwise = operator.name == "DEPTHWISE_CONV_2D"
    if is_depthwise and filters[0] != 1:
        return None
    exact = network.is_plain(operator, 1) and source not in contents.constants and _is_fusable(options)
    absorbed: tuple[int, ...] = ()
    padding = NO_PADDING
    window = _window(options, filters[1:3]) | _dilation(options)
    groups = channels if is_depthwise else channels // max(filters[3], 1)
    # XNNPACK makes a matrix product of it when it reads the operator, and folds no PAD into that
    is_product = not is_depthwise and groups == 1 and filters[1:3] == window["stride"] == (1, 1)
    if options.padding == _SAME:
        padding = same_padding(contents.shape(source)[1:3], **window)
    elif not is_product and (exact or network.is_quantised(operator)):
        source, padding, absorbed = network.unpadded(source, 0)
    fields = {**window, "padding": padding, "groups": groups, "activation": activation(options), "bias": _has(operator, 2)}
    return Group("depthwise_conv2d" if is_depthwise else "conv2d", (source,), fields, exact, absorbed)


def _transposed_convolution(network: Network, operator: Operator) -> Group | None:
    contents, options = network.contents, operator.options
    weights, source = operator.inputs[1:3]
    size = contents.shape(source)
    made = contents.shape(operator.outputs[0])
    if not len(size) == len(made) == len(contents.shape(weights)) == 4:
        return None
    window = _window(options, contents.shape(weights)[1:3])
    same = same_padding(made[1:3], **window)
    padding = same if options.padding == _SAME else NO_PADDING
    covered = tuple(-(-pixels // stride) for pixels, stride in zip(made[1:3], window["stride"], strict=True))
    exact = (
        network.is_plain(operator, 1)
        and source not in contents.constants
        and _is_fusable(options)
        and (options.padding != _SAME or covered == size[1:3])
    )
    fields = {**window, "padding": padding, "activation": activation(options), "bias": _has(operator, 3)}
    return Group("conv_transpose2d", (source,), fields, exact)


def _fully_connected(network: Network, operator: Operator) -> Group | None:
    contents, options = network.contents, operator.options
    source, weights = operator.inputs[:2]
    size = contents.shape(source)
    made = contents.shape(operator.outputs[0])
    filters = contents.shape(weights)
    if len(filters) != 2 or options.weightsFormat or not made or math.prod(size) % max(filters[1], 1):
        return None
    keeps_shape = len(size) >= 2 and size[-1] == filters[1] and made == (*size[:-1], filters[0])
    exact = network.is_plain(operator, 1) and source not in contents.constants and _is_fusable(options) and keeps_shape
    # the operator may flatten its input itself; this is the matrix that it then multiplies
    shapes = () if keeps_shape else ((math.prod(size) // max(filters[1], 1), filters[1]),)
    fields = {"activation": activation(options), "bias": _has(operator, 2)}
    return Group("fully_connected", (source,), fields, exact, shapes=shapes)


def _pool(op: str, filler: float) -> _Read:
    def read(network: Network, operator: Operator) -> Group | None:
        contents, options = network.contents, operator.options
        source = operator.inputs[0]
        padding = NO_PADDING
        absorbed: tuple[int, ...] = ()
        if len(contents.shape(source)) != 4:
            return None
        window = _window(options, (options.filterHeight, options.filterWidth))
        exact = network.is_plain(operator, 1) and _is_fusable(options)
        if options.padding == _SAME:
            padding = same_padding(contents.shape(source)[1:3], **window)
        elif exact:
            inner, pads, pad = network.unpadded(source, filler)
            # if this is the padding of SAME, the writer would choose SAME, which does not count zeros in an average
            if pad and pads != same_padding(contents.shape(inner)[1:3], **window):
                source, padding, absorbed = inner, pads, pad
        fields = {**window, "padding": padding, "activation": activation(options)}
        return Group(op, (source,), fields, exact, absorbed)

    return read


def _reduction(op: str) -> _Read:
    def read(network: Network, operator: Operator) -> Group | None:
        contents = network.contents
        axes = contents.integers(operator.inputs[1])
        rank = len(contents.shape(operator.inputs[0]))
        if rank != 4 or axes is None or {int(axis) % 4 for axis in axes.reshape(-1)} != {1, 2}:
            return None
        return Group(op, operator.inputs[:1], exact=network.is_plain(operator, 1))

    return read


def _resize(op: str) -> _Read:
    def read(network: Network, operator: Operator) -> Group | None:
        options = operator.options
        # nearest copies as many pixels with either convention; bilinear mixes different ones
        if options.alignCorners or not (options.halfPixelCenters or op == "upsample_nearest"):
            return None
        return Group(op, operator.inputs[:1], exact=network.is_plain(operator, 1))

    return read


def _arithmetic(op: str) -> _Read:
    def read(network: Network, operator: Operator) -> Group | None:
        contents, options = network.contents, operator.options
        inputs = contents.activations(operator)
        ranks = [len(contents.shape(tensor)) for tensor in inputs]
        hard_sigmoid = _hard_sigmoid(network, operator) if op == "mul" else None
        silu = _silu(network, operator) if op == "mul" else None
        if hard_sigmoid is not None or silu is not None or not inputs:
            return hard_sigmoid or silu
        exact = network.is_plain(operator, 2) and _is_fusable(options) and min(ranks) >= 2
        return Group(op, inputs, {"activation": activation(options)}, exact)

    return read


def _hard_sigmoid(network: Network, operator: Operator) -> Group | None:
    """The hard_sigmoid MUL(ADD(x, 3) with ReLU6, 1/6); all converters put the constants on the right. None for other products."""
    shifted, sixth = operator.inputs[:2]
    add = network.lone_maker(shifted, "ADD")
    if add is None or len(add.inputs) != 2 or not isinstance(add.options, schema.AddOptionsT):
        return None
    fused = (activation(add.options), activation(operator.options))
    plain = network.is_plain(add, 1) and network.is_plain(operator, 1) and len(network.contents.shape(shifted)) >= 2
    if not plain or fused != ("relu6", "none") or not network.is_scalar(add.inputs[1], 3) or not network.is_scalar(sixth, 1 / 6):
        return None
    return Group("hard_sigmoid", add.inputs[:1], absorbed=(add.index,))


def _silu(network: Network, operator: Operator) -> Group | None:
    """The silu MUL(x, LOGISTIC(x)); None for other products."""
    for source, gate in (operator.inputs[:2], operator.inputs[1::-1]):
        logistic = network.lone_maker(gate, "LOGISTIC")
        if logistic is not None and logistic.inputs == (source,) and activation(operator.options) == "none":
            plain = network.is_plain(logistic, 1) and network.is_plain(operator, 2) and len(network.contents.shape(source)) >= 2
            return Group("silu", (source,), absorbed=(logistic.index,)) if plain else None
    return None


def _concatenation(network: Network, operator: Operator) -> Group | None:
    contents, options = network.contents, operator.options
    inputs = contents.activations(operator)
    rank = len(contents.shape(operator.outputs[0]))
    if not inputs or rank < 2:
        return None
    is_plain = network.is_plain(operator, len(operator.inputs)) and activation(options) == "none"
    return Group("concat", inputs, exact=is_plain and options.axis in (rank - 1, -1))


def _reshape(network: Network, operator: Operator) -> Group | None:
    contents = network.contents
    before = contents.shape(operator.inputs[0])
    after = contents.shape(operator.outputs[0])
    if len(before) < 2 or after not in ((before[0], math.prod(before[1:])), (before[0], 1, 1, math.prod(before[1:]))):
        return None
    return Group("flatten", operator.inputs[:1], exact=network.is_plain(operator, 1))


def _softmax(network: Network, operator: Operator) -> Group | None:
    return _unary("softmax")(network, operator) if operator.options.beta == 1 else None


def _unary(op: str) -> _Read:
    def read(network: Network, operator: Operator) -> Group | None:
        exact = network.is_plain(operator, 1) and len(network.contents.shape(operator.inputs[0])) >= 2
        return Group(op, operator.inputs[:1], exact=exact)

    return read


def _gelu(network: Network, operator: Operator) -> Group | None:
    return None if operator.options.approximate else _unary("gelu")(network, operator)


def _leaky_relu(network: Network, operator: Operator) -> Group | None:
    found = _unary("leaky_relu")(network, operator)
    return None if found is None else replace(found, fields={"slope": float(f"{operator.options.alpha:.6g}")})


def _window(options: Any, kernel: Shape) -> dict[str, Any]:
    return {"kernel": tuple(kernel), "stride": (options.strideH, options.strideW)}


def _dilation(options: Any) -> dict[str, Any]:
    return {"dilation": (options.dilationHFactor, options.dilationWFactor)}


def _is_fusable(options: Any) -> bool:
    """True if we write the activation of these options into the same operator."""
    return activation(options) in ("none", "relu", "relu6")


def _has(operator: Operator, operand: int) -> bool:
    """True if the optional operand is not left out."""
    return len(operator.inputs) > operand and operator.inputs[operand] >= 0


_Read = Callable[[Network, Operator], Group | None]


@dataclass(frozen=True, slots=True)
class _Rule:
    """The way in which a kind of operator is read."""

    read: _Read
    operands: int
    """The number of inputs, with constants, that must not be left out."""
    options: type[Any] | None = None


_RULES: dict[str, _Rule] = {
    "CONV_2D": _Rule(_convolution, 2, schema.Conv2DOptionsT),
    "DEPTHWISE_CONV_2D": _Rule(_convolution, 2, schema.DepthwiseConv2DOptionsT),
    "TRANSPOSE_CONV": _Rule(_transposed_convolution, 3, schema.TransposeConvOptionsT),
    "FULLY_CONNECTED": _Rule(_fully_connected, 2, schema.FullyConnectedOptionsT),
    "AVERAGE_POOL_2D": _Rule(_pool("avg_pool2d", 0), 1, schema.Pool2DOptionsT),
    "MAX_POOL_2D": _Rule(_pool("max_pool2d", -math.inf), 1, schema.Pool2DOptionsT),
    "MEAN": _Rule(_reduction("global_avg_pool"), 2, schema.ReducerOptionsT),
    "REDUCE_MAX": _Rule(_reduction("global_max_pool"), 2, schema.ReducerOptionsT),
    "RESIZE_NEAREST_NEIGHBOR": _Rule(_resize("upsample_nearest"), 2, schema.ResizeNearestNeighborOptionsT),
    "RESIZE_BILINEAR": _Rule(_resize("upsample_bilinear"), 2, schema.ResizeBilinearOptionsT),
    "ADD": _Rule(_arithmetic("add"), 2, schema.AddOptionsT),
    "MUL": _Rule(_arithmetic("mul"), 2, schema.MulOptionsT),
    "CONCATENATION": _Rule(_concatenation, 1, schema.ConcatenationOptionsT),
    "RESHAPE": _Rule(_reshape, 1),
    "SOFTMAX": _Rule(_softmax, 1, schema.SoftmaxOptionsT),
    "RELU": _Rule(_unary("relu"), 1),
    "RELU6": _Rule(_unary("relu6"), 1),
    "HARD_SWISH": _Rule(_unary("hard_swish"), 1),
    "LOGISTIC": _Rule(_unary("sigmoid"), 1),
    "GELU": _Rule(_gelu, 1, schema.GeluOptionsT),
    "ELU": _Rule(_unary("elu"), 1),
    "TANH": _Rule(_unary("tanh"), 1),
    "LEAKY_RELU": _Rule(_leaky_relu, 1, schema.LeakyReluOptionsT),
}
