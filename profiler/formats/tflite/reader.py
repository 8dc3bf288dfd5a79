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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import LayerError, ModelError, PlanError
from profiler.formats.given import NOTHING, Given
from profiler.formats.tflite.complete import complete_tflite
from profiler.formats.tflite.groups import Group, group_of
from profiler.formats.tflite.network import Network
from profiler.formats.tflite.opaque import extract
from profiler.formats.tflite.schema import Contents, Operator, parse
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec


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
    network = Network(contents)
    network.check_shapes()
    try:
        return _model(name, network)
    except (LayerError, PlanError) as exc:
        raise ModelError(f"{contents.label} contradicts itself: {exc}; convert the model again") from exc


def _model(name: str, network: Network) -> TfliteModel:
    contents = network.contents
    by_index = {operator.index: operator for operator in contents.operators}
    groups = {operator.index: group_of(network, operator) for operator in contents.operators}
    for last, numbers in network.lookup_tables().items():
        operators = [by_index[number] for number in numbers]
        groups[last] = Group(
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


def _layer(contents: Contents, operators: tuple[Operator, ...], group: Group | None) -> tuple[LayerSpec, tuple[int, ...], bytes]:
    """The layer, the tensors that it reads, and its file if it is extracted. Its last operator makes its output."""
    operator = operators[-1]
    computed = contents.read_from_outside(operators)
    # a description that reads a constant as an activation does not fit an extracted operator, whose constants are inside
    if group is None or (not group.exact and any(tensor not in computed for tensor in group.inputs)):
        group = Group(operator.name, computed, exact=False)
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
