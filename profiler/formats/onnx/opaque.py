"""Extracts a node of an ONNX graph, with its real weights, as a model of its own that onnxruntime runs unchanged.

Such a model may also be a template: its metadata then says which sizes of its constants and outputs follow which size of an input,
so that it can be written for other widths.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.errors import ModelError
from profiler.formats.onnx.recording import Recording
from profiler.formats.onnx.tensors import Array, Tensor, Tensors, channels_last, has_subgraph, in_file, used_by, with_values
from profiler.formats.onnx.values import feed_alone
from profiler.layers.layer import LayerSpec, OpaqueSubgraph, Shape

_FOLLOWS, _CHANNELS_LAST = "follows", "channels_last"
"""Keys of metadata: of a template the sizes that follow others, and the inputs whose channels are last in the file, too."""


def extract(
    node: NodeProto, tensors: Tensors, model: ModelProto, kind: LayerSpec | None, recording: Recording | None = None
) -> tuple[LayerSpec, bytes]:
    """The node as an opaque layer, and its model file.

    `kind` is the layer that the node would be if its weights or data were not unusual; None if it is no layer that we model.
    `recording` has the values that the network feeds it, should it need them. Weights whose values were left out are made up.
    """
    constants = {name: with_values(tensors.constants[name]) for name in used_by(node) if name in tensors.constants}
    tensors = replace(tensors, constants=constants)
    data = _model_of(node, tensors, model, recording)
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
    read, made = activations(node, tensors), _outputs(node)[0]
    layer = LayerSpec(
        node.op_type,
        tuple(tensors.shown(name) for name in read),
        tensors.shown(made),
        dtype=tensors[(read or [made])[0]].dtype,
        opaque=opaque,
    )
    return layer, data


def template(files: Sequence[bytes], layers: Sequence[LayerSpec]) -> bytes | None:
    """One model of a node that was extracted at several widths, the first of which it has, as a template for all widths.

    `layers` are the layers of the files. None if the nodes differ in more than sizes, or if a size of a constant is neither a
    multiple of a size of an input nor larger by always the same. Where no input changes, sizes follow those of the output: such a
    node looks rows up, which have as many numbers as the constant has columns.
    """
    models = [onnx.load_model_from_string(file) for file in files]
    first = models[0]
    if len({_without_sizes(model) for model in models}) > 1:
        return None
    read = {value.name: [_dims(model.graph.input[place]) for model in models] for place, value in enumerate(first.graph.input)}
    if all(len(set(shapes)) == 1 for shapes in read.values()):
        (made,) = first.graph.output if len(first.graph.output) == 1 else (None,)
        if made is None or len(_dims(made)) == 4:  # which may be shown with its channels last
            return None
        read = {made.name: [_dims(model.graph.output[0]) for model in models]}
    sources = {(name, axis): sizes for name, shapes in read.items() for axis, sizes in enumerate(zip(*shapes, strict=True))}
    follows: list[Mapping[str, Any]] = []
    for what, values in _sizes_and_numbers(models):
        if len(set(values)) > 1:
            changing = {key: sizes for key, sizes in sources.items() if len(set(sizes)) > 1}
            found = [key for key, sizes in changing.items() if _in_proportion(values, sizes)]
            adds = not found and "element" not in what  # as many more as a constant has that is joined to it
            if adds:
                found = [key for key, sizes in changing.items() if len({a - b for a, b in zip(values, sizes, strict=True)}) == 1]
            if not found:
                return None
            name, axis = min(found, key=lambda key: key[1] != what.get("axis"))
            follows.append({**what, "of": name, "of_axis": axis} | ({"adds": True} if adds else {}))
    in_order = zip(read.items(), zip(*(layer.inputs for layer in layers), strict=True), strict=False)
    kept = [name for (name, shapes), shown in in_order if len(shapes[0]) == 4 and shapes == list(shown)]
    helper.set_model_props(first, {_FOLLOWS: json.dumps(follows), _CHANNELS_LAST: json.dumps(kept)})
    data: bytes = first.SerializeToString(deterministic=True)
    return data


def at_shapes(data: bytes, layer: LayerSpec) -> bytes:
    """The file of an extracted node for the shapes of the layer. `ModelError` if they are others and the file is no template."""
    model = onnx.load_model_from_string(data)
    properties = {item.key: item.value for item in model.metadata_props}
    kept = json.loads(properties.get(_CHANNELS_LAST, "[]"))
    before = {value.name: _dims(value) for value in model.graph.input}
    shown = {name: shape if name in kept else channels_last(shape) for name, shape in before.items()}
    follows = json.loads(properties.get(_FOLLOWS, "[]"))
    made = {value.name: _dims(value) for value in model.graph.output if any(item["of"] == value.name for item in follows)}
    is_same = tuple(shown.values()) == layer.inputs and all(shape == layer.output for shape in made.values())
    if is_same or len(shown) != len(layer.inputs):
        return data
    if _FOLLOWS not in properties:
        raise ModelError(
            f"{layer.op} was extracted for inputs of {list(shown.values())} and cannot be written for {list(layer.inputs)}"
        )
    after = {name: shape if name in kept else in_file(shape) for name, shape in zip(before, layer.inputs, strict=True)}
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    weights = {weight.name: weight for weight in model.graph.initializer}
    for name, shape in after.items():
        for dim, size in zip(values[name].type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size
        if name in weights:  # what it is fed with
            weights[name].CopyFrom(numpy_helper.from_array(np.resize(numpy_helper.to_array(weights[name]), shape), name))
    before, after = before | made, after | dict.fromkeys(made, layer.output)
    for item in follows:
        name, new, old = item["tensor"], after[item["of"]][item["of_axis"]], before[item["of"]][item["of_axis"]]
        if name in values:
            dim = values[name].type.tensor_type.shape.dim[item["axis"]]
            dim.dim_value = dim.dim_value + new - old if item.get("adds") else dim.dim_value * new // old
            continue
        array = numpy_helper.to_array(weights[name]).copy()
        if "element" in item:
            array.reshape(-1)[item["element"]] = array.reshape(-1)[item["element"]] * new // old
        else:
            size = array.shape[item["axis"]]
            size = size + new - old if item.get("adds") else size * new // old
            shape = (*array.shape[: item["axis"]], size, *array.shape[item["axis"] + 1 :])
            array = np.resize(array, shape)
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    del model.metadata_props[:]
    resized: bytes = model.SerializeToString(deterministic=True)
    return resized


def _dims(value: ValueInfoProto) -> Shape:
    """Empty tensors have a dimension of 0."""
    return tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)


def _without_sizes(model: ModelProto) -> bytes:
    """What has to be equal in all files of a template: the node, and the types and ranks of its tensors.

    A factor, such as the root of a width that attention divides by, may differ: it changes no size.
    """
    tensors = [(value.name, len(_dims(value))) for value in (*model.graph.input, *model.graph.output)]
    weights = [(weight.name, weight.data_type, len(weight.dims)) for weight in model.graph.initializer]
    node = NodeProto()
    node.CopyFrom(model.graph.node[0])
    for attribute in node.attribute:
        attribute.ClearField("f")
    data: bytes = node.SerializeToString(deterministic=True) + repr((tensors, weights)).encode()
    return data


def _sizes_and_numbers(models: Sequence[ModelProto]) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Every size of outputs and constants, and every whole number in constants such as a new shape, in each of the models."""
    for values in zip(*(model.graph.output for model in models), strict=True):
        for axis, sizes in enumerate(zip(*map(_dims, values), strict=True)):
            yield {"tensor": values[0].name, "axis": axis}, list(sizes)
    fed = {value.name for value in models[0].graph.input}
    for weights in zip(*(model.graph.initializer for model in models), strict=True):
        if weights[0].name in fed:  # their sizes are those of the inputs
            continue
        for axis, sizes in enumerate(zip(*(weight.dims for weight in weights), strict=True)):
            yield {"tensor": weights[0].name, "axis": axis}, list(sizes)
        if weights[0].data_type == TensorProto.INT64 and len({tuple(weight.dims) for weight in weights}) == 1:
            for element, numbers in enumerate(zip(*(numpy_helper.to_array(weight).reshape(-1) for weight in weights), strict=True)):
                yield {"tensor": weights[0].name, "element": element}, [int(number) for number in numbers]


