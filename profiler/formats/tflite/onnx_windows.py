"""Operators of ONNX files that move a window over images: convolutions, pools and resizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from profiler.formats.onnx.tensors import open_session
from profiler.formats.tflite.onnx_operator import Emit, Operator
from profiler.formats.tflite.ordered import CHANNELS_LAST, Array, NotInTflite, Stored, stored_shape


def _window(op: Operator, rank: int, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    """Kernel, strides and dilations of two axes, and the padding of four, for a sequence or an image."""
    if op.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotInTflite("pads by itself")
    two = 4 - rank  # a sequence is an image of one row
    lists = [list(kernel), *(op.attribute(name, [1] * len(kernel)) for name in ("strides", "dilations"))]
    kernel, strides, dilations = ([1] * two + list(item) for item in lists)
    pads = op.attribute("pads", [0] * 2 * (rank - 2))
    both = [(0, 0)] * two + list(zip(pads[: rank - 2], pads[rank - 2 :], strict=True))
    return list(kernel), list(strides), list(dilations), [(0, 0), (0, 0), *both]


def _conv(op: Operator) -> Stored:
    """A convolution of a sequence, or of an image where it is no layer of ours."""
    x, weights, bias = op.computed(), op.constant(1), op.constant(2)
    rank = len(x.shape)
    if weights is None or rank not in (3, 4):
        raise NotInTflite(f"reads {rank} dimensions")
    weights = weights.reshape(*weights.shape[:2], 1, -1) if rank == 3 else weights  # (out, in / groups, kh, kw)
    kernel, strides, dilations, pads = _window(op, rank, weights.shape[4 - rank + 2 :] if rank == 3 else weights.shape[2:])
    groups, out = op.attribute("group", 1), weights.shape[0]
    image = op.padded(op.as_image(x), pads)
    n, channels, height, width = image.shape
    sizes = [(size - (k - 1) * d - 1) // s + 1 for size, k, s, d in zip((height, width), kernel, strides, dilations, strict=True)]
    common = {
        "padding": schema.Padding.VALID, "strideH": strides[0], "strideW": strides[1],
        "dilationHFactor": dilations[0], "dilationWFactor": dilations[1],
    }  # fmt: skip
    zeros = op.store(np.zeros(out, np.float32) if bias is None else bias)
    if groups == channels > 1:
        inputs = [image.number, op.store(np.ascontiguousarray(weights.transpose(1, 2, 3, 0))), zeros]
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=out // channels, **common)
        made = op.add("DEPTHWISE_CONV_2D", inputs, (n, out, *sizes), CHANNELS_LAST, options, 2)
    else:
        inputs = [image.number, op.store(np.ascontiguousarray(weights.transpose(0, 2, 3, 1))), zeros]
        options = schema.Conv2DOptionsT(**common)
        made = op.add("CONV_2D", inputs, (n, out, *sizes), CHANNELS_LAST, options, 6 if groups > 1 else 1)
    return op.reshaped(made, op.output_shape)


def _conv_transpose(op: Operator) -> Stored:
    """A transposed convolution of a sequence, or of an image where it is no layer of ours: computed in full, then cropped."""
    x, weights, bias = op.computed(), op.constant(1), op.constant(2)
    rank = len(x.shape)
    if weights is None or rank not in (3, 4) or op.attribute("group", 1) > 1:
        raise NotInTflite("has groups" if rank in (3, 4) else f"reads {rank} dimensions")
    kernel, strides, dilations, pads = _window(op, rank, weights.shape[2:])
    weights = weights.reshape(*weights.shape[:2], *kernel)  # (in, out, kh, kw)
    image = op.as_image(x)
    whole = [(size - 1) * s + k for size, s, k in zip(image.shape[2:], strides, kernel, strict=True)]
    sizes = [1, *op.output_shape[2:]][-2:]
    ranges = [range(before, before + size) for (before, _), size in zip(pads[2:], sizes, strict=True)]
    if set(dilations) != {1} or any(taken.stop > size for taken, size in zip(ranges, whole, strict=True)):
        raise NotInTflite("has dilation, or pads its output")
    shape = (image.shape[0], weights.shape[1], *whole)
    options = schema.TransposeConvOptionsT(padding=schema.Padding.VALID, strideH=strides[0], strideW=strides[1])
    inputs = [op.store(stored_shape(shape, CHANNELS_LAST)), op.store(np.ascontiguousarray(weights.transpose(1, 2, 3, 0)))]
    inputs += [image.number, *([] if bias is None else [op.store(bias)])]
    made = op.add("TRANSPOSE_CONV", inputs, shape, CHANNELS_LAST, options, 1 if bias is None else 3)
    return op.reshaped(op.sliced(made, [range(shape[0]), range(shape[1]), *ranges]), op.output_shape)


def _fused_conv(op: Operator) -> Stored:
    """onnxruntime's convolution that adds a shortcut, its fourth input, and applies an activation."""
    made, name, numbers = _conv(op), op.attribute("activation", ""), op.attribute("activation_params", [])
    if len(op.operands) > 3 and op.operands[3] is not None:
        made = op.binary("ADD", made, op.operand(3))
    if name == "LeakyRelu":
        return op.unary("LEAKY_RELU", made, schema.LeakyReluOptionsT(alpha=numbers[0]))
    if name == "Clip":
        return op.binary("MINIMUM", op.binary("MAXIMUM", made, numbers[0]), numbers[1])
    activations = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}
    if name and name not in activations:
        raise NotInTflite(f"applies {name}")
    return op.unary(activations[name], made) if name else made


