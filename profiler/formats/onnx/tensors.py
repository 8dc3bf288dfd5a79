"""The shape and the type of every tensor in an ONNX graph with fixed inputs, and the values of constants."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.errors import ModelError
from profiler.layers.layer import Shape

Array = npt.NDArray[Any]
MOST_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
"""The largest tensor that is read or run on the host: a quarter of its memory, for there are copies of some."""
MOST_FILE_BYTES = 2**31 - 1
"""Protobuf holds no more."""
MOST_DERIVED_BYTES = min(MOST_BYTES, MOST_FILE_BYTES)
"""The same of one that follows from weights alone."""
FED = "netadapt_profiler.fed"
"""The key among the metadata of a model of the names of inputs whose values are in the file (profiler.formats.onnx.values)."""
_OVER_SPACE = (
    "Conv", "FusedConv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool",
)  # fmt: skip
"""Operators whose tensors have the channels on the second axis."""
_MOVES_AXES = ("Transpose", "Reshape", "MatMul", "FusedMatMul", "Einsum", "Unsqueeze", "Squeeze", "Flatten", "Gather")
"""Operators that read and make tensors of as many dimensions, which need not be the same ones."""
_RANDOM_OPS = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


@dataclass(frozen=True, slots=True)
class Tensor:
    """The shape and the type of a tensor."""

    shape: Shape
    """The shape in the layout of the file."""
    element_type: int
    """A data type of TensorProto."""

    @property
    def dtype(self) -> str:
        """The name of the data type, such as `float32` or `int8`."""
        if self.element_type == TensorProto.UNDEFINED:
            return "no tensor"
        return "string" if self.element_type == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(self.element_type).name


NOT_A_TENSOR = Tensor((), TensorProto.UNDEFINED)
"""A list, a dictionary or an optional value. What makes or reads one is a layer that cannot be measured alone."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """All tensors of a graph by name."""

    known: Mapping[str, Tensor]
    constants: Mapping[str, TensorProto]
    """Weights, and tensors that follow from weights alone."""
    channels_last: frozenset[str] = frozenset()
    """Tensors of four dimensions whose channels are the last one in the file, too."""
    sequences: frozenset[str] = frozenset()
    """Tensors of three dimensions (n, c, length), or of five (n, c, depth, h, w), whose channels are the second one in the file."""

    def shown(self, name: str) -> Shape:
        """The shape of a tensor as layers have it: with the channels last."""
        shape = self.known[name].shape
        if name in self.sequences:
            return (shape[0], *shape[2:], shape[1])
        return shape if name in self.channels_last else channels_last(shape)

    def __getitem__(self, name: str) -> Tensor:
        return self.known[name]

    def array(self, name: str) -> Array:
        """The value of a constant."""
        return numpy_helper.to_array(self.constants[name])


def channels_last(shape: Shape) -> Shape:
    """The shape (n, c, h, w) of a file as (n, h, w, c); all other shapes stay."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def in_file(shape: Shape) -> Shape:
    """The inverse: (n, h, w, c) becomes (n, c, h, w)."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def tensors_of(model: ModelProto) -> Tensors:
    """All tensors of the model.

    The file declares some of them. For the others, and for values that follow from weights alone, the model is run once. Raises
    `ModelError` if an input is too large.
    """
    graph = model.graph
    fed = fed_inputs(model)
    constants = {name: weight for name, weight in weights_of(graph).items() if name not in fed}
    derived = _names_derived_from(set(constants), graph.node)
    known = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        shape = shape_of(value)
        if shape is not None:
            known[value.name] = Tensor(shape, value.type.tensor_type.elem_type)
    made = [name for node in graph.node for name in node.output if name]
    seen = _run_once(model, [name for name in made if name in derived or name not in known])
    for name in made:
        known.setdefault(name, NOT_A_TENSOR)
    for name, array in seen.items():
        known[name] = Tensor(array.shape, helper.np_dtype_to_tensor_dtype(array.dtype))
    constants |= {name: numpy_helper.from_array(seen[name], name) for name in derived if name in seen}
    known |= {name: Tensor(tuple(weight.dims), weight.data_type) for name, weight in constants.items()}
    last = frozenset(_channels_last(graph.node, known, set(constants)))
    return Tensors(known, constants, last, frozenset(sequences_among(graph.node, known, set(constants))))


def sequences_among(nodes: Iterable[NodeProto], known: Mapping[str, Tensor], constants: Container[str]) -> set[str]:
    """What convolutions and pools read and make in three or five dimensions, and what is computed of it number by number."""
    found: set[str] = set()
    count = -1
    while len(found) > count:  # also what is made before, such as what is added to the output of a convolution
        count = len(found)
        for node in nodes:
            names = {name for name in (*node.input, *node.output) if name and name not in constants}
            large = {name for name in names if len(known[name].shape) > 1}
            alike = not found.isdisjoint(large) and node.op_type not in _MOVES_AXES
            if {len(known[name].shape) for name in large} in ({3}, {5}) and (node.op_type in _OVER_SPACE or alike):
                found |= large
    return found


def _channels_last(nodes: Iterable[NodeProto], known: Mapping[str, Tensor], constants: set[str]) -> set[str]:
    """The tensors between a Transpose that brings channels to the end and one that brings them back, as around a linear layer."""
    found: set[str] = set()  # of all ranks, as a product over the channels is one of matrices to the runtime
    for node in nodes:
        if channels_are_last(node, any(name in found for name in node.input if name not in constants)):
            found.update(name for name in node.output if name)
    return {name for name in found if len(known[name].shape) == 4}


def channels_are_last(node: NodeProto, read_last: bool) -> bool:
    """True if the channels of what the node makes are last in the file, which may be so for what it reads."""
    perm = next((list(item.ints) for item in node.attribute if item.name == "perm"), [])
    if node.op_type == "Transpose" and perm and perm[-1] != len(perm) - 1:
        return perm == [0, 2, 3, 1] and not read_last
    return read_last


def weights_of(graph: GraphProto) -> dict[str, TensorProto]:
    """The weights by name. Sparse ones are dense here, as onnxruntime makes them when it opens the model.

    Raises `ModelError` if one is too large, or has values outside of its shape.
    """
    weights = {weight.name: weight for weight in graph.initializer}
    for sparse in graph.sparse_initializer:
        values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        size = math.prod(sparse.dims)
        if size * values.dtype.itemsize > MOST_DERIVED_BYTES:
            raise ModelError(f"the sparse weight {sparse.values.name} of shape {tuple(sparse.dims)} is too large")
        flat = np.ravel_multi_index(tuple(places.T), tuple(sparse.dims)) if places.ndim == 2 else places
        if min(sparse.dims, default=1) < 0 or flat.size != values.size or not ((flat >= 0) & (flat < size)).all():
            raise ModelError(f"the sparse weight {sparse.values.name} has values outside of its shape {tuple(sparse.dims)}")
        dense = np.zeros(size, values.dtype)
        dense[flat] = values
        weights[sparse.values.name] = numpy_helper.from_array(dense.reshape(sparse.dims), sparse.values.name)
    return weights


def with_values(weight: TensorProto) -> TensorProto:
    """The weight itself or, if its values were left out, one of the same shape with random floats, or with zeros."""
    if weight.data_location != TensorProto.EXTERNAL:
        return weight
    dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
    shape = tuple(weight.dims)
    if math.prod(shape) * dtype.itemsize > MOST_FILE_BYTES:
        raise ModelError(f"the weight {weight.name} of shape {shape} is too large to be measured")
    # positive, for some are variances; small, for sums to stay finite; far from denormals, which are slow
    values = np.random.default_rng(1).uniform(0.01, 0.1, shape) if dtype.kind == "f" else np.zeros(shape)
    return numpy_helper.from_array(values.astype(dtype), weight.name)


def make_up(model: ModelProto, names: Container[str]) -> None:
    """Put operators that make constants in the place of these weights: a runtime runs them once, when it opens the model."""
    kept, nodes = [], []
    for weight in model.graph.initializer:
        if weight.name not in names:
            kept.append(weight)
            continue
        kind = helper.tensor_dtype_to_np_dtype(weight.data_type).kind
        value = helper.make_tensor("value", weight.data_type, [1], [0.05 if kind == "f" else 0])
        kept.append(numpy_helper.from_array(np.array(weight.dims, np.int64), f"{weight.name} of shape"))
        nodes.append(helper.make_node("ConstantOfShape", [f"{weight.name} of shape"], [weight.name], value=value))
    nodes += model.graph.node
    for field, items in (("initializer", kept), ("node", nodes)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(items)
    for place in reversed(range(len(model.graph.input))):
        if model.graph.input[place].name in names:
            del model.graph.input[place]


def derived_bytes(graph: GraphProto) -> int:
    """The size of all tensors that follow from weights alone, as far as the graph declares their shapes."""
    weights = {weight.name for weight in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    derived = _names_derived_from(weights, graph.node)
    return sum(_bytes_of(value) for value in (*graph.value_info, *graph.output) if value.name in derived)


def fed_inputs(model: ModelProto) -> set[str]:
    """The names of the inputs whose values are in the file."""
    told = next((entry.value for entry in model.metadata_props if entry.key == FED), "[]")
    return set(json.loads(told)) & {value.name for value in model.graph.input}


def check_sizes(graph: GraphProto) -> None:
    """Raises `ModelError` for a tensor that is too large to run. It is called first, because a few bytes can demand gigabytes."""
    weights = {weight.name for weight in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    derived = _names_derived_from(weights, graph.node)
    for value in (*graph.value_info, *graph.output, *graph.input):
        _check_size(value, MOST_DERIVED_BYTES if value.name in derived else MOST_BYTES)


def _check_size(value: ValueInfoProto, most_bytes: int = MOST_BYTES) -> None:
    if _bytes_of(value) > most_bytes:
        raise ModelError(f"tensor {value.name} of shape {shape_of(value)} is too large: it takes over {most_bytes / 2**30:.1f} GiB")


def _bytes_of(value: ValueInfoProto) -> int:
    """`ModelError` for a type that does not exist."""
    shape, kind = shape_of(value) or (), value.type.tensor_type.elem_type
    if kind not in TensorProto.DataType.values():
        raise ModelError(f"tensor {value.name} is of type {kind}, which does not exist; the file is damaged")
    item_bytes = 1 if kind in (TensorProto.UNDEFINED, TensorProto.STRING) else helper.tensor_dtype_to_np_dtype(kind).itemsize
    return math.prod(shape) * item_bytes


def used_by(node: NodeProto) -> list[str]:
    """The tensors that a node reads, each once: its inputs, and those that its subgraphs (If, Loop, Scan) take from the graph."""
    names = [name for name in node.input if name]
    for graph in _subgraphs(node):
        inside = {value.name for value in graph.input} | {weight.name for weight in graph.initializer}
        for child in graph.node:
            names += [name for name in used_by(child) if name not in inside]
            inside.update(child.output)
        names += [value.name for value in graph.output if value.name not in inside]
    return list(dict.fromkeys(names))


def has_subgraph(node: NodeProto) -> bool:
    """True if the node contains a graph, as If, Loop and Scan do."""
    return any(True for _ in _subgraphs(node))


def shape_of(value: ValueInfoProto) -> Shape | None:
    """The shape in the layout of the file; None unless every dimension is a positive number."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    shape = tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)
    return shape if all(size > 0 for size in shape) else None


