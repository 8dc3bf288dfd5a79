"""Operators of ONNX files that join, cut, repeat and reorder tensors, or look rows up."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.formats.tflite.onnx_operator import Emit, Operator, composed
from profiler.formats.tflite.ordered import Array, NotInTflite, Stored, stored_shape


def _concat(op: Operator) -> Stored:
    shape, rank = op.output_shape, len(op.output_shape)
    axis = op.attribute("axis", 0) % rank
    order = next((item.order for item in op.operands if isinstance(item, Stored)), tuple(range(rank)))
    numbers = [
        op.ordered(item, order).number if isinstance(item, Stored) else op.store(item.transpose(order))
        for item in map(op.operand, range(len(op.operands)))
    ]
    return op.add("CONCATENATION", numbers, shape, order, schema.ConcatenationOptionsT(axis=order.index(axis)))


def _split(op: Operator) -> list[Stored]:
    x = op.computed()
    axis = op.attribute("axis", 0) % len(x.shape)
    sizes = op.constant(1, "split")
    each = -(-x.shape[axis] // len(op.node.output))
    parts = [min(each, x.shape[axis] - at) for at in range(0, x.shape[axis], each)] if sizes is None else sizes.tolist()
    made, start = [], 0
    for name, size in zip(op.node.output, parts, strict=True):
        if name:
            made.append(op.sliced(x, [range(start, start + size) if at == axis else range(n) for at, n in enumerate(x.shape)]))
        start += size
    return made


def _slice(op: Operator) -> Stored:
    x = op.computed()
    starts, ends, axes, steps = (op.constant(place + 1, name) for place, name in enumerate(("starts", "ends", "axes", "steps")))
    if starts is None or ends is None:
        raise NotInTflite("has no limits")
    ranges = list(map(range, x.shape))
    chosen = range(len(starts)) if axes is None else axes.tolist()
    for at, axis in enumerate(chosen):
        step = 1 if steps is None else int(steps[at])
        ranges[axis % len(x.shape)] = ranges[axis % len(x.shape)][int(starts[at]) : int(ends[at]) : step]
    if not all(ranges):
        raise NotInTflite("takes nothing of an axis")
    for axis, item in enumerate(ranges):
        if item.step < 0:
            x = op.picked(x, axis, np.array(item))
            ranges[axis] = range(len(item))
    return op.sliced(x, ranges)


def _pad(op: Operator) -> Stored:
    x, found, value = op.computed(), op.constant(1, "pads"), op.constant(2, "value")
    axes, mode = op.constant(3), op.attribute("mode", "constant")
    if found is None or (found < 0).any():
        raise NotInTflite("has negative pads")
    chosen = [axis % len(x.shape) for axis in (range(len(x.shape)) if axes is None else axes.tolist())]
    by_axis = dict(zip(chosen, zip(found[: len(chosen)].tolist(), found[len(chosen) :].tolist(), strict=True), strict=True))
    pads = [by_axis.get(axis, (0, 0)) for axis in range(len(x.shape))]
    if mode in ("edge", "wrap"):
        for axis, both in enumerate(pads):
            if any(both):
                x = op.picked(x, axis, np.pad(np.arange(x.shape[axis]), both, mode=mode))
        return x
    return op.padded(x, pads, 0 if value is None else float(value.reshape(())), mode)


def _gather(op: Operator) -> Stored:
    table = op.operand(0)
    if not isinstance(table, Stored):
        return _looked_up(op, table)
    x, indices = op.computed(), op.constant(1)
    axis = op.attribute("axis", 0) % len(x.shape)
    if indices is None or indices.ndim > 1:
        raise NotInTflite("takes a table of indices")
    indices = indices % x.shape[axis]
    if indices.ndim == 1:
        return op.picked(x, axis, indices)
    one = op.sliced(x, [range(int(indices), int(indices) + 1) if at == axis else range(n) for at, n in enumerate(x.shape)])
    return op.reshaped(one, op.output_shape)


def _looked_up(op: Operator, table: Array) -> Stored:
    """The rows of a constant at computed places, as an embedding has them; one without columns has rows of one number."""
    if op.attribute("axis", 0) != 0 or table.ndim > 2:
        raise NotInTflite("takes other parts of a constant than its rows")
    places = op.computed(1)
    count = math.prod(places.shape)
    rows = table.reshape(len(table), -1)
    found = op.add("EMBEDDING_LOOKUP", [op.reshaped(places, (count,)).number, op.store(rows)], (count, rows.shape[1]), (0, 1))
    return op.reshaped(found, op.output_shape)


def _transpose(op: Operator) -> Stored:
    x = op.computed()
    return op.transposed(x, op.attribute("perm", tuple(reversed(range(len(x.shape))))))


def _expand(op: Operator) -> Stored:
    x, rank = op.computed(), len(op.output_shape)
    x = op.reshaped(x, (1,) * (rank - len(x.shape)) + x.shape)
    size = op.store(stored_shape(op.output_shape, x.order))
    return op.add("BROADCAST_TO", [x.number, size], op.output_shape, x.order, schema.BroadcastToOptionsT(), 2)


def _tile(op: Operator) -> Stored:
    x, repeats = op.computed(), op.constant(1)
    if repeats is None:
        raise NotInTflite("has no repeats")
    times = op.store([int(repeats[axis]) for axis in x.order])
    return op.add("TILE", [x.number, times], op.output_shape, x.order, schema.TileOptionsT())


def _depth_to_space(op: Operator, x: Stored) -> Stored:
    (n, c, h, w), b = x.shape, op.attribute("blocksize", 1)
    c //= b * b
    if op.attribute("mode", "DCR") == "CRD":  # torch's pixel shuffle
        parts = op.transposed(op.reshaped(x, (n, c, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    else:
        parts = op.transposed(op.reshaped(x, (n, b, b, c, h, w)), (0, 3, 4, 1, 5, 2))
    return op.reshaped(parts, (n, c, h * b, w * b))


def _space_to_depth(op: Operator, x: Stored) -> Stored:
    (n, c, h, w), b = x.shape, op.attribute("blocksize", 1)
    parts = op.transposed(op.reshaped(x, (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return op.reshaped(parts, (n, c * b * b, h // b, w // b))


OPERATORS: Mapping[str, Emit] = {
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Transpose": _transpose,
    **dict.fromkeys(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"), lambda op: op.reshaped(op.computed(), op.output_shape)
    ),
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": composed(_depth_to_space),
    "SpaceToDepth": composed(_space_to_depth),
}
"""By their names in ONNX."""
