"""Reads a .tflite file into the fused groups that LiteRT executes with its default delegate, XNNPACK.

Every operator is a group, with these exceptions:

- A PAD whose only reader is a VALID convolution belongs to the convolution, in floats and in integers, because XNNPACK folds it
  (xnn_subgraph_fusion). It does not where the convolution is a matrix product: 1x1 with stride 1.
- A PAD (of minus infinity for a max pool) whose only reader is a VALID pool of floats belongs to the pool, which has no such
  padding itself. Both are executed.
- ADD 3, ReLU6 and MUL 1/6 are one hard_sigmoid. All of them are executed.
- Operators in a row on single eight-bit numbers are one group, because XNNPACK replaces them by one table.

The writer turns the first three back into the same operators. A ReLU that is an operator of its own is a group here;
profiler.layers.execution joins it with what XNNPACK joins it with.

Half-precision and int8 weights behind a DEQUANTIZE count as the float32 weights that XNNPACK makes of them when it loads a model.
Operators that LayerSpec does not describe exactly (quantised ones, and those of other kinds or with unusual options) are extracted
with their weights. Nothing is run here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.errors import LayerError, ModelError, PlanError
from profiler.formats.given import NOTHING, Given
from profiler.formats.tflite.complete import complete_tflite
from profiler.formats.tflite.opaque import extract
from profiler.formats.tflite.schema import Contents, Operator, Padding, parse, same_padding
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, Shape

_ACTIVATIONS: dict[int, str] = {
    number: name.lower() for name, number in vars(schema.ActivationFunctionType).items() if isinstance(number, int)
}
_SAME: int = schema.Padding.SAME
_NO_PADDING: Padding = (0, 0, 0, 0)
MOST_TABLE_STEPS = 10
"""XNN_MAX_UNARY_FUSION_NODES."""
_EIGHT_BITS = ("int8", "uint8")
_ANY = (*_EIGHT_BITS, "float32")
_UNARY: dict[str, tuple[str, ...]] = {
    "QUANTIZE": _ANY, "DEQUANTIZE": _ANY, "LOGISTIC": _ANY, "TANH": _ANY, "LEAKY_RELU": _ANY,
} | dict.fromkeys(
    ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND",
     "RSQRT", "SIN", "SQRT", "SQUARE"),
    ("float32",),
)  # fmt: skip
"""Operators on single numbers that XNNPACK executes, and the types in which it does."""
_UNARY_WITH_CONSTANT = {"ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT}
"""Those that do so if their other operand is a single constant, and their options."""


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """A file, and its operators as layers."""

    contents: Contents
    graph: Graph
    operators: Mapping[str, tuple[Operator, ...]]
    """The operators of the file that each node of the graph consists of, in an order in which they can run."""


def read_tflite(path: Path, given: Given = NOTHING) -> Graph:
    """The fused groups in the order of the file. Raises `ModelError` if the file is damaged or an operator cannot be measured."""
    return read_contents(path.stem, parse(path.name, complete_tflite(path, given))).graph


def read_contents(name: str, contents: Contents) -> TfliteModel:
    """The same for a file that is loaded, with the operators of each group; `name` is that of the graph."""
    network = _Network(contents)
    network.check_shapes()
    try:
        return _model(name, network)
    except (LayerError, PlanError) as exc:
        raise ModelError(f"{contents.label} contradicts itself: {exc}; convert the model again") from exc


@dataclass(frozen=True, slots=True)
class _Group:
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


class _Network:
    """The operators of the file, with the maker and the readers of each tensor."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._makers = {tensor: operator for operator in contents.operators for tensor in operator.outputs}
        self._readers = Counter([*contents.outputs, *(t for operator in contents.operators for t in operator.inputs)])
        self._first_readers: dict[int, Operator] = {}
        for operator in contents.operators:
            for tensor in operator.inputs:
                self._first_readers.setdefault(tensor, operator)

    def check_shapes(self) -> None:
        """Raises `ModelError` if a tensor has no fixed shape."""
        contents = self.contents
        used = {*contents.inputs, *contents.outputs}
        for operator in contents.operators:
            used |= {*contents.activations(operator), *operator.outputs}
        for tensor in used:
            signature = contents.tensors[tensor].shapeSignature
            # converters leave the batch size open by default, and it runs as in `shape`; no other open size has a known value
            if min(contents.shape(tensor), default=1) < 1 or (signature is not None and min(signature[1:], default=1) < 0):
                name = contents.name(tensor)
                raise ModelError(f"{contents.label}: {name} has no fixed shape; convert the model again with fixed sizes")

    def lone_maker(self, tensor: int, name: str) -> Operator | None:
        """The operator of this name that makes the tensor, if the tensor has exactly one reader."""
        maker = self._makers.get(tensor)
        return maker if maker is not None and maker.name == name and self._readers[tensor] == 1 else None

    def lookup_tables(self) -> dict[int, tuple[int, ...]]:
        """The numbers of operators that XNNPACK replaces by one table of 256 numbers, by the number of the last one.

        These are operators in a row that map each eight-bit number of one tensor to another, whatever is between; at most ten, with
        activations counted (xnn_subgraph_fuse_unary_quantized_into_lut).
        """
        contents = self.contents
        tables: dict[int, tuple[int, ...]] = {}
        taken: set[int] = set()
        for first in contents.operators:
            chain: list[Operator] = []
            steps = length = 0
            known = set(contents.activations(first))
            following = first if len(known) == 1 and all(contents.dtype(tensor) in _EIGHT_BITS for tensor in known) else None
            while following is not None and following.index not in taken and self._is_unary_of(following, known):
                steps += 1 if following.name in _UNARY or _activation(following.options) == "none" else 2
                if steps > MOST_TABLE_STEPS:
                    break
                chain.append(following)
                (made,) = following.outputs
                known.add(made)
                if contents.dtype(made) in _EIGHT_BITS and steps > 1:
                    length = len(chain)
                following = self._first_readers.get(made) if self._readers[made] == 1 else None
            if length > 1:
                numbers = tuple(operator.index for operator in chain[:length])
                tables[numbers[-1]] = numbers
                taken |= set(numbers)
        return tables

    def _is_unary_of(self, operator: Operator, tensors: set[int]) -> bool:
        """True if XNNPACK computes each number of the output from the numbers of these tensors at the same place."""
        contents = self.contents
        read = contents.activations(operator)
        if operator.is_custom or len(operator.outputs) != 1 or not read or not tensors.issuperset(read):
            return False
        shape = contents.shape(operator.outputs[0])
        if any(contents.shape(tensor) != shape for tensor in read):
            return False
        if operator.name in _UNARY:
            allowed = _UNARY[operator.name]
            return all(contents.dtype(tensor) in allowed for tensor in (*read, *operator.outputs))
        if not isinstance(operator.options, _UNARY_WITH_CONSTANT.get(operator.name, ())) or len(operator.inputs) != 2:
            return False
        others = [tensor for tensor in operator.inputs if tensor not in read]
        if any(math.prod(contents.shape(tensor)) != 1 for tensor in others):
            return False
        scales = [contents.scale(tensor) for tensor in (*operator.inputs, *operator.outputs)]
        if not all(scales):
            return not any(scales)
        # the limits of the delegate (xnnpack_delegate.cc), which leaves other operators to the interpreter
        first, second, made = scales
        if operator.name == "MUL":
            return 2**-16 <= first * second / made < 2**8
        return all(2**-10 <= scale / made < 2**8 for scale in (first, second))

    def is_plain(self, operator: Operator, activations: int) -> bool:
        """True if the operator computes in float32 and exactly this number of its operands are not constants."""
        contents = self.contents
        computed = contents.activations(operator)
        constants = [tensor for tensor in operator.inputs if tensor in contents.constants]
        return (
            len(computed) == activations
            and all(contents.dtype(tensor) == "float32" for tensor in (*computed, *operator.outputs))
            and all(
                contents.dtype(tensor) in ("float32", "int32") and contents.tensors[tensor].sparsity is None for tensor in constants
            )
        )

    def is_scalar(self, tensor: int, value: float) -> bool:
        """True if the tensor is a constant of this one number."""
        values = self.contents.values(tensor) if tensor >= 0 else None
        return values is not None and values.size == 1 and bool(np.float32(value) == values.reshape(()))

    def is_quantised(self, operator: Operator) -> bool:
        """True if the operator computes in eight-bit integers only, of one type, as XNNPACK's quantised convolutions do."""
        contents = self.contents
        kinds = {contents.dtype(tensor) for tensor in (operator.inputs[0], operator.inputs[1], *operator.outputs)}
        return operator.inputs[1] in contents.constants and kinds in ({"int8"}, {"uint8"})

    def unpadded(self, tensor: int, filler: float) -> tuple[int, Padding, tuple[int, ...]]:
        """The input of the PAD that makes this tensor, its padding and its number; the tensor itself without such a PAD.

        `filler` is the value with which it pads; a PAD of quantised tensors pads with their zero point, which stands for zero.
        """
        contents = self.contents
        pad = self.lone_maker(tensor, "PAD" if filler == 0 else "PADV2")
        if pad is not None and len(pad.inputs) == (2 if filler == 0 else 3) and contents.activations(pad) == pad.inputs[:1]:
            source, paddings = pad.inputs[:2]
            amounts = contents.integers(paddings) if contents.dtype(paddings) == "int32" else None
            fits = len(contents.shape(source)) == 4 and contents.dtype(source) == contents.dtype(tensor)
            if filler != 0:
                fits = fits and self.is_scalar(pad.inputs[2], filler)
            if fits and amounts is not None and amounts.shape == (4, 2) and not amounts[[0, 3]].any() and amounts.min() >= 0:
                (top, bottom), (left, right) = amounts[1:3].tolist()
                return source, (top, left, bottom, right), (pad.index,)
        return tensor, _NO_PADDING, ()


