"""Reads an ONNX file into the fused groups that onnxruntime executes.

onnxruntime itself optimises the model, up to the level that does not depend on the processor (EXTENDED), and the optimised model is
read: batch normalisation and constants are folded, and activations are fused into their convolutions. A group that we model becomes
a plain LayerSpec; any other is extracted with its weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto

from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given
from profiler.formats.onnx.complete import completed, inputs_of
from profiler.formats.onnx.fusion import rejoin_groups, rejoin_hard_swish
from profiler.formats.onnx.integers import describe_integers
from profiler.formats.onnx.layers import describe
from profiler.formats.onnx.library_errors import library_errors_as_ours
from profiler.formats.onnx.names import name_of, unique
from profiler.formats.onnx.opaque import activations, extract
from profiler.formats.onnx.tensors import (
    MOST_FILE_BYTES,
    Tensors,
    channels_last,
    check_sizes,
    derived_bytes,
    open_session,
    opset_of,
    shape_of,
    tensors_of,
    used_by,
)
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import Shape


def read_onnx(path: Path, given: Given = NOTHING) -> Graph:
    """The fused groups in the order in which they run, with channels-last shapes.

    Raises `ModelError` if onnxruntime cannot run the file, or if the shape of an input is not known.
    """
    with library_errors_as_ours(path):
        return graph_of(path.stem, completed(path, given))


def graph_of(name: str, data: bytes) -> Graph:
    """The same of a model that is complete, with the errors of the libraries."""
    model = _load(data)
    inputs = _inputs(model)
    optimised = _optimised(model)
    rejoin_hard_swish(optimised)
    return _graph(name, inputs, optimised, tensors_of(optimised))


def _load(data: bytes) -> ModelProto:
    model = onnx.load_model_from_string(data)
    if not model.graph.node:
        raise ModelError("the file contains no network; check that it is a complete ONNX file")
    del model.graph.value_info[:]  # the shapes between the layers may be outdated, so they are inferred again
    return model


def _inputs(model: ModelProto) -> dict[str, Shape]:
    """The channels-last shapes of all inputs by name. Raises `ModelError` for an input that is not a tensor, or an empty one.

    Old exporters list weights among the inputs. From IR version 4 on they could then be replaced, so that nothing is folded into
    them, and the runtime executes other layers: they are left there, but nobody gives them a value.
    """
    inputs = {}
    for value in inputs_of(model):
        shape = shape_of(value)
        if shape is None:
            reason = "is empty" if value.type.HasField("tensor_type") else "is a list, a dictionary or optional, not a tensor"
            raise ModelError(f"input {value.name} {reason}, so there is nothing to measure it with")
        inputs[value.name] = channels_last(shape)
    return inputs


def _optimised(model: ModelProto) -> ModelProto:
    """The model after onnxruntime's optimisations that do not depend on the processor."""
    # the optimised model keeps the shapes that are inferred before
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    check_sizes(inferred.graph)
    are_many = inferred.ByteSize() + derived_bytes(inferred.graph) > MOST_FILE_BYTES
    with tempfile.TemporaryDirectory(prefix="onnx_reader_") as folder:
        saved = Path(folder) / "optimised.onnx"
        open_session(inferred, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, saved, weights_apart=are_many)
        optimised = onnx.load(saved, format="protobuf", load_external_data=False)
    sort(optimised.graph)
    return optimised


def sort(graph: GraphProto) -> None:
    """Bring the nodes into an order in which each comes after those that it reads; onnxruntime runs and saves them in any."""
    missing = {name for node in graph.node for name in node.output if name}
    pending, ordered = list(graph.node), list[NodeProto]()
    while pending:
        later = []
        for node in pending:
            if missing.isdisjoint(used_by(node)):
                ordered.append(node)
                missing.difference_update(node.output)
            else:
                later.append(node)
        if len(later) == len(pending):
            raise ModelError("its operators wait for each other in a circle")
        pending = later
    del graph.node[:]
    graph.node.extend(ordered)


def _graph(name: str, inputs: dict[str, Shape], model: ModelProto, tensors: Tensors) -> Graph:
    source_of = {key: key for key in inputs}  # the node or input that makes each tensor
    nodes: dict[str, Node] = {}
    opaques: dict[str, bytes] = {}
    for proto in model.graph.node:
        if all(key in tensors.constants for key in proto.output if key):
            continue
        description = describe_integers(proto, tensors, opset_of(model)) or describe(proto, tensors, opset_of(model))
        if description is not None and description.exact and not description.layer.layout:
            layer = description.layer
            reads = list(description.reads)
        else:
            layer, data = extract(proto, tensors, model, description.layer if description else None)
            reads = activations(proto, tensors)
            if layer.opaque is not None:
                opaques[layer.opaque.digest] = data
        node = Node(unique(name_of(proto, tensors), inputs.keys() | nodes.keys()), layer, tuple(source_of[key] for key in reads))
        nodes[node.name] = node
        source_of |= {key: node.name for key in proto.output if key}
    outputs = tuple(dict.fromkeys(source_of[value.name] for value in model.graph.output if value.name in source_of))
    if not nodes or not outputs:
        raise ModelError("its outputs do not depend on its inputs, so there is nothing to measure")
    groups, outputs = rejoin_groups(tuple(nodes.values()), outputs)
    used = {group.layer.opaque.digest for group in groups if group.layer.opaque}
    return Graph(name, tuple(inputs.items()), groups, outputs, {digest: opaques[digest] for digest in sorted(used)})