def opset_of(model: ModelProto) -> int:
    """The version of the standard operators that the model uses."""
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def open_session(
    model: ModelProto, level: ort.GraphOptimizationLevel, save_to: Path | None = None, *, weights_apart: bool = False
) -> ort.InferenceSession:
    """A session on the host's processor that prints nothing; errors are exceptions.

    The optimised model is written to `save_to`, if given, and its large weights into a file beside it if they are to be apart.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        if weights_apart:
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _names_derived_from(constants: set[str], nodes: Iterable[NodeProto]) -> set[str]:
    """The outputs of nodes that read only constants, such as the dequantised weights of a layer that stays in floats."""
    derived: set[str] = set()
    for node in nodes:
        if node.op_type not in _RANDOM_OPS and all(name in constants or name in derived for name in used_by(node)):
            derived.update(name for name in node.output if name)
    return derived


def _run_once(model: ModelProto, names: list[str]) -> dict[str, Array]:
    """The values of those of these names that are tensors, for inputs of zeros."""
    if not names:
        return {}
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(ValueInfoProto(name=name) for name in names)
    make_up(probe, {weight.name for weight in probe.graph.initializer if weight.data_location == TensorProto.EXTERNAL})
    session = open_session(probe, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    inputs: dict[str, Array] = {}
    fed = fed_inputs(model)
    for declared in model.graph.input:
        if declared.name in fed:
            continue
        shape = shape_of(declared) or ()
        _check_size(declared)
        if declared.type.tensor_type.elem_type == TensorProto.STRING:
            inputs[declared.name] = np.full(shape, "", dtype=object)
        else:
            inputs[declared.name] = np.zeros(shape, dtype=helper.tensor_dtype_to_np_dtype(declared.type.tensor_type.elem_type))
    values = session.run(names, inputs)
    return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}
