"""What is known of every tensor of an ONNX graph with fixed inputs: its shape, its type and, of a constant, its value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
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
MAX_ELEMENTS = 2**31 - 1
MAX_DERIVED = 2**25
"""Elements of what follows from weights alone: onnxruntime works it out, and keeps it, when it opens the model."""
_RANDOM_OPS = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


@dataclass(frozen=True, slots=True)
class Tensor:
    shape: Shape
    """As in the file."""
    element_type: int
    """A TensorProto data type."""

    @property
    def dtype(self) -> str:
        """float32, int8, …"""
        return "string" if self.element_type == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(self.element_type).name


@dataclass(frozen=True, slots=True)
class Tensors:
    known: Mapping[str, Tensor]
    constants: Mapping[str, TensorProto]
    """Weights, and what follows from weights alone."""

    def __getitem__(self, name: str) -> Tensor:
        return self.known[name]

    def array(self, name: str) -> Array:
        """The value of a constant."""
        return numpy_helper.to_array(self.constants[name])


def tensors_of(model: ModelProto) -> Tensors:
    """From the file where it says so; otherwise the model is run once, which also shows what follows from the weights alone."""
    graph = model.graph
    constants = {weight.name: weight for weight in graph.initializer}
    derived = _names_derived_from(set(constants), graph.node)
    known = dict(_declared(graph))
    made = [name for node in graph.node for name in node.output if name]
    seen = _run_once(model, [name for name in made if name in derived or name not in known])
    for name, value in seen.items():
        known[name] = Tensor(value.shape, helper.np_dtype_to_tensor_dtype(value.dtype))
    constants |= {name: numpy_helper.from_array(seen[name], name) for name in derived}
    known |= {name: Tensor(tuple(weight.dims), weight.data_type) for name, weight in constants.items()}
    return Tensors(known, constants)


def check_sizes(graph: GraphProto) -> None:
    """`ModelError` for a tensor that is too large to run, before anybody tries: a few bytes can ask for gigabytes."""
    derived = _names_derived_from({weight.name for weight in graph.initializer}, graph.node)
    for value in (*graph.value_info, *graph.output):
        shape = shape_of(value) or ()
        if math.prod(shape) > (MAX_DERIVED if value.name in derived else MAX_ELEMENTS):
            raise ModelError(f"tensor {value.name} of shape {shape} is too large to run")


def used_by(node: NodeProto) -> list[str]:
    """Tensors that a node reads, each once: its inputs and what its subgraphs (If, Loop, Scan) take from around them."""
    names = [name for name in node.input if name]
    for graph in _subgraphs(node):
        inside = {value.name for value in graph.input} | {weight.name for weight in graph.initializer}
        for child in graph.node:
            names += [name for name in used_by(child) if name not in inside]
            inside.update(child.output)
        names += [value.name for value in graph.output if value.name not in inside]
    return list(dict.fromkeys(names))


def has_subgraph(node: NodeProto) -> bool:
    return any(True for _ in _subgraphs(node))


def shape_of(value: ValueInfoProto) -> Shape | None:
    """None unless every dimension is a positive number."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    shape = tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)
    return shape if all(size > 0 for size in shape) else None


def opset_of(model: ModelProto) -> int:
    """Of the standard operators."""
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def open_session(model: ModelProto, level: ort.GraphOptimizationLevel, save_to: Path | None = None) -> ort.InferenceSession:
    """onnxruntime on the host's processor, without a word on the terminal: what matters comes as an exception."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _declared(graph: GraphProto) -> Iterator[tuple[str, Tensor]]:
    for value in (*graph.value_info, *graph.output, *graph.input):
        shape = shape_of(value)
        if shape is not None:
            yield value.name, Tensor(shape, value.type.tensor_type.elem_type)


def _names_derived_from(constants: set[str], nodes: Iterable[NodeProto]) -> set[str]:
    """Outputs of nodes that read constants only, such as the dequantised weights of a layer that stays in float."""
    derived: set[str] = set()
    for node in nodes:
        if node.op_type not in _RANDOM_OPS and all(name in constants or name in derived for name in used_by(node)):
            derived.update(name for name in node.output if name)
    return derived


def _run_once(model: ModelProto, names: list[str]) -> dict[str, Array]:
    """The tensors of these names, for inputs of zeros."""
    if not names:
        return {}
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = open_session(probe, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    values = session.run(names, {value.name: _zeros(value) for value in model.graph.input})
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, np.ndarray):
            raise ModelError(f"{name} is not a tensor but a list or a dictionary of them, which cannot be measured")
    return dict(zip(names, values, strict=True))


def _zeros(value: ValueInfoProto) -> Array:
    shape = shape_of(value) or ()
    if math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"input {value.name} of shape {shape} is too large to run")
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
