"""What LiteRT executes for a .tflite file: the operators that its profiler reports, matched with the layers of the file.

LiteRT saves no graph, but its profiler reports the operators in the order of execution: those of the interpreter by their names in
TFLite, and those of its delegate, XNNPACK, by XNNPACK's names, which tell neither shapes nor tensors. So a node of the file is an
operator's if it has this kind and everything that it reads was made before. Several nodes can be that: TFLite hands all that can
run to a delegate at once and XNNPACK keeps the order of the file, so it is the first of them.

An operator without a node, and a node without an operator, are contradictions, never left out: the rules for what XNNPACK folds
(profiler.formats.tflite.reader, profiler.layers.execution) are wrong then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from profiler.errors import ModelError
from profiler.formats.tflite.opaque import cut
from profiler.formats.tflite.reader import TfliteModel, read_contents
from profiler.formats.tflite.recording import recorded
from profiler.formats.tflite.schema import Operator, parse
from profiler.formats.tflite.writer import is_product, needs_pad, transposed_shape
from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import BINARY_OPS, WEIGHTED_OPS, LayerSpec

RUNTIME = "litert"
LOOKUP_TABLE = "Invalid Unary Op"
"""The name in XNNPACK's profile of a table of 256 numbers, which stands for several operators on one quantised number."""


@dataclass(frozen=True, slots=True)
class ExecutedModel:
    """A .tflite file and the layers that LiteRT executes for it."""

    model: TfliteModel
    graph: Graph
    """The layers in the order of execution."""
    operators: Mapping[str, tuple[Operator, ...]]
    """The operators of the file that each node of `graph` consists of."""
    remark: str | None = None
    """Which layers are fed with values of the network's own when they are measured alone."""

    def stretch(self, first: int, last: int) -> tuple[Graph, bytes]:
        """The nodes from `first` up to but without `last`, and a file of just their operators, with their own weights."""
        contents = self.model.contents
        # in the order of the file, in which they can run as well
        inside = {operator.index: operator for node in self.graph.nodes[first:last] for operator in self.operators[node.name]}
        operators = [inside[number] for number in sorted(inside)]
        read = {tensor for operator in operators for tensor in operator.inputs}
        read_elsewhere = {
            tensor for operator in contents.operators if operator.index not in inside for tensor in operator.inputs
        } | set(contents.outputs)
        made = [tensor for operator in operators for tensor in operator.outputs]
        outputs = [tensor for tensor in made if tensor in read_elsewhere or tensor not in read]
        return self.graph.part(first, last), cut(contents, operators, outputs)[0]


def read_executed(name: str, file: bytes, operators: Sequence[ExecutedOperator], block: int = 1) -> ExecutedModel:
    """The layers that LiteRT executes for a file, in the order of execution.

    `operators` are those that its profiler reported for the same file. LiteRT has no blocked layout, so that `block` is 1. Raises
    `ModelError` if the file cannot be read, or if it and the operators contradict each other.
    """
    ruled = executed_by_rules(name, file)
    nodes = {node.name: node for node in matched(ruled.graph, operators)}
    return replace(ruled, graph=replace(ruled.graph, nodes=tuple(nodes.values())))


def executed_by_rules(name: str, file: bytes) -> ExecutedModel:
    """The layers that LiteRT executes for a file by our rules, in the order of the file, for a runtime that does not tell.

    The file is run on this machine if layers need values that it feeds them. Raises `ModelError` if it cannot be read.
    """
    contents, remark = recorded(parse(name, file), file)
    model = read_contents(name, contents)
    graph = ExecutionRules(RUNTIME).executed(model.graph)
    names = {node.name for node in graph.nodes}
    owners: dict[str, str] = {}
    parts: dict[str, tuple[Operator, ...]] = {}
    for node in model.graph.nodes:
        # a node that the rules joined with the one before it has the name of that
        owner = owners[node.name] = node.name if node.name in names else owners[node.inputs[0]]
        parts[owner] = (*parts.get(owner, ()), *model.operators[node.name])
    return ExecutedModel(model, graph, parts, remark)


def matched(graph: Graph, operators: Sequence[ExecutedOperator]) -> tuple[Node, ...]:
    """The node of each operator. A node that LiteRT executes as several operators is there for each of them.

    `graph` has the layers that are executed by our rules. Raises `ModelError`, with the reason, if the operators contradict them.
    """
    pending = {node.name: node for node in graph.nodes}
    begun: dict[str, tuple[str, ...]] = {}
    """The operators that are still to come for nodes of several."""
    made = {name for name, _ in graph.inputs}
    found = []
    for place, operator in enumerate(operators):
        for node in pending.values():
            steps = begun.get(node.name) or _steps(node.layer, operator)
            if steps and made.issuperset(node.inputs) and _runs(operator, steps[0]):
                break
        else:
            raise ModelError(
                f"{graph.name}: operator {place + 1} of {len(operators)} in the runtime's profile, {operator.op} "
                f"({operator.partition}), is no layer of the file that could run there"
            )
        found.append(node)
        begun[node.name] = steps[1:]
        if len(steps) == 1:
            made.add(node.name)
            del pending[node.name]
    for node in pending.values():
        raise ModelError(f"{graph.name}: the runtime's profile has no operator for {node.name} ({node.layer.op})")
    return tuple(found)


