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
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec, OpaqueSubgraph, Shape

_FOLLOWS, _CHANNELS_LAST, _SEQUENCES = "follows", "channels_last", "sequences"
"""Keys of metadata: of a template the sizes that follow others; the inputs whose channels are last in the file, too; and the
inputs and outputs of three or five dimensions whose channels are the second one in the file."""
_GROUPS = "group"
"""The attribute of a convolution."""
_WEIGHT_AXES = {"Conv": ("output", "input"), "FusedConv": ("output", "input"), "ConvTranspose": ("input", "output")}
"""Whose channels the first two axes of the weights have."""


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
    return _as_convolution(layer, node, tensors), data


def _as_convolution(layer: LayerSpec, node: NodeProto, tensors: Tensors) -> LayerSpec:
    """A convolution of a sequence, or of a volume, as one of an image with as many weights, so that its operations count."""
    weight = tensors.constants.get(node.input[1]) if node.op_type in _WEIGHT_AXES else None
    if weight is None or node.input[0] not in tensors.sequences:
        return layer
    groups = next((int(item.i) for item in node.attribute if item.name == "group"), 1)
    depthwise = "depthwise_conv2d" if groups == layer.in_channels > 1 else "conv2d"
    return replace(
        layer,
        op="conv_transpose2d" if node.op_type == "ConvTranspose" else depthwise,
        kernel=(math.prod(weight.dims[2:-1]), int(weight.dims[-1])),
        groups=groups,
        bias=len(node.input) > 2 and bool(node.input[2]),
    )


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
    known = _channels_of_sequences(first)
    is_row = len(first.graph.output) == 1 and len(_dims(first.graph.output[0])) != 4  # which may be shown with its channels last
    looks_up = is_row and all(len(set(shapes)) == 1 for shapes in read.values())
    made = {}
    if known or looks_up:
        made[first.graph.output[0].name] = [_dims(model.graph.output[0]) for model in models]
    sources = {
        (name, axis): sizes for name, shapes in (read | made).items() for axis, sizes in enumerate(zip(*shapes, strict=True))
    }
    follows: list[Mapping[str, Any]] = []
    for what, values in _sizes_and_numbers(models):
        if len(set(values)) > 1:
            told = known.get((what.get("tensor"), what.get("axis")))
            changing = {key: sizes for key, sizes in sources.items() if len(set(sizes)) > 1}
            changing = changing if told is None else {key: sizes for key, sizes in changing.items() if key == told}
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
    properties = {_FOLLOWS: follows, _CHANNELS_LAST: kept, _SEQUENCES: _property(first, _SEQUENCES)}
    helper.set_model_props(first, {key: json.dumps(found) for key, found in properties.items() if found or key != _SEQUENCES})
    data: bytes = first.SerializeToString(deterministic=True)
    return data


