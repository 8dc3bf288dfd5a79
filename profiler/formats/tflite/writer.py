"""Writes graphs as .tflite files with random weights. It uses the schema in LiteRT's wheel and does not need TensorFlow.

Operators are chosen as litert-torch chooses them, so that a single layer takes as long as in a converted network:

- ReLU and ReLU6 are options of the operator before them if TFLite permits it; other activations are operators of their own.
- Padding equal to that of SAME becomes SAME, and no padding becomes VALID. Any other becomes a PAD in front of VALID, which XNNPACK
  folds into a convolution again. In front of a max pool it pads with minus infinity. In front of an average pool it pads with
  zeros, which count (torch's count_include_pad), while SAME never counts them.
- A convolution without a bias gets zeros as its bias, because LiteRT refuses to run it without one.
- A transposed convolution with a cropping that SAME does not have is computed in full and cropped by a SLICE.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto

from profiler.errors import ModelError
from profiler.formats.onnx.opaque import at_shapes, declared_by_reader, sequences_of
from profiler.formats.onnx.tensors import channels_are_last, in_file
from profiler.formats.onnx.tensors import channels_last as channels_last_of
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.int8 import Int8Emitter
from profiler.formats.tflite.onnx_operator import shape_in_file
from profiler.formats.tflite.onnx_operators import emit_operator, reads_in_the_files_order, type_of
from profiler.formats.tflite.ordered import CHANNELS_LAST, Steps, Stored, stored_shape
from profiler.formats.tflite.schema import same_padding
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import ACTIVATIONS, LayerSpec, Shape

FUSED_ACTIVATIONS: dict[str, int] = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_SAME: int = schema.Padding.SAME
_VALID: int = schema.Padding.VALID
_PRECISIONS = {"float32": Emitter, "int8": Int8Emitter}


def write_tflite(graph: Graph, seed: int = 0) -> bytes:
    """The file of the network; equal graphs and seeds give equal bytes.

    Layers that were extracted from an ONNX file have their own weights. Raises `ModelError` if a .tflite file cannot represent a
    layer.
    """
    written = [node for node in graph.nodes if node.layer.opaque is None]
    first = written[0].layer.dtype if written else "float32"
    emitter = _PRECISIONS.get(first, Emitter)(seed)
    extracted: dict[str, ModelProto] = {}
    for node in graph.nodes:
        _check(graph, node, first)
        if node.layer.opaque is not None:
            extracted[node.name] = onnx.load_model_from_string(at_shapes(graph.opaques[node.layer.opaque.digest], node.layer))
    made = {name: [_input(emitter, graph, place, extracted)] for place, (name, _) in enumerate(graph.inputs)}
    inputs = [made[name][0].number for name, _ in graph.inputs]
    # images whose channels are last in the ONNX file, too
    channels_last = {name for name, (tensor,) in made.items() if len(tensor.shape) == 4 and tensor.order == (0, 1, 2, 3)}
    uses: Counter[str] = Counter()
    for node in graph.nodes:
        is_last = not channels_last.isdisjoint(node.inputs)
        read = []
        for name, shape in zip(node.inputs, node.layer.inputs, strict=True):
            # of several tensors that a node makes, each reader gets the next that has its sizes, as in ONNX files of ours
            fitting = [tensor for tensor in made[name] if sorted(tensor.shape) == sorted(shape)] or made[name]
            read.append(fitting[uses[name] % len(fitting)])
            uses[name] += 1
        if node.name in extracted:
            made[node.name] = _emit_extracted(emitter, graph, node, extracted[node.name], read)
            is_last = channels_are_last(extracted[node.name].graph.node[0], is_last)
        else:
            steps = Steps(emitter, f"{node.name}/input")
            numbers = [_shown(steps, tensor, shape, is_last) for tensor, shape in zip(read, node.layer.inputs, strict=True)]
            output = emitter.activation(node.name, node.layer.output)
            _emit(emitter, node, numbers, output)
            made[node.name] = [_of_layer(output, node.layer.output, is_last)]
        if is_last:
            channels_last.add(node.name)
    lone = extracted.get(graph.nodes[0].name) if len(graph.nodes) == 1 else None
    if lone is not None and lone.graph.node[0].op_type != "Transpose":  # what others would need is not part of its work
        outputs = [made[name][0].number for name in graph.outputs]
    else:
        outputs = [_shown(Steps(emitter, f"{name}/output"), made[name][0], None, name in channels_last) for name in graph.outputs]
    return emitter.finish(graph.name, inputs, outputs)


def _input(emitter: Emitter, graph: Graph, place: int, extracted: Mapping[str, ModelProto]) -> Stored:
    """An input of the network, or what an extracted operator that is written alone reads at this place."""
    name, shape = graph.inputs[place]
    alone = extracted.get(graph.nodes[0].name) if len(graph.nodes) == 1 else None
    if alone is None:
        read = declared_by_reader(graph, extracted, name)
        number = emitter.activation(name, shape) if read is None else emitter.tensor(name, shape, type_of(read))
        return _of_layer(number, shape, is_last=False)
    value = alone.graph.input[place]
    in_its_file = shape_in_file(value)
    order = tuple(range(len(in_its_file)))
    if len(in_its_file) == 4 and channels_last_of(in_its_file) == shape and not reads_in_the_files_order(alone):
        order = CHANNELS_LAST
    if sequences_of(alone, [name], []):
        order = (0, *order[2:], 1)  # a network stores them so between its layers
    return Stored(emitter.tensor(name, stored_shape(in_its_file, order), type_of(value)), in_its_file, order)


def _of_layer(number: int, shape: Shape, is_last: bool) -> Stored:
    """A tensor that a layer of ours makes; `is_last` if its channels would be last in an ONNX file, too."""
    if len(shape) != 4 or is_last:
        return Stored(number, shape, tuple(range(len(shape))))
    return Stored(number, in_file(shape), CHANNELS_LAST)


def _shown(steps: Steps, tensor: Stored, shape: Shape | None, is_last: bool) -> int:
    """The number of a tensor as layers of ours read it: an image with its channels last, wherever they are in the ONNX file.

    `shape` is what the reader expects, if that is known.
    """
    order = CHANNELS_LAST if len(tensor.shape) == 4 and not is_last else tuple(range(len(tensor.shape)))
    tensor = steps.ordered(tensor, order)
    if shape is None or stored_shape(tensor.shape, order) == shape:
        return tensor.number
    as_read = Stored(tensor.number, stored_shape(tensor.shape, order), tuple(range(len(order))))
    return steps.reshaped(as_read, shape).number  # another tensor of a node that makes several, which costs as much


def _emit_extracted(emitter: Emitter, graph: Graph, node: Node, model: ModelProto, read: Sequence[Stored]) -> list[Stored]:
    """Add an operator of an ONNX file, with its own weights, and return what it makes."""
    steps = Steps(emitter, f"{node.name}/input")
    fitting = [steps.reshaped(tensor, shape_in_file(value)) for tensor, value in zip(read, model.graph.input, strict=True)]
    try:
        made = emit_operator(emitter, node.name, model, fitting)
    except ModelError as exc:
        raise ModelError(f"{graph.name}: {node.name}: {exc}") from exc
    if len(graph.nodes) == 1 and not emitter.operators:  # what only shows a tensor in another way is at most a copy of it
        first = made[0]
        stored = stored_shape(first.shape, first.order)
        copy = emitter.tensor(f"{node.name}/copy", stored, emitter.tensors[first.number].type)
        shape = emitter.constant(f"{node.name}/shape", stored)
        emitter.operator("RESHAPE", [first.number, shape], copy, schema.ReshapeOptionsT(newShape=np.array(stored, np.int32)))
        made = [Stored(copy, first.shape, first.order)]
    return made


def needs_pad(layer: LayerSpec) -> bool:
    """True if the padding of this sliding window is neither that of SAME nor that of VALID."""
    return any(layer.padding) and layer.padding != same_padding(layer.inputs[0][1:3], layer.kernel, layer.stride, layer.dilation)


def is_product(layer: LayerSpec) -> bool:
    """True if XNNPACK makes a matrix product of this convolution when it reads the file, into which it folds no PAD."""
    return layer.op == "conv2d" and layer.groups == 1 and layer.kernel == layer.stride == (1, 1)


def transposed_shape(layer: LayerSpec) -> Shape:
    """The output of the operator of a transposed convolution; if it is larger than that of the layer, a SLICE crops it."""
    out, (top, left) = layer.output, layer.padding[:2]
    if _crops_as_same(layer):
        return out
    sizes = zip(layer.inputs[0][1:3], layer.stride, layer.kernel, (top, left), out[1:3], strict=True)
    return (out[0], *(max((size - 1) * s + k, first + wanted) for size, s, k, first, wanted in sizes), out[3])


def _crops_as_same(layer: LayerSpec) -> bool:
    """True if SAME crops a transposed convolution as it is here: by the padding that a convolution from output to input has."""
    same = same_padding(layer.output[1:3], layer.kernel, layer.stride)
    covered = tuple(-(-size // stride) for size, stride in zip(layer.output[1:3], layer.stride, strict=True))
    return any(same) and same[:2] == layer.padding[:2] and covered == layer.inputs[0][1:3]


def not_supported(layer: LayerSpec) -> str | None:
    """The reason why no .tflite file can have a layer of ours; None if it can."""
    if layer.dtype not in _PRECISIONS:
        return f"has data type {layer.dtype}, which cannot be written yet; use {' or '.join(_PRECISIONS)}"
    if layer.adds_shortcut:
        return "adds a shortcut, which TFLite's convolution cannot; write an addition after it"
    if layer.op == "conv_transpose2d" and (layer.groups != 1 or layer.dilation != (1, 1)):
        return "has groups or dilation, which TFLite's transposed convolution does not support"
    if layer.op in ("avg_pool2d", "max_pool2d") and layer.dilation != (1, 1):
        return "has dilation, which TFLite's pools do not support"
    if layer.op in ("add", "mul") and len(layer.inputs) != 2:
        return f"has {len(layer.inputs)} inputs, but TFLite supports only two; chain several"
    if layer.op in ("global_avg_pool", "global_max_pool") and len(layer.inputs[0]) != 4:
        return f"needs a (n, h, w, c) input, got {layer.inputs[0]}"
    return None


def _check(graph: Graph, node: Node, first: str) -> None:
    """Raises `ModelError` if the layer cannot be written in a network of the data type `first`."""
    layer = node.layer
    problem = None
    if layer.opaque is not None and (layer.opaque.file_format != "onnx" or layer.opaque.digest not in graph.opaques):
        problem = "is extracted from a file and can only be written alone"
    elif layer.opaque is not None:
        problem = None if first == "float32" else f"is an operator of an ONNX file in a network of {first}; write it in float32"
    elif (reason := not_supported(layer)) is not None:
        problem = reason
    elif layer.dtype != first:
        problem = f"has data type {layer.dtype} in a network of {first}; give all layers one data type"
    if problem is not None:
        raise ModelError(f"{graph.name}: {node.name} ({layer.op}) {problem}")


def _emit(emitter: Emitter, node: Node, inputs: list[int], output: int) -> None:
    """Add a layer and its activation."""
    layer = node.layer
    if layer.op in _FUSING_OPS and layer.activation in FUSED_ACTIVATIONS:
        _EMITTERS[layer.op](emitter, node, inputs, output, FUSED_ACTIVATIONS[layer.activation])
    elif layer.activation == "none":
        _EMITTERS[layer.op](emitter, node, inputs, output, 0)
    else:
        before = emitter.activation(f"{node.name}/linear", layer.output)
        _EMITTERS[layer.op](emitter, node, inputs, before, 0)
        _unary(emitter, node, layer.activation, before, output)


def _conv2d(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    layer = node.layer
    padding, source = _padded(emitter, node, inputs[0])
    options = schema.Conv2DOptionsT(padding=padding, fusedActivationFunction=activation, **_strides(layer), **_dilations(layer))
    version = 6 if layer.groups > 1 else 1  # the first version with groups
    emitter.operator("CONV_2D", [source, *emitter.weights(node, (0, 2, 3, 1), source)], output, options, version)


def _depthwise_conv2d(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    layer = node.layer
    padding, source = _padded(emitter, node, inputs[0])
    options = schema.DepthwiseConv2DOptionsT(
        padding=padding, depthMultiplier=layer.out_channels // layer.in_channels, fusedActivationFunction=activation,
        **_strides(layer), **_dilations(layer),
    )  # fmt: skip
    version = 2 if layer.dilation != (1, 1) else 1
    # TFLite's weights are (1, kh, kw, channels): the axis of length 1 is that of the input channels per group
    emitter.operator("DEPTHWISE_CONV_2D", [source, *emitter.weights(node, (1, 2, 3, 0), source)], output, options, version)


def _conv_transpose2d(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    layer = node.layer
    out, made = layer.output, transposed_shape(layer)
    padding = _SAME if _crops_as_same(layer) else _VALID
    target = output if made == out else emitter.activation(f"{node.name}/uncropped", made)
    weights, *bias = emitter.weights(node, (0, 2, 3, 1), inputs[0])
    options = schema.TransposeConvOptionsT(padding=padding, fusedActivationFunction=activation, **_strides(layer))
    size = emitter.constant(f"{node.name}/size", made)
    # the first versions with a fused activation, with a bias, and at all (op_version.cc)
    version = 1
    if activation:
        version = 4
    elif bias:
        version = 3
    emitter.operator("TRANSPOSE_CONV", [size, weights, inputs[0], *bias], target, options, version)
    if target != output:
        corner = [emitter.constant(f"{node.name}/begin", (0, *layer.padding[:2], 0)), emitter.constant(f"{node.name}/end", out)]
        emitter.operator("SLICE", [target, *corner], output, schema.SliceOptionsT())


def _fully_connected(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    options = schema.FullyConnectedOptionsT(fusedActivationFunction=activation, keepNumDims=True)
    emitter.operator("FULLY_CONNECTED", [inputs[0], *emitter.weights(node, (0, 1), inputs[0])], output, options, version=5)


def _pool(name: str, filler: float) -> _Emit:
    def emit(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
        padding, source = _padded(emitter, node, inputs[0], value=filler)
        height, width = node.layer.kernel
        options = schema.Pool2DOptionsT(
            padding=padding, filterHeight=height, filterWidth=width, fusedActivationFunction=activation, **_strides(node.layer)
        )
        emitter.operator(name, [source], output, options)

    return emit


def _reduce(name: str) -> _Emit:
    def emit(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
        axes = emitter.constant(f"{node.name}/axes", (1, 2))
        emitter.operator(name, [inputs[0], axes], output, schema.ReducerOptionsT(keepDims=len(node.layer.output) == 4))

    return emit


def _resize(name: str, options: Callable[..., Any]) -> _Emit:
    def emit(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
        size = emitter.constant(f"{node.name}/size", node.layer.output[1:3])
        emitter.operator(name, [inputs[0], size], output, options(alignCorners=False, halfPixelCenters=True), version=3)

    return emit


def _arithmetic(name: str, options: Callable[..., Any]) -> _Emit:
    def emit(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
        emitter.operator(name, inputs, output, options(fusedActivationFunction=activation))

    return emit


def _concat(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    emitter.operator("CONCATENATION", inputs, output, schema.ConcatenationOptionsT(axis=len(node.layer.output) - 1))


def _flatten(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    shape = emitter.constant(f"{node.name}/shape", node.layer.output)
    options = schema.ReshapeOptionsT(newShape=np.array(node.layer.output, np.int32))
    emitter.operator("RESHAPE", [inputs[0], shape], output, options)


def _softmax(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    emitter.operator("SOFTMAX", inputs, output, schema.SoftmaxOptionsT(beta=1.0))


def _unary_layer(emitter: Emitter, node: Node, inputs: list[int], output: int, activation: int) -> None:
    _unary(emitter, node, node.layer.op, inputs[0], output)


def _unary(emitter: Emitter, node: Node, function: str, source: int, output: int) -> None:
    """Add an activation as an operator of its own."""
    name, shape = node.name, node.layer.output
    if function == "hard_sigmoid":  # TFLite has no operator for it: relu6(x + 3) / 6
        shifted = emitter.activation(f"{name}/shifted", shape)
        relu6 = FUSED_ACTIVATIONS["relu6"]
        three = emitter.constant(f"{name}/three", np.array(3, np.float32))
        sixth = emitter.constant(f"{name}/sixth", np.array(1 / 6, np.float32))
        emitter.operator("ADD", [source, three], shifted, schema.AddOptionsT(fusedActivationFunction=relu6))
        emitter.operator("MUL", [shifted, sixth], output, schema.MulOptionsT())
    elif function == "silu":  # nor for this: x * sigmoid(x)
        gate = emitter.activation(f"{name}/gate", shape)
        emitter.operator("LOGISTIC", [source], gate)
        emitter.operator("MUL", [source, gate], output, schema.MulOptionsT())
    elif function == "softplus":  # nor for log(1 + exp(x))
        power, sum_ = emitter.activation(f"{name}/power", shape), emitter.activation(f"{name}/sum", shape)
        one = emitter.constant(f"{name}/one", np.array(1, np.float32))
        emitter.operator("EXP", [source], power, schema.ExpOptionsT())
        emitter.operator("ADD", [power, one], sum_, schema.AddOptionsT())
        emitter.operator("LOG", [sum_], output)
    elif function == "leaky_relu":
        emitter.operator("LEAKY_RELU", [source], output, schema.LeakyReluOptionsT(alpha=node.layer.slope))
    else:
        name, options = _UNARY_OPERATORS[function]
        emitter.operator(name, [source], output, options() if options else None)


def _padded(emitter: Emitter, node: Node, source: int, value: float = 0) -> tuple[int, int]:
    """The padding option of the operator, and the tensor that it reads; a PAD with this value is added if needed."""
    layer = node.layer
    if not needs_pad(layer):
        return (_SAME if any(layer.padding) else _VALID), source
    (n, height, width, channels), (top, left, bottom, right) = layer.inputs[0], layer.padding
    padded = emitter.activation(f"{node.name}/padded", (n, height + top + bottom, width + left + right, channels))
    pads = emitter.constant(f"{node.name}/paddings", np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
    if value == 0:
        emitter.operator("PAD", [source, pads], padded, schema.PadOptionsT())
    else:
        filler = emitter.constant(f"{node.name}/filler", np.array(value, np.float32))
        emitter.operator("PADV2", [source, pads, filler], padded, schema.PadV2OptionsT())
    return _VALID, padded


def _strides(layer: LayerSpec) -> dict[str, int]:
    return {"strideH": layer.stride[0], "strideW": layer.stride[1]}


def _dilations(layer: LayerSpec) -> dict[str, int]:
    return {"dilationHFactor": layer.dilation[0], "dilationWFactor": layer.dilation[1]}


_Emit = Callable[[Emitter, Node, list[int], int, int], None]
"""A function that adds a layer: its emitter, node, input tensors, output tensor and fused activation (a number of the schema)."""

_UNARY_OPERATORS: dict[str, tuple[str, Callable[[], Any] | None]] = {
    "relu": ("RELU", None),
    "relu6": ("RELU6", None),
    "hard_swish": ("HARD_SWISH", schema.HardSwishOptionsT),
    "sigmoid": ("LOGISTIC", None),
    "gelu": ("GELU", schema.GeluOptionsT),
    "elu": ("ELU", None),
    "tanh": ("TANH", None),
}
_FUSING_OPS = ("conv2d", "depthwise_conv2d", "conv_transpose2d", "fully_connected", "avg_pool2d", "max_pool2d", "add", "mul")
_EMITTERS: dict[str, _Emit] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "fully_connected": _fully_connected,
    "avg_pool2d": _pool("AVERAGE_POOL_2D", 0),
    "max_pool2d": _pool("MAX_POOL_2D", -math.inf),
    "global_avg_pool": _reduce("MEAN"),
    "global_max_pool": _reduce("REDUCE_MAX"),
    "upsample_nearest": _resize("RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT),
    "upsample_bilinear": _resize("RESIZE_BILINEAR", schema.ResizeBilinearOptionsT),
    "add": _arithmetic("ADD", schema.AddOptionsT),
    "mul": _arithmetic("MUL", schema.MulOptionsT),
    "concat": _concat,
    "flatten": _flatten,
    "softmax": _softmax,
    **dict.fromkeys(ACTIVATIONS[1:], _unary_layer),
}