def _in_proportion(values: Sequence[int], sizes: Sequence[int]) -> bool:
    return all(value * sizes[0] == values[0] * size for value, size in zip(values, sizes, strict=True))


def activations(node: NodeProto, tensors: Tensors) -> list[str]:
    """The names of the tensors that the node reads, without constants."""
    return [name for name in used_by(node) if name not in tensors.constants]


def _outputs(node: NodeProto) -> list[str]:
    return [name for name in node.output if name]


def _model_of(node: NodeProto, tensors: Tensors, model: ModelProto, recording: Recording | None) -> bytes:
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
    kept = [names[name] for name in activations(node, tensors) if name in tensors.channels_last]
    if kept:
        helper.set_model_props(lone, {_CHANNELS_LAST: json.dumps(kept)})

    def recorded() -> Mapping[str, Array] | None:
        assert recording is not None
        read = activations(node, tensors)
        values = recording.values(read)
        (recording.made_up if values is None else recording.fed).append(node.op_type)
        return None if values is None else {names[name]: values[name] for name in read}

    feed_alone(lone, recorded if recording else None)
    data: bytes = lone.SerializeToString(deterministic=True)
    return data


def declaration(name: str, tensor: Tensor) -> ValueInfoProto:
    """The declaration of an input or output of a graph."""
    return helper.make_tensor_value_info(name, tensor.element_type, tensor.shape)
