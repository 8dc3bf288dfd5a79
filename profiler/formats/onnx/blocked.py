"""Describes nodes of ONNX Runtime's blocked layout (`com.microsoft.nchwc`), which exist only in graphs that it has optimised.

The runtime keeps activations of convolutions in blocks of channels, with whole blocks in memory. The shapes that its profiler
reports are those of the blocks; weights have whole blocks of output channels too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from onnx import NodeProto, TensorProto, helper

from profiler.errors import LayerError
from profiler.formats.onnx.layers import Description, Operation, fused_activation, window_of
from profiler.formats.onnx.tensors import Tensors
from profiler.layers.layer import BLOCKED, LayerSpec

DOMAIN = "com.microsoft.nchwc"


def describe_blocked(node: NodeProto, tensors: Tensors, block: int) -> Description | None:
    """The node as a layer in blocks of `block` channels; None if it is no kind of layer that we model."""
    reader = _READERS.get(node.op_type)
    if reader is None or {tensors[name].element_type for name in (node.input[0], node.output[0])} != {TensorProto.FLOAT}:
        return None
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    try:
        layer = reader(Operation(node, tensors, 1, attributes), f"{BLOCKED}{block}")
    except LayerError:
        return None
    reads = tuple(name for name in node.input if name and name not in tensors.constants)
    return None if layer is None else Description(layer, len(reads) == len(layer.inputs), reads)


def _conv(op: Operation, layout: str) -> LayerSpec | None:
    activation, slope = fused_activation(op)
    if activation is None:
        return None
    groups, channels = op.attribute("group", 1), op.shape(0)[-1]
    shortcut = (op.shape(3),) if op.input(3) else ()
    return LayerSpec(
        "depthwise_conv2d" if groups == channels > 1 else "conv2d", (op.shape(0), *shortcut), op.output,
        **window_of(op, op.raw_shape(1)[2:]), groups=groups, activation=activation, slope=slope,
        bias=bool(op.input(2)), layout=layout,
    )  # fmt: skip


def _pool(kind: str, op: Operation, layout: str) -> LayerSpec | None:
    window = window_of(op, tuple(op.attribute("kernel_shape", ())))
    if kind == "avg_pool2d" and any(window["padding"]) and op.attribute("count_include_pad", 0):
        return None
    return LayerSpec(kind, (op.shape(0),), op.output, **window, layout=layout)


def _plain(kind: str, op: Operation, layout: str) -> LayerSpec | None:
    """A node without attributes that matter, or none but the default ones."""
    if op.attribute("channels_last", 0) or op.attribute("mode", "nearest") != "nearest":
        return None
    return LayerSpec(kind, (op.shape(0),), op.output, layout=layout)


_READERS: dict[str, Callable[[Operation, str], LayerSpec | None]] = {
    "Conv": _conv,
    "MaxPool": partial(_pool, "max_pool2d"),
    "AveragePool": partial(_pool, "avg_pool2d"),
    "GlobalAveragePool": partial(_plain, "global_avg_pool"),
    "GlobalMaxPool": partial(_plain, "global_max_pool"),
    "ReorderInput": partial(_plain, "reorder_input"),
    "ReorderOutput": partial(_plain, "reorder_output"),
    "Upsample": partial(_plain, "upsample_nearest"),
}
