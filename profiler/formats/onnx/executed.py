"""Reads what ONNX Runtime executes on a device: the optimised graph that it saved there, and the shapes that its profiler
reported.

The graph has no values of large weights. Latency does not depend on them, so an operator that we do not model is cut out with
random weights. Whole numbers are 0 instead, because they may be indices.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from profiler.errors import LayerError, ModelError, PlanError
from profiler.formats.onnx.blocked import DOMAIN, describe_blocked
from profiler.formats.onnx.integers import describe_integers
from profiler.formats.onnx.layers import describe
from profiler.formats.onnx.names import name_of, unique
from profiler.formats.onnx.opaque import activations, declaration, extract
from profiler.formats.onnx.recording import Recording
from profiler.formats.onnx.tensors import (
    NOT_A_TENSOR,
    Tensor,
    Tensors,
    fed_inputs,
    opset_of,
    sequences_among,
    shape_of,
    used_by,
    weights_of,
    with_values,
)
from profiler.formats.onnx.values import feed
from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.graph import Graph, Node

_TYPES = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE}
"""Element types that the profiler calls by C++ names; it calls all others as ONNX does."""
_PACKED = re.compile(r"x\d$")
"""What the profiler adds to the names of types of which several elements share a byte, such as int4x2."""
_OF_ANY_LAYOUT = (
    "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu",
    "QLinearSoftmax", "Resize", "Add", "Sub", "Mul", "Div", "Concat", "Erf", "Relu", "Clip", "HardSigmoid", "Sigmoid",
    "LeakyRelu", "Elu", "Softplus", "Tanh",
)  # fmt: skip
"""Operators whose tensors all have the channels at the same place, wherever that is."""


@dataclass(frozen=True, slots=True)
class ExecutedModel:
    """An optimised model, its nodes in the order of execution, and the same nodes as layers."""

    proto: ModelProto
    order: tuple[NodeProto, ...]
    tensors: Tensors
    graph: Graph
    """One node for each in `order`."""
    remark: str | None = None
    """Which layers are fed with values of the network's own when they are measured alone."""

    def stretch(self, first: int, last: int) -> tuple[Graph, bytes]:
        """The nodes from `first` up to but without `last`, and a model of just these, to be run as it is."""
        part, protos = self.graph.part(first, last), self.order[first:last]
        made = {key for proto in protos for key in proto.output if key}
        read = list(dict.fromkeys(key for proto in protos for key in activations(proto, self.tensors) if key not in made))
        after = {key for proto in self.order[last:] for key in used_by(proto)} | {value.name for value in self.proto.graph.output}
        kept = [key for proto in protos for key in proto.output if key in after]
        weights = list(dict.fromkeys(key for proto in protos for key in used_by(proto) if key in self.tensors.constants))
        proto = helper.make_graph(
            protos,
            part.name,
            [declaration(key, self.tensors[key]) for key in read],
            [declaration(key, self.tensors[key]) for key in kept],
            [with_values(self.tensors.constants[key]) for key in weights],
        )
        model: ModelProto = helper.make_model(proto, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version)
        fed = fed_inputs(self.proto) & set(read)
        feed(
            model,
            {
                weight.name: numpy_helper.to_array(with_values(weight))
                for weight in self.proto.graph.initializer
                if weight.name in fed
            },
        )
        data: bytes = model.SerializeToString(deterministic=True)
        return part, data


def read_executed(
    name: str, graph: bytes, operators: Sequence[ExecutedOperator], block: int, file: bytes | None = None
) -> ExecutedModel:
    """The operators that the runtime executes, as layers, in the order of execution.

    `graph` is the optimised model as the runtime saved it, and `block` the number of channels in a block of the device's blocked
    layout; `file` is the model before it was optimised, which is run on this machine if layers need values that it feeds them.
    Raises `ModelError` if the graph is damaged, or if graph and operators contradict each other.
    """
    try:
        model = onnx.load_model_from_string(graph)
        return _read(name, model, _in_order(model, operators), block, file)
    except (DecodeError, ValueError, LookupError, TypeError) as exc:
        raise ModelError(f"{name}: the device sent a damaged graph ({type(exc).__name__}: {str(exc)[:200]})") from exc
    except (LayerError, PlanError, ModelError) as exc:
        raise ModelError(f"{name}: {exc}") from exc