def _steps(layer: LayerSpec, first: ExecutedOperator) -> tuple[str, ...]:
    """The names in TFLite of the operators that are executed for a layer, one after the other, if this is the first of them."""
    name = _TFLITE_NAMES.get(layer.op, layer.op)
    is_delegated = first.partition != "interpreter"
    if is_delegated and first.op == LOOKUP_TABLE:
        is_table = "+" in layer.op or layer.op in (*BINARY_OPS, "hard_sigmoid", "SUB")
        return (LOOKUP_TABLE,) if is_table and layer.dtype in ("int8", "uint8") and len(layer.inputs) == 1 else ()
    if is_delegated and first.op.startswith("Convert (NC, F32, QD8") and layer.opaque is not None and layer.op in WEIGHTED_OPS:
        return ("QUANTIZE", name)  # weights of integers for activations of floats, which are quantised for this layer
    if is_delegated and first.op.startswith("Static Reshape") and layer.op == "fully_connected":
        return ("RESHAPE", name)  # without keep_num_dims it brings what it reads to two dimensions, even if these are two
    if layer.op in _SEVERAL:
        return _SEVERAL[layer.op]
    if layer.op == "hard_sigmoid":
        return ("ADD", "RELU6", "MUL") if is_delegated else ("ADD", "MUL")
    if layer.op in BINARY_OPS and layer.activation != "none" and is_delegated:
        return (name, "RELU")  # XNNPACK has no sums and products that apply an activation
    if layer.opaque is not None:
        return (name,)
    # what the writer adds
    if layer.op == "max_pool2d" and needs_pad(layer):
        return ("PADV2", name)
    if (layer.op == "avg_pool2d" or is_product(layer)) and needs_pad(layer):
        return ("PAD", name)
    if layer.op == "conv_transpose2d" and transposed_shape(layer) != layer.output:
        return (name, "SLICE")
    return (name,)


def _runs(operator: ExecutedOperator, name: str) -> bool:
    """True if the operator of a profile can be the TFLite operator of this name."""
    if operator.partition == "interpreter" or name == LOOKUP_TABLE:
        return operator.op == name
    # XNNPACK's names end with layout, types and algorithm: "Convolution (NHWC, F32) IGEMM"
    kind = operator.op.split(" (")[0]
    return kind in _XNNPACK_NAMES.get(name, ()) or kind.replace(" ", "").lower() == name.replace("_", "").lower()


_TFLITE_NAMES: dict[str, str] = {
    "conv2d": "CONV_2D",
    "depthwise_conv2d": "DEPTHWISE_CONV_2D",
    "conv_transpose2d": "TRANSPOSE_CONV",
    "fully_connected": "FULLY_CONNECTED",
    "avg_pool2d": "AVERAGE_POOL_2D",
    "max_pool2d": "MAX_POOL_2D",
    "global_avg_pool": "MEAN",
    "global_max_pool": "REDUCE_MAX",
    "upsample_nearest": "RESIZE_NEAREST_NEIGHBOR",
    "upsample_bilinear": "RESIZE_BILINEAR",
    "add": "ADD",
    "mul": "MUL",
    "concat": "CONCATENATION",
    "flatten": "RESHAPE",
    "softmax": "SOFTMAX",
    "relu": "RELU",
    "relu6": "RELU6",
    "hard_swish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
    "leaky_relu": "LEAKY_RELU",
    "gelu": "GELU",
    "elu": "ELU",
    "tanh": "TANH",
}
"""The operators in TFLite of our operations; an opaque layer of another kind has its name there already."""

_SEVERAL: dict[str, tuple[str, ...]] = {"silu": ("LOGISTIC", "MUL"), "softplus": ("EXP", "ADD", "LOG")}
"""Activations that are several operators in TFLite and in XNNPACK."""

_XNNPACK_NAMES: dict[str, tuple[str, ...]] = {
    "CONV_2D": ("Convolution", "Fully Connected"),
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "TRANSPOSE_CONV": ("Deconvolution",),
    "FULLY_CONNECTED": ("Dynamic Fully Connected",),
    "BATCH_MATMUL": ("Batch Matrix Multiply",),
    "AVERAGE_POOL_2D": ("Average Pooling",),
    "MAX_POOL_2D": ("Max Pooling",),
    "SUB": ("Subtract",),
    "MUL": ("Multiply",),
    "DIV": ("Divide",),
    "CONCATENATION": ("Copy",),
    "SPLIT": ("Copy",),
    "RESHAPE": ("Static Reshape", "Copy"),
    "EXPAND_DIMS": ("Static Expand Dims", "Static Reshape", "Copy"),
    "RELU": ("Clamp",),
    "RELU6": ("Clamp",),
    "RELU_N1_TO_1": ("Clamp",),
    "RELU_0_TO_1": ("Clamp",),
    "LOGISTIC": ("Sigmoid",),
    "PAD": ("Constant Pad",),
    "QUANTIZE": ("Convert",),
    "DEQUANTIZE": ("Convert",),
    "STRIDED_SLICE": ("Slice",),
    "GELU": ("ApproxGELU",),
    "ROUND": ("Bankders Rounding",),
    "SQRT": ("Square Root",),
    "RSQRT": ("Reciprocal Square Root",),
    "NEG": ("Negate",),
    "SIN": ("Sine",),
    "COS": ("Cosine",),
    "CEIL": ("Ceiling",),
}
"""XNNPACK's names (xnn_operator_type) for TFLite's operators, where these are not the same words."""
