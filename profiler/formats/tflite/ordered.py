"""Tensors of TFLite whose axes are counted as in an ONNX file, in whatever order they are stored, and operators between them.

ONNX stores an image as (n, c, h, w), TFLite with its channels last. So each tensor knows in which order its axes are stored,
operators take any order that they can, and a TRANSPOSE is only written where an operator needs another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from profiler.errors import ModelError
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.schema import FLOAT32
from profiler.layers.layer import Shape

Array = NDArray[Any]
Order = tuple[int, ...]

CHANNELS_LAST: Order = (0, 2, 3, 1)
"""How TFLite stores an image (n, c, h, w)."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A computed tensor."""

    number: int
    """Of the tensor in the TFLite file."""
    shape: Shape
    """With the axes of the ONNX file."""
    order: Order
    """The axis of `shape` that is stored at each place."""

    def place(self, axis: int) -> int:
        """The place at which an axis is stored, which may be counted from the end."""
        return self.order.index(axis % len(self.shape))


def stored_shape(shape: Shape, order: Order) -> Shape:
    """The sizes of a tensor of this shape in the order in which they are stored."""
    return tuple(shape[axis] for axis in order)


def _alike(shape: Shape, one: Order, two: Order) -> bool:
    """True if the elements lie in the same sequence in both orders, which then differ in axes of one element only."""
    return [axis for axis in one if shape[axis] > 1] == [axis for axis in two if shape[axis] > 1]


class NotInTflite(Exception):
    """The way in which an operator is used has no form of ours. The text is what it has or does."""


Operand = Stored | Array | float


