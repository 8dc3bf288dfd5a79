"""Writes a single layer as the node that ONNX Runtime itself executes, for a session that leaves it as it is.

Such a node has its activation and its shortcut fused in, and its own layout: nothing is left to optimise, and no copy into or
out of the blocked layout is added. Nodes of the blocked layout are those of `com.microsoft.nchwc`, fused ones those of
`com.microsoft`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, helper

from profiler.errors import ModelError
from profiler.formats.onnx.blocked import DOMAIN
from profiler.formats.onnx.emitter import OPSET, Emitter
from profiler.formats.onnx.executed_integers import IntegerEmitter
from profiler.formats.onnx.tensors import in_file
from profiler.formats.onnx.writer import IR_VERSION, PRODUCER, emit_plain, window_attributes
from profiler.layers.graph import Graph, Node
from profiler.layers.integers import INTEGERS
from profiler.layers.layer import CHANNELS_LAST, GLOBAL_POOL_OPS, POOL_OPS, LayerSpec

FUSED_DOMAIN = "com.microsoft"
FUSED: dict[str, tuple[str, tuple[float, ...]]] = {
    "relu": ("Relu", ()),
    "relu6": ("Clip", (0.0, 6.0)),
    "sigmoid": ("Sigmoid", ()),
    "hard_sigmoid": ("HardSigmoid", (1 / 6, 0.5)),
    "hard_swish": ("HardSwish", ()),
    "tanh": ("Tanh", ()),
    "elu": ("Elu", ()),
    "softplus": ("Softplus", ()),
}
"""The name and the parameters of activations that are part of a convolution or a matrix product."""
ONLY_PRODUCTS = ("elu", "softplus")
"""Those that a matrix product has fused in, but no convolution."""
MADE = {"silu": ("QuickGelu", {"alpha": 1.0}), "gelu": ("Gelu", {})}
"""The operators, with their attributes, that the runtime makes of several of a file."""
POOLS = {
    "max_pool2d": "MaxPool",
    "avg_pool2d": "AveragePool",
    "global_avg_pool": "GlobalAveragePool",
    "global_max_pool": "GlobalMaxPool",
}


def write_executed(graph: Graph, seed: int = 0) -> bytes:
    """The file of a graph of executed layers with random weights; equal graphs and seeds give equal bytes.

    Raises `ModelError` for a layer that the runtime does not execute in this form.
    """
    emitter = IntegerEmitter(graph, seed)
    inputs = emitter.inputs()
    for node in graph.nodes:
        _emit(emitter, node)
    proto = helper.make_graph(emitter.nodes, graph.name or "layer", inputs, emitter.outputs(), emitter.weights)
    domains = [("", OPSET), (FUSED_DOMAIN, 1), (DOMAIN, 1)]
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains]
    model: ModelProto = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _emit(emitter: IntegerEmitter, node: Node) -> None:
    layer = node.layer
    if layer.opaque is not None or layer.dtype not in ("float32", *INTEGERS):
        raise ModelError(f"{node.name} ({layer.op}, {layer.dtype}) cannot be written as an executed layer")
    if layer.dtype in INTEGERS or layer.layout == CHANNELS_LAST:
        emitter.integers(node)
    elif layer.op in ("conv2d", "depthwise_conv2d"):
        _conv(emitter, node)
    elif layer.block > 1:
        op_type, attributes = _blocked(layer)
        emitter.node(op_type, list(node.inputs), node.name, node.name, domain=DOMAIN, **attributes)
    elif layer.op in MADE:
        made, options = MADE[layer.op]
        emitter.node(made, list(node.inputs), node.name, node.name, domain=FUSED_DOMAIN, **options)
    elif layer.op == "fully_connected" and (len(layer.inputs[0]) == 4 or (len(layer.inputs[0]) > 2 and layer.bias)):
        _linear_over_rows(emitter, node)
    elif layer.op == "fully_connected" and len(layer.inputs[0]) == 2 and layer.activation != "none":
        weights = [emitter.weight(node, layer.weight_shape, layer.in_channels), *emitter.bias(node)]
        activation: dict[str, Any] = {"activation": _fused(layer)[0]}
        if layer.activation == "leaky_relu":
            activation["activation_alpha"] = layer.slope
        emitter.node("FusedGemm", [*node.inputs, *weights], node.name, node.name, domain=FUSED_DOMAIN, transB=1, **activation)
    elif layer.activation == "none":
        emit_plain(emitter, node)
    else:
        raise ModelError(f"{node.name}: no {layer.op} applies a {layer.activation} itself")


def _conv(emitter: Emitter, node: Node) -> None:
    layer = node.layer
    source, *shortcut = node.inputs
    shape = layer.weight_shape
    inputs = [source, emitter.weight(node, shape, int(np.prod(shape[1:]))), *emitter.bias(node)]
    if shortcut:
        inputs = [*inputs, *([""] if not layer.bias else []), *shortcut]
    attributes = {"group": layer.groups, **window_attributes(layer)}
    if layer.activation != "none":
        name, parameters = _fused(layer)
        attributes |= {"activation": name} | ({"activation_params": list(parameters)} if parameters else {})
    if layer.block > 1:
        emitter.node("Conv", inputs, node.name, node.name, domain=DOMAIN, **attributes)
    elif shortcut or layer.activation != "none":
        emitter.node("FusedConv", inputs, node.name, node.name, domain=FUSED_DOMAIN, **attributes)
    else:
        emitter.node("Conv", inputs, node.name, node.name, **attributes)


def _linear_over_rows(emitter: Emitter, node: Node) -> None:
    """A linear layer over the pixels of an image or the steps of sequences, which are the rows of one product of matrices to the
    runtime; reshapes copy nothing."""
    layer = node.layer
    if layer.activation != "none":
        raise ModelError(f"{node.name}: no {layer.op} over an image or a sequence applies a {layer.activation} itself")
    rows = emitter.constant(f"{node.name}.to_rows", np.array([-1, layer.in_channels], dtype=np.int64))
    shape = emitter.constant(f"{node.name}.to_output", np.array(in_file(layer.output), dtype=np.int64))
    emitter.node("Reshape", [*node.inputs, rows], f"{node.name}.rows", f"{node.name}.reshape")
    weights = [emitter.weight(node, layer.weight_shape, layer.in_channels), *emitter.bias(node)]
    emitter.node("Gemm", [f"{node.name}.rows", *weights], f"{node.name}.product", node.name, transB=1)
    emitter.node("Reshape", [f"{node.name}.product", shape], node.name, f"{node.name}.reshape_back")


def _fused(layer: LayerSpec) -> tuple[str, tuple[float, ...]]:
    """The name and the parameters of the layer's activation. Raises `ModelError` if nothing has it fused in."""
    if layer.activation == "leaky_relu":
        return "LeakyRelu", (layer.slope,)
    if layer.activation not in FUSED or (layer.activation in ONLY_PRODUCTS and layer.op != "fully_connected"):
        raise ModelError(f"no {layer.op} applies a {layer.activation} itself")
    return FUSED[layer.activation]


def _blocked(layer: LayerSpec) -> tuple[str, dict[str, Any]]:
    """The operator of the blocked layout and its attributes."""
    if layer.op in POOL_OPS:
        return POOLS[layer.op], window_attributes(layer)
    if layer.op in GLOBAL_POOL_OPS:
        return POOLS[layer.op], {}
    if layer.op == "reorder_input":
        return "ReorderInput", {}
    if layer.op == "reorder_output":
        return "ReorderOutput", {"channels": layer.out_channels}
    if layer.op == "upsample_nearest":
        factors = [after // before for before, after in zip(layer.inputs[0][1:3], layer.output[1:3], strict=True)]
        return "Upsample", {"scales": [1, 1, *factors]}
    raise ModelError(f"there is no {layer.op} in the blocked layout")