def at_shapes(data: bytes, layer: LayerSpec) -> bytes:
    """The file of an extracted node for the shapes of the layer. `ModelError` if they are others and the file is no template."""
    model = onnx.load_model_from_string(data)
    told = {item.key: item.value for item in model.metadata_props}
    kept, sequences = _property(model, _CHANNELS_LAST), _property(model, _SEQUENCES)
    read, made = [value.name for value in model.graph.input], model.graph.output[0].name
    before = {value.name: _dims(value) for value in (*model.graph.input, model.graph.output[0])}
    asked = {**dict(zip(read, layer.inputs, strict=False)), made: layer.output}

    def shown(name: str) -> Shape:
        shape = before[name]
        last: Shape = (shape[0], *shape[2:], shape[1]) if name in sequences else channels_last(shape)
        return shape if name in kept else last

    follows = json.loads(told.get(_FOLLOWS, "[]"))
    is_same = all(shown(name) == asked.get(name) for name in read) and (
        shown(made) == layer.output or not (made in sequences or any(item["of"] == made for item in follows))
    )
    if is_same or len(read) != len(layer.inputs):
        return data
    if _FOLLOWS not in told:
        raise ModelError(
            f"{layer.op} was extracted for inputs of {list(map(shown, read))} and cannot be written for {list(layer.inputs)}"
        )
    after = {
        name: (shape[0], shape[-1], *shape[1:-1]) if name in sequences else shape if name in kept else in_file(shape)
        for name, shape in asked.items()
    }
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    weights = {weight.name: weight for weight in model.graph.initializer}
    for name, shape in after.items():
        if name == made:  # it is told by `follows`, with the sizes of what else is made
            continue
        for dim, size in zip(values[name].type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size
        if name in weights:  # what it is fed with
            weights[name].CopyFrom(numpy_helper.from_array(np.resize(numpy_helper.to_array(weights[name]), shape), name))
    for item in follows:
        name, new, old = item.get("tensor"), after[item["of"]][item["of_axis"]], before[item["of"]][item["of_axis"]]
        if name is None:
            (attribute,) = (each for each in model.graph.node[0].attribute if each.name == item["attribute"])
            attribute.i = attribute.i * new // old
            continue
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
    if sequences:
        helper.set_model_props(model, {_SEQUENCES: json.dumps(sequences)})
    resized: bytes = model.SerializeToString(deterministic=True)
    return resized


def _channels_of_sequences(model: ModelProto) -> dict[tuple[str | None, int | None], tuple[str, int]]:
    """For those sizes of an operator of sequences that are channels, the tensor and its axis that has as many.

    A convolution has output channels of its own, and a concatenation those of several inputs. {} for all other operators.
    """
    (node,), made = model.graph.node, model.graph.output[0].name
    if made not in _property(model, _SEQUENCES):
        return {}
    found: dict[tuple[str | None, int | None], tuple[str, int]] = {(made, 1): (made, 1)}
    if node.op_type in _WEIGHT_AXES:
        ends = {"input": (node.input[0], 1), "output": (made, 1)}
        weight, *bias = node.input[1:3]
        found |= {(weight, axis): ends[end] for axis, end in enumerate(_WEIGHT_AXES[node.op_type])}
        found |= {(name, 0): ends["output"] for name in bias}
    return found


def _property(model: ModelProto, key: str) -> list[str]:
    """The names of tensors among the metadata."""
    names: list[str] = json.loads(next((item.value for item in model.metadata_props if item.key == key), "[]"))
    return names


def sequences_of(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Shape]:
    """The shapes in the file of those inputs and outputs of an extracted node that are sequences, by names in a network."""
    found, values = _property(model, _SEQUENCES), [*zip(inputs, model.graph.input, strict=False)]
    values += zip(outputs, model.graph.output, strict=False)
    return {name: _dims(value) for name, value in values if value.name in found}


def declared_by_reader(graph: Graph, extracted: Mapping[str, ModelProto], name: str) -> ValueInfoProto | None:
    """The declaration of an input of the network by the extracted node that reads it first: it may be one of whole numbers.

    None if a layer of ours does, which reads floats. `extracted` are the models of extracted nodes by the nodes' names.
    """
    reader = next((node for node in graph.nodes if name in node.inputs), None)
    if reader is None or reader.name not in extracted:
        return None
    declared: ValueInfoProto = extracted[reader.name].graph.input[reader.inputs.index(name)]
    return declared


def _dims(value: ValueInfoProto) -> Shape:
    """Empty tensors have a dimension of 0."""
    return tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)


def _without_sizes(model: ModelProto) -> bytes:
    """What has to be equal in all files of a template: the node, and the types and ranks of its tensors.

    A factor, such as the root of a width that attention divides by, may differ: it changes no size. The number of groups may
    follow the channels, as in a depthwise convolution.
    """
    tensors = [(value.name, len(_dims(value))) for value in (*model.graph.input, *model.graph.output)]
    weights = [(weight.name, weight.data_type, len(weight.dims)) for weight in model.graph.initializer]
    node = NodeProto()
    node.CopyFrom(model.graph.node[0])
    for attribute in node.attribute:
        attribute.ClearField("f")
        if attribute.name == _GROUPS:
            attribute.ClearField("i")
    data: bytes = node.SerializeToString(deterministic=True) + repr((tensors, weights)).encode()
    return data


def _sizes_and_numbers(models: Sequence[ModelProto]) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """In each model every size of outputs and constants, each whole number in constants like a new shape, and the groups."""
    groups = [item.i for model in models for item in model.graph.node[0].attribute if item.name == _GROUPS]
    if len(groups) == len(models):
        yield {"attribute": _GROUPS}, groups
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
    seen = [*activations(node, tensors), *_outputs(node)]
    kept = {
        _CHANNELS_LAST: [names[name] for name in activations(node, tensors) if name in tensors.channels_last],
        _SEQUENCES: [names[name] for name in seen if name in tensors.sequences],
    }
    if any(kept.values()):
        helper.set_model_props(lone, {key: json.dumps(found) for key, found in kept.items() if found})

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