def _pool(op: Operator) -> Stored:
    """A pool of a sequence, or one of an image with counted borders, sizes that are rounded up, or another norm."""
    x = op.computed()
    rank = len(x.shape)
    if rank not in (3, 4) or len(op.node.output) > 1:
        raise NotInTflite(f"reads {rank} dimensions" if rank not in (3, 4) else "tells where it found the largest numbers")
    kernel, strides, dilations, pads = _window(op, rank, op.attribute("kernel_shape", ()))
    if set(dilations) != {1}:
        raise NotInTflite("has dilation")
    image, norm = op.as_image(x), op.attribute("p", 2)
    if op.kind == "LpPool":
        image = op.binary("POW", op.unary("ABS", image, schema.AbsOptionsT()), norm)
    sizes = (op.output_shape[2], op.output_shape[3]) if rank == 4 else (1, op.output_shape[2])
    counts, whole = [], list(pads)
    for axis, (size, k, s) in enumerate(zip(sizes, kernel, strides, strict=True), start=2):
        before, behind = pads[axis]
        needed = (size - 1) * s + k
        whole[axis] = (before, max(0, needed - image.shape[axis] - before))
        counted = before + behind if op.attribute("count_include_pad", 0) else 0
        first, last = (0, image.shape[axis] + counted) if counted else (before, before + image.shape[axis])
        counts.append([max(0, min(at * s + k, last) - max(at * s, first)) for at in range(size)])
    is_max = op.kind == "MaxPool"
    image = op.padded(image, whole, -math.inf if is_max else 0)
    options = schema.Pool2DOptionsT(
        padding=schema.Padding.VALID, filterHeight=kernel[0], filterWidth=kernel[1], strideH=strides[0], strideW=strides[1]
    )
    shape = (*image.shape[:2], *sizes)
    made = op.add("MAX_POOL_2D" if is_max else "AVERAGE_POOL_2D", [image.number], shape, CHANNELS_LAST, options)
    area = kernel[0] * kernel[1]
    if op.kind == "LpPool":
        made = op.binary("POW", op.binary("MUL", made, area), 1 / norm)
    elif not is_max and any(count != k for line, k in zip(counts, kernel, strict=True) for count in line):
        # the average of TFLite counts all that is padded
        made = op.binary("MUL", made, (area / np.outer(counts[0], counts[1])).astype(np.float32)[None, None])
    return op.reshaped(made, op.output_shape)


def _resize(op: Operator) -> Stored:
    x = op.computed()
    if len(x.shape) != 4 or op.output_shape[:2] != x.shape[:2]:
        raise NotInTflite("changes other sizes than height and width")
    mode, coordinates = op.attribute("mode", "nearest"), op.attribute("coordinate_transformation_mode", "half_pixel")
    height, width = op.output_shape[2:]
    if mode == "linear" and not op.attribute("antialias", 0):
        kinds = {"align_corners": (True, False), "asymmetric": (False, False)}
        kinds |= dict.fromkeys(("half_pixel", "pytorch_half_pixel"), (False, True))
        if coordinates in kinds:
            corners, half = kinds[coordinates]
            image, size = op.as_image(x), op.store([height, width])
            options = schema.ResizeBilinearOptionsT(alignCorners=corners, halfPixelCenters=half)
            return op.add("RESIZE_BILINEAR", [image.number, size], op.output_shape, CHANNELS_LAST, options, 3)
    matrices = [_resizing(op, axis) for axis in (2, 3)]
    if all((matrix.max(axis=1) == 1).all() and (np.count_nonzero(matrix, axis=1) == 1).all() for matrix in matrices):
        for axis, matrix in zip((2, 3), matrices, strict=True):
            x = op.picked(x, axis, matrix.argmax(axis=1))
        return x
    x = op.multiplied(op.as_in_file(x), np.ascontiguousarray(matrices[1].T))  # along the width, then along the height
    swapped = op.multiplied(op.transposed(x, (0, 1, 3, 2)), np.ascontiguousarray(matrices[0].T))
    return op.transposed(swapped, (0, 1, 3, 2))


def _resizing(op: Operator, axis: int) -> Array:
    """What a resize does along one axis, as a matrix (out, in): onnxruntime resizes the unit matrix for it."""
    before, after = op.computed().shape[axis], op.output_shape[axis]
    node = type(op.node)()
    node.CopyFrom(op.node)
    del node.input[:]
    scales = op.constant(2)
    asked = (
        {"sizes": np.array([1, 1, after, before])}
        if scales is None or not scales.size
        else {"scales": np.array([1, 1, scales[axis], 1], np.float32)}
    )
    node.input.extend(["x", "", "", "sizes"] if "sizes" in asked else ["x", "", "scales"])
    node.output[:] = ["y"]
    constants = [numpy_helper.from_array(array, name) for name, array in asked.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, before, before))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, after, before))]
    model = helper.make_model(
        helper.make_graph([node], "resize", inputs, outputs, constants), opset_imports=op.model.opset_import,
        ir_version=op.model.ir_version,
    )  # fmt: skip
    session = open_session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    matrix: Array = session.run(None, {"x": np.eye(before, dtype=np.float32)[None, None]})[0][0, 0]
    return matrix


OPERATORS: Mapping[str, Emit] = {
    "Conv": _conv,
    "FusedConv": _fused_conv,
    "ConvTranspose": _conv_transpose,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
}
"""By their names in ONNX."""
