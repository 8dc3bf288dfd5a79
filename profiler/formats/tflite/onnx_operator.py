"""An operator of an ONNX file that is being written as operators of TFLite, and the simplest ways to write one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.formats.onnx.tensors import opset_of
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.ordered import Array, NotInTflite, Operand, Steps, Stored
from profiler.formats.tflite.schema import FLOAT32
from profiler.layers.layer import Shape

TYPES: dict[int, int] = {
    TensorProto.FLOAT: FLOAT32, TensorProto.BOOL: schema.TensorType.BOOL,
    # TFLite's kernels take whole numbers of 32 bits everywhere, and of 64 only here and there
    TensorProto.INT32: schema.TensorType.INT32, TensorProto.INT64: schema.TensorType.INT32,
}  # fmt: skip


def shape_in_file(value: ValueInfoProto) -> Shape:
    """The shape of an input or output of an extracted operator."""
    return tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)


class Operator(Steps):
    """An operator of an ONNX file that is being written."""

    def __init__(self, emitter: Emitter, name: str, model: ModelProto, inputs: Sequence[Stored]) -> None:
        super().__init__(emitter, name, TYPES[model.graph.output[0].type.tensor_type.elem_type])
        self.model = model
        (self.node,) = model.graph.node
        self.kind = self.node.op_type
        self.attributes = {item.name: helper.get_attribute_value(item) for item in self.node.attribute}
        self.opset = opset_of(model)
        self.output_shape = shape_in_file(model.graph.output[0])
        constants = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
        computed = dict(zip((value.name for value in model.graph.input), inputs, strict=True))
        self.operands: list[Stored | Array | None] = [
            (computed.get(source, constants.get(source)) if source else None) for source in self.node.input
        ]

    def computed(self, index: int = 0) -> Stored:
        found = self.operand(index)
        if not isinstance(found, Stored):
            raise NotInTflite(f"has a constant as its input {index + 1}")
        return found

    def operand(self, index: int) -> Stored | Array:
        found = self.operands[index] if index < len(self.operands) else None
        if found is None:
            raise NotInTflite(f"has no input {index + 1}")
        return found

    def constant(self, index: int, attribute: str | None = None) -> Array | None:
        """A constant input, or the attribute that it was in older versions; None if it is left out."""
        found = self.operands[index] if index < len(self.operands) else None
        if isinstance(found, Stored):
            raise NotInTflite(f"computes its input {index + 1}")
        if found is None and attribute in self.attributes:
            return np.array(self.attributes[attribute])
        return found

    def attribute(self, name: str, default: Any) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


Emit = Callable[[Operator], Stored | list[Stored]]
"""Writes an operator, and returns what it makes."""


def unary(name: str, options: Callable[[], Any] | None = None) -> Emit:
    return lambda op: op.unary(name, op.computed(), options() if options else None)


def binary(name: str, element_type: int | None = None) -> Emit:
    """An operator of two inputs, or of more that are taken one after the other."""

    def emit(op: Operator) -> Stored:
        total: Operand = op.operand(0)
        for index in range(1, len(op.operands)):
            total = op.binary(name, total, op.operand(index), element_type)
        return total if isinstance(total, Stored) else op.computed()

    return emit


def composed(function: Callable[[Operator, Stored], Stored]) -> Emit:
    return lambda op: function(op, op.computed())
