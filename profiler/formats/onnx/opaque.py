"""Extracts a node of an ONNX graph, with its real weights, as a model of its own that onnxruntime runs unchanged."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from profiler.formats.onnx.tensors import Tensor, Tensors, has_subgraph, used_by
from profiler.formats.onnx.values import feed_alone
from profiler.layers.layer import LayerSpec, OpaqueSubgraph


def extract(node: NodeProto, tensors: Tensors, model: ModelProto, kind: LayerSpec | None) -> tuple[LayerSpec, bytes]:
    """The node as an opaque layer, and its model file.

    `kind` is the layer that the node would be if its weights or data were not unusual; None if it is no layer that we model.
    """
    data = _model_of(node, tensors, model)
    weight_bytes = 0
    for name in used_by(node):
        weight = tensors.constants.get(name)
        if weight is None:
            continue
        if weight.data_type == TensorProto.STRING:
            weight_bytes += sum(map(len, weight.string_data))
        else:
            weight_bytes += math.prod(weight.dims) * helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
    opaque = OpaqueSubgraph(hashlib.sha256(data).hexdigest(), weight_bytes, "onnx")
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
    """The names of the tensors that the node reads, without constants."""
    return [name for name in used_by(node) if name not in tensors.constants]


def _outputs(node: NodeProto) -> list[str]:
    return [name for name in node.output if name]


def _model_of(node: NodeProto, tensors: Tensors, model: ModelProto) -> bytes:
    """The model of this one node. It does not depend on the node's place in its network: the same work gives the same bytes."""
    if has_subgraph(node):
        names = {name: name for name in (*used_by(node), *node.output)}  # its subgraph knows the tensors by these names
    else:
        names = {name: f"output_{index}" for index, name in enumerate(_outputs(node))}
        for index, name in enumerate(used_by(node)):
            names[name] = f"weight_{index}" if name in tensors.constants else f"input_{index}"
    copy = helper.make_node(
        node.op_type,
        [names.get(name, "") for name in node.input],
        [names.get(name, "") for name in node.output],
        domain=node.domain or None,
    )
    # onnxruntime writes the attributes in no fixed order
    copy.attribute.extend(sorted(node.attribute, key=lambda item: item.name))
    weights = []
    for name in used_by(node):
        if name in tensors.constants:
            weight = TensorProto()
            weight.CopyFrom(tensors.constants[name])
            weight.name = names[name]
            weight.doc_string = ""
            weights.append(weight)
    inputs = [declaration(names[name], tensors[name]) for name in activations(node, tensors)]
    outputs = [declaration(names[name], tensors[name]) for name in _outputs(node)]
    graph = helper.make_graph([copy], node.op_type, inputs, outputs, weights)
    domains = {"", node.domain}
    opsets = [opset for opset in model.opset_import if opset.domain in domains or has_subgraph(node)]
    lone: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    feed_alone(lone)
    data: bytes = lone.SerializeToString(deterministic=True)
    return data


def declaration(name: str, tensor: Tensor) -> ValueInfoProto:
    """The declaration of an input or output of a graph."""
    return helper.make_tensor_value_info(name, tensor.element_type, tensor.shape)