class Steps:
    """Adds TFLite's operators one after the other, for what is one operator elsewhere."""

    def __init__(self, emitter: Emitter, name: str, element_type: int = FLOAT32) -> None:
        """`name` is that of the operator, and `element_type` a number of schema.TensorType, that of what it makes."""
        self.emitter, self.name, self.element_type = emitter, name, element_type
        self._count = 0

    def add(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Shape,
        order: Order,
        options: Any = None,
        version: int = 1,
        element_type: int | None = None,
    ) -> Stored:
        """Add an operator of TFLite, which makes a tensor of this shape in this order."""
        self._count += 1
        made_type = self.element_type if element_type is None else element_type
        number = self.emitter.tensor(f"{self.name}/{self._count}", stored_shape(shape, order), made_type)
        self.emitter.operator(name, inputs, number, options, version)
        return Stored(number, shape, order)

    def store(self, values: Array | Sequence[int]) -> int:
        """Add a constant, in numbers of 32 bits or as truth values."""
        self._count += 1
        array = np.asarray(values)
        kinds: dict[str, type[np.generic]] = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.bool_}
        if array.dtype.kind not in kinds:
            raise NotInTflite(f"reads a constant of {array.dtype}")
        limits = np.iinfo(np.int32)
        array = np.clip(array, limits.min, limits.max) if array.dtype.kind in "iu" else array
        return self.emitter.constant(f"{self.name}/constant_{self._count}", array.astype(kinds[array.dtype.kind]))

    def ordered(self, x: Stored, order: Order) -> Stored:
        """The tensor in this order. Where only axes of one element move, nothing is transposed."""
        if x.order == order:
            return x
        element_type = self.emitter.tensors[x.number].type
        shape = stored_shape(x.shape, order)
        if _alike(x.shape, x.order, order):
            options = schema.ReshapeOptionsT(newShape=np.array(shape, np.int32))
            return self.add("RESHAPE", [x.number, self.store(shape)], x.shape, order, options, element_type=element_type)
        perm = [x.order.index(axis) for axis in order]
        return self.add(
            "TRANSPOSE", [x.number, self.store(perm)], x.shape, order, schema.TransposeOptionsT(), element_type=element_type
        )

    def as_in_file(self, x: Stored) -> Stored:
        return self.ordered(x, tuple(range(len(x.shape))))

    def as_image(self, x: Stored) -> Stored:
        """The image with its channels last; a sequence (n, c, l) becomes an image of one row first."""
        if len(x.shape) == 3:
            x = self.reshaped(x, (x.shape[0], x.shape[1], 1, x.shape[2]))
        if len(x.shape) != 4:
            raise NotInTflite(f"reads {len(x.shape)} dimensions")
        return self.ordered(x, CHANNELS_LAST)

    def unary(self, name: str, x: Stored, options: Any = None, version: int = 1) -> Stored:
        return self.add(name, [x.number], x.shape, x.order, options, version)

    def binary(self, name: str, one: Operand, two: Operand, element_type: int | None = None) -> Stored:
        """An operator on numbers at the same place, broadcast as in ONNX."""
        both = [item if isinstance(item, Stored | np.ndarray) else np.array(item, np.float32) for item in (one, two)]
        shape = tuple(np.broadcast_shapes(*(operand.shape for operand in both)))
        order = next((item.order for item in both if isinstance(item, Stored) and len(item.shape) == len(shape)), None)
        order = order or tuple(range(len(shape)))
        numbers = [self.broadcastable(operand, len(shape), order) for operand in both]
        options = {
            "ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT, "DIV": schema.DivOptionsT,
            "MAXIMUM": schema.MaximumMinimumOptionsT, "MINIMUM": schema.MaximumMinimumOptionsT, "POW": schema.PowOptionsT,
            "SQUARED_DIFFERENCE": schema.SquaredDifferenceOptionsT,
        }  # fmt: skip
        return self.add(name, numbers, shape, order, options[name]() if name in options else None, element_type=element_type)

    def broadcastable(self, operand: Stored | Array, rank: int, order: Order) -> int:
        """The number of a tensor of this rank in this order, with axes of one element in front."""
        shape = (1,) * (rank - len(operand.shape)) + tuple(operand.shape)
        if isinstance(operand, Stored):
            return self.ordered(self.reshaped(operand, shape), order).number
        if operand.size == 1:
            return self.store(operand.reshape(()))
        return self.store(operand.reshape(shape).transpose(order))

    def reshaped(self, x: Stored, shape: Shape) -> Stored:
        """The tensor in another shape.

        Axes of the old and the new shape belong together, as few as possible, whose products are equal. If the axes of each such
        group are stored side by side, nothing has to be transposed; else the groups keep the places of their first axes.
        """
        if x.shape == shape:
            return x
        if math.prod(x.shape) != math.prod(shape):
            raise ModelError(f"{self.name}: {x.shape} cannot become {shape}, which has another number of elements; report this")
        groups = _common_groups(x.shape, shape)
        groups.sort(key=lambda group: min((x.place(axis) for axis in group[0] if x.shape[axis] > 1), default=0))
        wanted = tuple(axis for before, _ in groups for axis in before)
        if not _alike(x.shape, x.order, wanted):
            x = self.ordered(x, wanted)
        order = tuple(axis for _, after in groups for axis in after)
        stored = stored_shape(shape, order)
        options = schema.ReshapeOptionsT(newShape=np.array(stored, np.int32))
        element_type = self.emitter.tensors[x.number].type
        return self.add("RESHAPE", [x.number, self.store(stored)], shape, order, options, element_type=element_type)

    def transposed(self, x: Stored, perm: Sequence[int]) -> Stored:
        """The tensor with its axes in another order, of which nothing is seen in the file yet."""
        return Stored(x.number, tuple(x.shape[axis] for axis in perm), tuple(list(perm).index(axis) for axis in x.order))

    def reduced(self, name: str, x: Stored, axes: Sequence[int], keep: bool = True) -> Stored:
        """A sum, a mean or the like over these axes."""
        gone = {axis % len(x.shape) for axis in axes}
        places = self.store(sorted(x.place(axis) for axis in gone))
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(x.shape))
        order = x.order
        if not keep:
            left = [axis for axis in range(len(x.shape)) if axis not in gone]
            shape, order = tuple(x.shape[axis] for axis in left), tuple(left.index(axis) for axis in order if axis in left)
        return self.add(name, [x.number, places], shape, order, schema.ReducerOptionsT(keepDims=keep))

    def sliced(self, x: Stored, ranges: Sequence[range]) -> Stored:
        """The elements at these indices of every axis, whose steps are positive."""
        shape, stored = tuple(map(len, ranges)), [ranges[axis] for axis in x.order]
        begin = self.store([item.start for item in stored])
        if all(item.step == 1 for item in stored):
            return self.add("SLICE", [x.number, begin, self.store([*map(len, stored)])], shape, x.order, schema.SliceOptionsT())
        end, step = self.store([item[-1] + 1 for item in stored]), self.store([item.step for item in stored])
        return self.add("STRIDED_SLICE", [x.number, begin, end, step], shape, x.order, schema.StridedSliceOptionsT())

    def picked(self, x: Stored, axis: int, indices: Array) -> Stored:
        """The elements at these indices of one axis, in any order."""
        shape = tuple(len(indices) if at == axis else size for at, size in enumerate(x.shape))
        options = schema.GatherOptionsT(axis=x.place(axis))
        return self.add("GATHER", [x.number, self.store(indices)], shape, x.order, options)

    def padded(self, x: Stored, pads: Sequence[tuple[int, int]], value: float = 0, mode: str = "constant") -> Stored:
        """The tensor with so many elements before and behind on each axis; x itself if there are none."""
        if not any(map(any, pads)):
            return x
        shape = tuple(size + before + behind for size, (before, behind) in zip(x.shape, pads, strict=True))
        inputs = [x.number, self.store(np.array([pads[axis] for axis in x.order]))]
        if mode == "reflect":
            return self.add("MIRROR_PAD", inputs, shape, x.order, schema.MirrorPadOptionsT(mode=schema.MirrorPadMode.REFLECT))
        if value == 0:
            return self.add("PAD", inputs, shape, x.order, schema.PadOptionsT())
        inputs.append(self.store(np.array(value, np.float32)))
        return self.add("PADV2", inputs, shape, x.order, schema.PadV2OptionsT())

    def multiplied(self, one: Operand, two: Operand) -> Stored:
        """The product of matrices in the last two axes."""
        if isinstance(two, np.ndarray) and two.ndim == 2 and isinstance(one, Stored) and len(one.shape) > 1:
            # fully connected, whose weights are (out, in)
            inputs = [self.as_in_file(one).number, self.store(np.ascontiguousarray(two.T))]
            shape = (*one.shape[:-1], two.shape[1])
            options = schema.FullyConnectedOptionsT(keepNumDims=True)
            return self.add("FULLY_CONNECTED", inputs, shape, tuple(range(len(shape))), options, version=5)
        numbers, adjoint, shapes = [], [], []
        for operand in (one, two):
            array = operand if isinstance(operand, Stored) else np.asarray(operand)
            rank = len(array.shape)
            if rank < 2:
                raise NotInTflite("multiplies a vector")
            shapes.append(tuple(array.shape))
            if isinstance(array, Stored):
                swapped = (*range(rank - 2), rank - 1, rank - 2)
                adjoint.append(array.order == swapped)
                numbers.append((array if adjoint[-1] else self.as_in_file(array)).number)
            else:
                adjoint.append(False)
                numbers.append(self.store(array))
        shape = (*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
        options = schema.BatchMatMulOptionsT(adjX=adjoint[0], adjY=adjoint[1])
        return self.add("BATCH_MATMUL", numbers, shape, tuple(range(len(shape))), options)


def _common_groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes in groups of equal products, as many as possible, in order."""
    groups: list[tuple[list[int], list[int]]] = []
    old, new = 0, 0
    while old < len(before) and new < len(after):
        one, two = [old], [new]
        while (sizes := (math.prod(before[axis] for axis in one), math.prod(after[axis] for axis in two)))[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                one.append(one[-1] + 1)
            else:
                two.append(two[-1] + 1)
        groups.append((one, two))
        old, new = one[-1] + 1, two[-1] + 1
    if not groups:
        return [([*range(len(before))], [*range(len(after))])]
    groups[-1][0].extend(range(old, len(before)))  # axes of one element
    groups[-1][1].extend(range(new, len(after)))
    return groups