def _in_order(model: ModelProto, operators: Sequence[ExecutedOperator]) -> list[tuple[NodeProto, ExecutedOperator]]:
    """The nodes of the graph beside their operators, in the order of execution.

    Nodes may share a name, or have none, in which case the profiler makes one up: such nodes of one kind are taken in their order.
    """
    left = list(model.graph.node)
    pairs = []
    for operator in operators:
        alike = [node for node in left if node.op_type == operator.op]
        node = next((node for node in alike if node.name == operator.name), alike[0] if alike else None)
        if node is None:
            raise ValueError(f"the profiler reports {operator.op} {operator.name}, which is not in the saved graph")
        left.remove(node)
        pairs.append((node, operator))
    if left:
        raise ValueError(f"the profiler does not report {left[0].op_type} {left[0].name}")
    return pairs


def _read(
    name: str, model: ModelProto, pairs: Sequence[tuple[NodeProto, ExecutedOperator]], block: int, file: bytes | None
) -> ExecutedModel:
    known = dict(_known_tensors(model, pairs))
    recording = Recording(file, known) if file is not None else None
    fed = fed_inputs(model)
    weights = {name: weight for name, weight in weights_of(model.graph).items() if name not in fed}
    protos = [proto for proto, _ in pairs]
    last = frozenset(_channels_last(protos, known, weights))
    tensors = Tensors(known, weights, last, frozenset(sequences_among(protos, known, weights)))
    inputs = [value.name for value in model.graph.input if value.name not in tensors.constants]
    source_of = {key: key for key in inputs}
    nodes: dict[str, Node] = {}
    opaques: dict[str, bytes] = {}
    for proto, _ in pairs:
        if proto.domain == DOMAIN:
            description = describe_blocked(proto, tensors, block)
        else:
            description = describe_integers(proto, tensors, opset_of(model)) or describe(proto, tensors, opset_of(model))
        if description is not None and description.exact:
            layer, reads = description.layer, list(description.reads)
        else:
            layer, data = extract(proto, tensors, model, description.layer if description else None, recording)
            reads = activations(proto, tensors)
            if layer.opaque is not None:
                opaques[layer.opaque.digest] = data
        node = Node(unique(name_of(proto, tensors), {*inputs, *nodes}), layer, tuple(source_of[key] for key in reads))
        nodes[node.name] = node
        source_of |= {key: node.name for key in proto.output if key}
    outputs = tuple(dict.fromkeys(source_of[value.name] for value in model.graph.output if value.name in source_of))
    shapes = tuple((key, tensors.shown(key)) for key in inputs)
    graph = Graph(name, shapes, tuple(nodes.values()), outputs, opaques, executed=True)
    return ExecutedModel(model, tuple(proto for proto, _ in pairs), tensors, graph, recording.remark if recording else None)


def _channels_last(nodes: Sequence[NodeProto], known: Mapping[str, Tensor], weights: Container[str]) -> set[str]:
    """The tensors of four dimensions whose channels are last: those of operators that need it, and what goes with them.

    A model may be a part of another one, so that its inputs may have the channels last, too.
    """
    found: set[str] = set()
    while True:
        before = len(found)
        for node in (*nodes, *reversed(nodes)):
            if node.domain == DOMAIN or not node.input:
                continue
            tensors = {key for key in (*node.input, *node.output) if key and key not in weights and len(known[key].shape) == 4}
            perm = next((tuple(item.ints) for item in node.attribute if item.name == "perm"), None)
            if node.op_type == "Transpose":
                ends = {(0, 2, 3, 1): node.output, (0, 3, 1, 2): node.input}.get(perm or (), [])
                found.update(ends if tensors else [])
                continue
            needs = node.op_type == "NhwcMaxPool" or any(item.name == "channels_last" and item.i for item in node.attribute)
            if needs or (node.op_type in _OF_ANY_LAYOUT and not tensors.isdisjoint(found)):
                found |= tensors
        if len(found) == before:
            return found


def _known_tensors(model: ModelProto, pairs: Sequence[tuple[NodeProto, ExecutedOperator]]) -> Iterator[tuple[str, Tensor]]:
    """Shapes and types: weights and inputs as the graph declares them, everything else as the profiler saw it."""
    for value in (*model.graph.input, *model.graph.output):
        shape = shape_of(value)
        if shape is not None:
            yield value.name, Tensor(shape, value.type.tensor_type.elem_type)
    for weight in weights_of(model.graph).values():
        yield weight.name, Tensor(tuple(weight.dims), weight.data_type)
    for node, operator in pairs:
        made = [key for key in node.output if key]
        if not operator.outputs:  # the profiler tells the shapes of tensors only
            yield from ((key, NOT_A_TENSOR) for key in made)
            continue
        for key, tensor in zip(made, operator.outputs, strict=True):
            ((kind, shape),) = tensor.items()
            yield key, Tensor(shape, _TYPES.get(kind) or TensorProto.DataType.Value(_PACKED.sub("", kind).upper()))
