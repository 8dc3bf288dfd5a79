"""A node cut out of an ONNX graph with its real weights, as a small model of its own that onnxruntime runs as it is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from profiler.formats.onnx.tensors import Tensor, Tensors, has_subgraph, used_by
from profiler.layers.layer import LayerSpec, OpaqueSubgraph


def extract(node: NodeProto, tensors: Tensors, model: ModelProto, kind: LayerSpec | None) -> tuple[LayerSpec, bytes]:
    """The layer and its model file. `kind` says which layer it is, where it is one whose weights or data are just unusual."""
    data = _model_of(node, tensors, model)
    weights = [tensors.constants[name] for name in used_by(node) if name in tensors.constants]
    opaque = OpaqueSubgraph(hashlib.sha256(data).hexdigest(), sum(map(_size_bytes, weights)), "onnx")
    if kind is not None:
        return replace(kind, opaque=opaque), data
    inputs = [tensors[name] for name in activations(node, tensors)]
    output = tensors[_outputs(node)[0]]
    layer = LayerSpec(
        node.op_type,
        tuple(tensor.shape for tensor in inputs),
        output.shape,
        dtype=(inputs[0] if inputs else output).dtype,
        opaque=opaque,
    )
    return layer, data


def activations(node: NodeProto, tensors: Tensors) -> list[str]:
    """What the node reads apart from constants."""
    return [name for name in used_by(node) if name not in tensors.constants]


def _outputs(node: NodeProto) -> list[str]:
    return [name for name in node.output if name]


def _model_of(node: NodeProto, tensors: Tensors, model: ModelProto) -> bytes:
    """Nothing in it depends on where the node was in its network: the same work gives the same bytes."""
    names = _canonical_names(node, tensors)
    copy = _renamed(node, names)
    weights = [_weight(tensors.constants[name], names[name]) for name in used_by(node) if name in tensors.constants]
    inputs = [_declaration(names[name], tensors[name]) for name in activations(node, tensors)]
    outputs = [_declaration(names[name], tensors[name]) for name in _outputs(node)]
    graph = helper.make_graph([copy], node.op_type, inputs, outputs, weights)
    domains = {"", node.domain}
    opsets = [opset for opset in model.opset_import if opset.domain in domains or has_subgraph(node)]
    cut: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    data: bytes = cut.SerializeToString(deterministic=True)
    return data


def _canonical_names(node: NodeProto, tensors: Tensors) -> Mapping[str, str]:
    if has_subgraph(node):
        return {name: name for name in (*used_by(node), *node.output)}  # the subgraph knows them by these names
    names = {name: f"output_{index}" for index, name in enumerate(_outputs(node))}
    for index, name in enumerate(used_by(node)):
        names[name] = f"weight_{index}" if name in tensors.constants else f"input_{index}"
    return names


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    copy = helper.make_node(
        node.op_type,
        [names.get(name, "") for name in node.input],
        [names.get(name, "") for name in node.output],
        domain=node.domain or None,
    )
    copy.attribute.extend(sorted(node.attribute, key=lambda item: item.name))  # onnxruntime keeps them in no fixed order
    return copy


def _weight(tensor: TensorProto, name: str) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name, copy.doc_string = name, ""
    return copy


def _declaration(name: str, tensor: Tensor) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, tensor.element_type, tensor.shape)


def _size_bytes(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    elements: int = math.prod(tensor.dims)
    return elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