def _model(name: str, network: _Network) -> TfliteModel:
    contents = network.contents
    by_index = {operator.index: operator for operator in contents.operators}
    groups = {operator.index: _group(network, operator) for operator in contents.operators}
    for last, numbers in network.lookup_tables().items():
        operators = [by_index[number] for number in numbers]
        groups[last] = _Group(
            "+".join(operator.name for operator in operators),
            contents.read_from_outside(operators),
            exact=False,
            absorbed=numbers[:-1],
        )
    absorbed = {number for group in groups.values() if group is not None for number in group.absorbed}
    names: set[str] = set()
    sources = {tensor: _unique(contents.name(tensor), names) for tensor in contents.inputs}
    graph_inputs = tuple((source, contents.shape(tensor)) for tensor, source in sources.items())
    nodes, opaques, parts = [], {}, {}
    for operator in contents.operators:
        if operator.index in absorbed:
            continue
        group = groups[operator.index]
        own = (*(by_index[number] for number in (group.absorbed if group else ())), operator)
        layer, inputs, data = _layer(contents, own, group)
        if layer.opaque is not None:
            opaques[layer.opaque.digest] = data
        missing = [tensor for tensor in inputs if tensor not in sources]
        if missing or any(tensor in sources for tensor in operator.outputs):
            raise ModelError(
                f"{contents.label} is damaged: operator {operator.index} reads or makes tensors out of order; convert it again"
            )
        own_name = contents.name(operator.outputs[0]) if operator.outputs else operator.name
        node = Node(_unique(own_name, names), layer, tuple(sources[tensor] for tensor in inputs))
        sources |= dict.fromkeys(operator.outputs, node.name)
        nodes.append(node)
        parts[node.name] = own
    outputs = dict.fromkeys(sources[tensor] for tensor in contents.outputs if tensor in sources)
    if not nodes or not outputs:
        raise ModelError(f"{contents.label} computes nothing: it has no operators or no outputs")
    return TfliteModel(contents, Graph(name, graph_inputs, tuple(nodes), tuple(outputs), opaques), parts)


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken already, and added to `taken`: names repeat in files, but must not in graphs."""
    candidate = name
    count = 1
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    taken.add(candidate)
    return candidate


def _layer(contents: Contents, operators: tuple[Operator, ...], group: _Group | None) -> tuple[LayerSpec, tuple[int, ...], bytes]:
    """The layer, the tensors that it reads, and its file if it is extracted. Its last operator makes its output."""
    operator = operators[-1]
    computed = contents.read_from_outside(operators)
    # a description that reads a constant as an activation does not fit an extracted operator, whose constants are inside
    if group is None or (not group.exact and any(tensor not in computed for tensor in group.inputs)):
        group = _Group(operator.name, computed, exact=False)
    output = contents.shape(operator.outputs[0]) if operator.outputs else ()  # what keeps a state makes no tensor
    shapes = group.shapes or tuple(map(contents.shape, group.inputs))
    if group.exact:
        layer = LayerSpec(group.op, shapes, output, **group.fields)
        if layer.weight_shape and math.prod(layer.weight_shape) != math.prod(contents.shape(operator.inputs[1])):
            found = contents.shape(operator.inputs[1])
            raise LayerError(f"{layer.op}: {layer.inputs[0]} to {layer.output} needs weights of {layer.weight_shape}, not {found}")
        return layer, group.inputs, b""
    # an extracted operator may read more tensors than its description has, such as weights that are computed
    others = tuple(tensor for tensor in computed if tensor not in group.inputs)
    inputs = group.inputs + others
    shapes = shapes + tuple(map(contents.shape, others))
    opaque, data = extract(contents, operators)
    dtype = next((contents.dtype(tensor) for tensor in (*inputs, *operator.outputs)), "float32")
    return LayerSpec(group.op, shapes, output, **group.fields, dtype=dtype, opaque=opaque), inputs, data


def _group(network: _Network, operator: Operator) -> _Group | None:
    """The operator as a layer; None if there is no rule for it, or the rule does not apply."""
    rule = _RULES.get(operator.name)
    if rule is None or operator.is_custom or len(operator.outputs) != 1 or len(operator.inputs) < rule.operands:
        return None
    if min(operator.inputs[: rule.operands]) < 0 or (rule.options and not isinstance(operator.options, rule.options)):
        return None
    return rule.read(network, operator)


def _convolution(network: _Network, operator: Operator) -> _Group | None:
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
    padding = _NO_PADDING
    window = _window(options, filters[1:3]) | _dilation(options)
    groups = channels if is_depthwise else channels // max(filters[3], 1)
    # XNNPACK makes a matrix product of it when it reads the operator, and folds no PAD into that
    is_product = not is_depthwise and groups == 1 and filters[1:3] == window["stride"] == (1, 1)
    if options.padding == _SAME:
        padding = same_padding(contents.shape(source)[1:3], **window)
    elif not is_product and (exact or network.is_quantised(operator)):
        source, padding, absorbed = network.unpadded(source, 0)
    fields = {**window, "padding": padding, "groups": groups, "activation": _activation(options), "bias": _has(operator, 2)}
    return _Group("depthwise_conv2d" if is_depthwise else "conv2d", (source,), fields, exact, absorbed)


def _transposed_convolution(network: _Network, operator: Operator) -> _Group | None:
    contents, options = network.contents, operator.options
    weights, source = operator.inputs[1:3]
    size = contents.shape(source)
    made = contents.shape(operator.outputs[0])
    if not len(size) == len(made) == len(contents.shape(weights)) == 4:
        return None
    window = _window(options, contents.shape(weights)[1:3])
    same = same_padding(made[1:3], **window)
    padding = same if options.padding == _SAME else _NO_PADDING
    covered = tuple(-(-pixels // stride) for pixels, stride in zip(made[1:3], window["stride"], strict=True))
    exact = (
        network.is_plain(operator, 1)
        and source not in contents.constants
        and _is_fusable(options)
        and (options.padding != _SAME or covered == size[1:3])
    )
    fields = {**window, "padding": padding, "activation": _activation(options), "bias": _has(operator, 3)}
    return _Group("conv_transpose2d", (source,), fields, exact)


def _fully_connected(network: _Network, operator: Operator) -> _Group | None:
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
    fields = {"activation": _activation(options), "bias": _has(operator, 2)}
    return _Group("fully_connected", (source,), fields, exact, shapes=shapes)


def _pool(op: str, filler: float) -> _Read:
    def read(network: _Network, operator: Operator) -> _Group | None:
        contents, options = network.contents, operator.options
        source = operator.inputs[0]
        padding = _NO_PADDING
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
        fields = {**window, "padding": padding, "activation": _activation(options)}
        return _Group(op, (source,), fields, exact, absorbed)

    return read


def _reduction(op: str) -> _Read:
    def read(network: _Network, operator: Operator) -> _Group | None:
        contents = network.contents
        axes = contents.integers(operator.inputs[1])
        rank = len(contents.shape(operator.inputs[0]))
        if rank != 4 or axes is None or {int(axis) % 4 for axis in axes.reshape(-1)} != {1, 2}:
            return None
        return _Group(op, operator.inputs[:1], exact=network.is_plain(operator, 1))

    return read


def _resize(op: str) -> _Read:
    def read(network: _Network, operator: Operator) -> _Group | None:
        options = operator.options
        # nearest copies as many pixels with either convention; bilinear mixes different ones
        if options.alignCorners or not (options.halfPixelCenters or op == "upsample_nearest"):
            return None
        return _Group(op, operator.inputs[:1], exact=network.is_plain(operator, 1))

    return read


def _arithmetic(op: str) -> _Read:
    def read(network: _Network, operator: Operator) -> _Group | None:
        contents, options = network.contents, operator.options
        inputs = contents.activations(operator)
        ranks = [len(contents.shape(tensor)) for tensor in inputs]
        hard_sigmoid = _hard_sigmoid(network, operator) if op == "mul" else None
        silu = _silu(network, operator) if op == "mul" else None
        if hard_sigmoid is not None or silu is not None or not inputs:
            return hard_sigmoid or silu
        exact = network.is_plain(operator, 2) and _is_fusable(options) and min(ranks) >= 2
        return _Group(op, inputs, {"activation": _activation(options)}, exact)

    return read


def _hard_sigmoid(network: _Network, operator: Operator) -> _Group | None:
    """The hard_sigmoid MUL(ADD(x, 3) with ReLU6, 1/6); all converters put the constants on the right. None for other products."""
    shifted, sixth = operator.inputs[:2]
    add = network.lone_maker(shifted, "ADD")
    if add is None or len(add.inputs) != 2 or not isinstance(add.options, schema.AddOptionsT):
        return None
    fused = (_activation(add.options), _activation(operator.options))
    plain = network.is_plain(add, 1) and network.is_plain(operator, 1) and len(network.contents.shape(shifted)) >= 2
    if not plain or fused != ("relu6", "none") or not network.is_scalar(add.inputs[1], 3) or not network.is_scalar(sixth, 1 / 6):
        return None
    return _Group("hard_sigmoid", add.inputs[:1], absorbed=(add.index,))


def _silu(network: _Network, operator: Operator) -> _Group | None:
    """The silu MUL(x, LOGISTIC(x)); None for other products."""
    for source, gate in (operator.inputs[:2], operator.inputs[1::-1]):
        logistic = network.lone_maker(gate, "LOGISTIC")
        if logistic is not None and logistic.inputs == (source,) and _activation(operator.options) == "none":
            plain = network.is_plain(logistic, 1) and network.is_plain(operator, 2) and len(network.contents.shape(source)) >= 2
            return _Group("silu", (source,), absorbed=(logistic.index,)) if plain else None
    return None


def _concatenation(network: _Network, operator: Operator) -> _Group | None:
    contents, options = network.contents, operator.options
    inputs = contents.activations(operator)
    rank = len(contents.shape(operator.outputs[0]))
    if not inputs or rank < 2:
        return None
    is_plain = network.is_plain(operator, len(operator.inputs)) and _activation(options) == "none"
    return _Group("concat", inputs, exact=is_plain and options.axis in (rank - 1, -1))


def _reshape(network: _Network, operator: Operator) -> _Group | None:
    contents = network.contents
    before = contents.shape(operator.inputs[0])
    after = contents.shape(operator.outputs[0])
    if len(before) < 2 or after not in ((before[0], math.prod(before[1:])), (before[0], 1, 1, math.prod(before[1:]))):
        return None
    return _Group("flatten", operator.inputs[:1], exact=network.is_plain(operator, 1))


def _softmax(network: _Network, operator: Operator) -> _Group | None:
    return _unary("softmax")(network, operator) if operator.options.beta == 1 else None


def _unary(op: str) -> _Read:
    def read(network: _Network, operator: Operator) -> _Group | None:
        exact = network.is_plain(operator, 1) and len(network.contents.shape(operator.inputs[0])) >= 2
        return _Group(op, operator.inputs[:1], exact=exact)

    return read


def _gelu(network: _Network, operator: Operator) -> _Group | None:
    return None if operator.options.approximate else _unary("gelu")(network, operator)


def _leaky_relu(network: _Network, operator: Operator) -> _Group | None:
    found = _unary("leaky_relu")(network, operator)
    return None if found is None else replace(found, fields={"slope": float(f"{operator.options.alpha:.6g}")})


def _window(options: Any, kernel: Shape) -> dict[str, Any]:
    return {"kernel": tuple(kernel), "stride": (options.strideH, options.strideW)}


def _dilation(options: Any) -> dict[str, Any]:
    return {"dilation": (options.dilationHFactor, options.dilationWFactor)}


def _activation(options: Any) -> str:
    return _ACTIVATIONS.get(options.fusedActivationFunction, "unknown")


def _is_fusable(options: Any) -> bool:
    """True if we write the activation of these options into the same operator."""
    return _activation(options) in ("none", "relu", "relu6")


def _has(operator: Operator, operand: int) -> bool:
    """True if the optional operand is not left out."""
    return len(operator.inputs) > operand and operator.inputs[operand] >= 0


_Read = Callable[[_Network, Operator], _Group | None]


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
