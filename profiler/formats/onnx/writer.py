"""Writes graphs of parametric layers as ONNX models with random weights, which are measured for all layers that are not opaque.

The files follow PyTorch's exporter: NCHW layout, the same operators and attributes, weights named after their layers. An activation
is an operator of its own; onnxruntime fuses it into its layer if it can, exactly as in a user's network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from profiler.errors import ModelError
from profiler.formats.onnx.emitter import OPSET, Emitter
from profiler.formats.onnx.int8 import Int8Emitter
from profiler.formats.onnx.opaque import at_shapes, declared_by_reader, sequences_of
from profiler.formats.onnx.tensors import channels_are_last, has_subgraph, in_file, opset_of, shape_of
from profiler.layers.graph import Graph, Node
from profiler.layers.integers import with_ranges
from profiler.layers.layer import ACTIVATIONS, CONVERSION_OPS, LayerSpec, Shape

IR_VERSION = 8  # the version that opset 17 came with
PRODUCER = "netadapt-profiler"
MAX_WEIGHT_BYTES = 2**31 - 2**20  # protobuf cannot hold 2 GiB; some room for the nodes

_EMITTERS = {"float32": Emitter, "int8": Int8Emitter}


def write_onnx(graph: Graph, seed: int = 0) -> bytes:
    """The file of the network with random weights of He's scale; equal graphs and seeds give equal bytes.

    Layers that were extracted are written as they were, at the shapes of the graph. Raises `ModelError` if an ONNX file cannot
    represent a layer, and for more than 2 GiB of weights.
    """
    precision = _checked_precision(graph)
    if precision == "int8":
        graph = with_ranges(graph)
    emitter = _EMITTERS[precision](graph, seed)
    extracted = {node.name: _extracted(graph, node) for node in graph.nodes if node.layer.opaque is not None}
    emitter.opset = max([OPSET, *map(opset_of, extracted.values())])
    domains = {item.domain: item.version for model in extracted.values() for item in model.opset_import} | {"": emitter.opset}
    for node in graph.nodes:
        if node.name in extracted:
            emitter.in_files |= sequences_of(extracted[node.name], node.inputs, [node.name])
    inputs = emitter.inputs()
    for value in inputs:
        read = declared_by_reader(graph, extracted, value.name)
        if read is not None and read.type.tensor_type.elem_type != TensorProto.FLOAT:  # else that of the network's precision
            value.type.tensor_type.elem_type = read.type.tensor_type.elem_type
    made: dict[str, list[tuple[str, Shape]]] = {}
    uses: Counter[str] = Counter()
    for whole in graph.nodes:
        node = _with_tensors(whole, made, uses)
        if node.name in extracted:
            made[node.name] = _outputs(node, extracted[node.name])
            _emit_extracted(emitter, node, extracted[node.name])
        else:
            if not emitter.channels_last.isdisjoint(node.inputs):
                emitter.channels_last.add(node.name)
            _emit(emitter, node)
    proto = helper.make_graph(emitter.nodes, graph.name or "network", inputs, emitter.outputs(), emitter.weights)
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(domains.items())]
    model: ModelProto = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _checked_precision(graph: Graph) -> str:
    """The data type of all layers. Raises `ModelError` if the graph cannot be written."""
    written = [node for node in graph.nodes if node.layer.opaque is None]  # others are as they were extracted
    first = written[0].layer.dtype if written else "float32"
    for node in written:
        if node.layer.dtype not in _EMITTERS:
            raise ModelError(f"{node.name} is {node.layer.dtype}, which cannot be written yet; use {' or '.join(_EMITTERS)}")
        if node.layer.dtype != first:
            raise ModelError(f"{node.name} is {node.layer.dtype} in a network of {first}; give all layers one data type")
    if first != "float32" and any(layer.adds_shortcut for layer in graph.layers):
        raise ModelError(f"{graph.name} has a {first} convolution that adds a shortcut; write an addition after it")
    if sum(layer.weight_bytes for layer in graph.layers) > MAX_WEIGHT_BYTES:
        raise ModelError(f"{graph.name} has over 2 GiB of weights, more than one ONNX file can hold; use a smaller network")
    return first


def _extracted(graph: Graph, node: Node) -> ModelProto:
    """The model of an extracted node at its shapes. `ModelError` unless it is an ONNX node without a graph of its own."""
    assert node.layer.opaque is not None
    file = graph.opaques.get(node.layer.opaque.digest)
    if node.layer.opaque.file_format != "onnx" or file is None:
        raise ModelError(f"{node.name} ({node.layer.op}) is extracted from a file and can only be written alone")
    model = onnx.load_model_from_string(at_shapes(file, node.layer))
    if has_subgraph(model.graph.node[0]):
        raise ModelError(f"{node.name} ({node.layer.op}) contains a graph, and can only be written alone")
    return model


def _outputs(node: Node, model: ModelProto) -> list[tuple[str, Shape]]:
    """The names in the network, and the shapes, of what an extracted node makes; the first bears the name of the node."""
    shapes = [shape_of(value) or () for value in model.graph.output]
    return [(f"{node.name}.{place}" if place else node.name, shape) for place, shape in enumerate(shapes)]


def _with_tensors(node: Node, made: Mapping[str, Sequence[tuple[str, Shape]]], uses: Counter[str]) -> Node:
    """The node with the names of the tensors that it reads, where a node before makes several.

    The graph does not tell which one: each reader gets the next that has its sizes, which costs as much.
    """
    inputs = []
    for name, shape in zip(node.inputs, node.layer.inputs, strict=True):
        fitting = [tensor for tensor, sizes in made.get(name, ()) if sorted(sizes) == sorted(shape)] or [name]
        inputs.append(fitting[uses[name] % len(fitting)])
        uses[name] += 1
    return replace(node, inputs=tuple(inputs))


def _emit_extracted(emitter: Emitter, node: Node, model: ModelProto) -> None:
    """Add an extracted node with its weights."""
    (proto,) = model.graph.node
    names = dict(zip((value.name for value in model.graph.input), node.inputs, strict=True))
    names |= {value.name: name for value, (name, _) in zip(model.graph.output, _outputs(node, model), strict=True)}
    for weight in model.graph.initializer:
        if weight.name in names:  # what it is fed with alone
            continue
        names[weight.name] = f"{node.name}.{weight.name}"
        emitter.weights.append(weight)
        emitter.weights[-1].name = names[weight.name]
    emitter.nodes.append(proto)
    emitter.nodes[-1].name = node.name
    emitter.nodes[-1].input[:] = [names.get(name, "") for name in proto.input]
    emitter.nodes[-1].output[:] = [names.get(name, "") for name in proto.output]
    if channels_are_last(proto, not emitter.channels_last.isdisjoint(node.inputs)):
        emitter.channels_last.update(name for name, _ in _outputs(node, model))


def _emit(emitter: Emitter, node: Node) -> None:
    """Add a layer and its activation."""
    if isinstance(emitter, Int8Emitter) and node.layer.op in CONVERSION_OPS:
        emitter.conversion(node)
        return
    if emitter.absorbs_activation(node):
        _EMIT[node.layer.op](emitter, node, node.name)
        return
    before = f"{node.name}.before_activation"
    _EMIT[node.layer.op](emitter, node, before)
    emitter.activation(node.layer.activation, f"{node.name}.activation", before, node.name, node.layer.slope)


def emit_plain(emitter: Emitter, node: Node) -> None:
    """Add a layer without an activation."""
    _EMIT[node.layer.op](emitter, node, node.name)


def _conv(emitter: Emitter, node: Node, output: str) -> None:
    shape = node.layer.weight_shape  # (out, in / groups, k, k)
    source, *shortcut = node.inputs
    weights = [emitter.weight(node, shape, int(np.prod(shape[1:]))), *emitter.bias(node)]
    sums = f"{node.name}.before_shortcut" if shortcut else output
    emitter.node("Conv", [source, *weights], sums, node.name, group=node.layer.groups, **window_attributes(node.layer))
    if not shortcut:
        return
    if shortcut[0] in dict(emitter.graph.inputs):
        # an input of the graph has the plain layout, which no convolution adds: an identity brings it into the blocked layout,
        # at the cost of one more pass over the shortcut
        channels = node.layer.out_channels
        weight = emitter.constant(f"{node.name}.identity", np.ones((channels, 1, 1, 1), dtype=np.float32))
        blocked = f"{node.name}.blocked"
        emitter.node("Conv", [*shortcut, weight], blocked, f"{node.name}.identity", group=channels, kernel_shape=[1, 1])
        shortcut = [blocked]
    # onnxruntime fuses the addition into the convolution (profiler.layers.execution)
    emitter.node("Add", [sums, *shortcut], output, f"{node.name}.shortcut")


def _conv_transpose(emitter: Emitter, node: Node, output: str) -> None:
    layer = node.layer
    shape = (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)  # (in, out / groups, k, k) in ONNX
    weights = [emitter.weight(node, shape, int(np.prod(layer.weight_shape[1:])), out_axis=1), *emitter.bias(node)]
    top, left, bottom, right = layer.padding
    sizes = (
        (size - 1) * stride - pad + (kernel - 1) * dilation + 1
        for size, stride, pad, kernel, dilation in zip(
            layer.inputs[0][1:3], layer.stride, (top + bottom, left + right), layer.kernel, layer.dilation, strict=True
        )
    )
    # the output padding is what the output has beyond the size that kernel, stride and padding give
    extra = [size - least for size, least in zip(layer.output[1:3], sizes, strict=True)]
    window = window_attributes(layer) | {"output_padding": extra}
    emitter.node("ConvTranspose", [*node.inputs, *weights], output, node.name, group=layer.groups, **window)


def _fully_connected(emitter: Emitter, node: Node, output: str) -> None:
    layer = node.layer
    rank = len(layer.inputs[0])
    if rank == 4 and node.name not in emitter.channels_last:
        # over the channels of an image this is a 1x1 convolution, which needs no transpose to channels last and back
        weight = emitter.weight(node, (*layer.weight_shape, 1, 1), layer.in_channels)
        emitter.node("Conv", [*node.inputs, weight, *emitter.bias(node)], output, node.name, kernel_shape=[1, 1])
    elif rank == 2:
        weight = emitter.weight(node, layer.weight_shape, layer.in_channels)
        emitter.node("Gemm", [*node.inputs, weight, *emitter.bias(node)], output, node.name, transB=1)
    else:
        weight = emitter.weight(node, layer.weight_shape[::-1], layer.in_channels, out_axis=1)
        product = f"{node.name}.product" if layer.bias else output
        emitter.node("MatMul", [*node.inputs, weight], product, node.name)
        if layer.bias:
            emitter.node("Add", [product, *emitter.bias(node)], output, f"{node.name}.add")


def _pool(op_type: str) -> Emit:
    def emit(emitter: Emitter, node: Node, output: str) -> None:
        attributes = window_attributes(node.layer)
        if op_type == "AveragePool" and attributes.pop("dilations") != [1, 1]:
            raise ModelError(f"{node.name}: ONNX opset {OPSET} has no average pooling with dilation")
        emitter.node(op_type, list(node.inputs), output, node.name, **attributes)

    return emit


def _global_pool(op_type: str, reduction: str) -> Emit:
    """A global pool to (n, 1, 1, c), or to (n, c) as PyTorch exports `mean` over height and width."""

    def emit(emitter: Emitter, node: Node, output: str) -> None:
        if len(node.layer.output) == 4:
            emitter.node(op_type, list(node.inputs), output, node.name)
        elif reduction in emitter.reductions and emitter.opset >= 18:  # its axes are an input from then on
            axes = emitter.constant("height_and_width", np.array([2, 3], dtype=np.int64))
            emitter.node(reduction, [*node.inputs, axes], output, node.name, keepdims=0)
        elif reduction in emitter.reductions:
            emitter.node(reduction, list(node.inputs), output, node.name, axes=[2, 3], keepdims=0)
        else:
            emitter.node(op_type, list(node.inputs), f"{node.name}.figure", node.name)
            emitter.node("Flatten", [f"{node.name}.figure"], output, f"{node.name}.flatten", axis=1)

    return emit


def _binary(op_type: str) -> Emit:
    def emit(emitter: Emitter, node: Node, output: str) -> None:
        ranks = {len(shape) for shape in node.layer.inputs}
        if len(node.inputs) != 2 or len(ranks) != 1:
            raise ModelError(f"{node.name}: ONNX's {op_type} takes two inputs, here of the same rank, not {node.layer.inputs}")
        emitter.node(op_type, list(node.inputs), output, node.name)

    return emit


def _upsample(mode: str, coordinates: str) -> Emit:
    """A Resize with the attributes of PyTorch's `interpolate` (bilinear with align_corners=False)."""

    def emit(emitter: Emitter, node: Node, output: str) -> None:
        sizes = emitter.constant(f"{node.name}.sizes", np.array(in_file(node.layer.output), dtype=np.int64))
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
        if mode == "nearest":
            attributes["nearest_mode"] = "floor"
        emitter.node("Resize", [*node.inputs, "", "", sizes], output, node.name, **attributes)

    return emit


def _over_channels(op_type: str) -> Emit:
    """An operator with an attribute for the channel axis."""

    def emit(emitter: Emitter, node: Node, output: str) -> None:
        first = len(node.layer.output) == 4 and node.name not in emitter.channels_last
        axis = 1 if first else len(node.layer.output) - 1
        emitter.node(op_type, list(node.inputs), output, node.name, axis=axis)

    return emit


def _flatten(emitter: Emitter, node: Node, output: str) -> None:
    """A Flatten to (n, c), or a Reshape to (n, 1, 1, c)."""
    if len(node.layer.output) == 2:
        emitter.node("Flatten", list(node.inputs), output, node.name, axis=1)
    else:
        shape = emitter.constant(f"{node.name}.shape", np.array(in_file(node.layer.output), dtype=np.int64))
        emitter.node("Reshape", [*node.inputs, shape], output, node.name)


def _unary(emitter: Emitter, node: Node, output: str) -> None:
    emitter.activation(node.layer.op, node.name, node.inputs[0], output, node.layer.slope)


def window_attributes(layer: LayerSpec) -> dict[str, Any]:
    """The attributes of the sliding window."""
    return {
        "kernel_shape": list(layer.kernel),
        "strides": list(layer.stride),
        "dilations": list(layer.dilation),
        "pads": list(layer.padding),
    }


Emit = Callable[[Emitter, Node, str], None]
"""A function that adds a layer without its activation; its output is the tensor with the given name."""

_EMIT: dict[str, Emit] = {
    "conv2d": _conv,
    "depthwise_conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "fully_connected": _fully_connected,
    "avg_pool2d": _pool("AveragePool"),
    "max_pool2d": _pool("MaxPool"),
    "global_avg_pool": _global_pool("GlobalAveragePool", "ReduceMean"),
    "global_max_pool": _global_pool("GlobalMaxPool", "ReduceMax"),
    "upsample_nearest": _upsample("nearest", "asymmetric"),
    "upsample_bilinear": _upsample("linear", "half_pixel"),
    "add": _binary("Add"),
    "mul": _binary("Mul"),
    "concat": _over_channels("Concat"),
    "softmax": _over_channels("Softmax"),
    "flatten": _flatten,
    **dict.fromkeys(ACTIVATIONS[1:], _unary),
}
