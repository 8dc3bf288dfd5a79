"""Writes operators of ONNX files that have no model of ours (profiler.formats.onnx.opaque) as TFLite's own, which compute the same.

Tensors keep the axes of the ONNX file, in whatever order they are stored (profiler.formats.tflite.ordered), so that a Transpose of
the file often costs nothing, as with converters.

Sources: the operators of ONNX (https://onnx.ai/onnx/operators) and of TFLite (tensorflow/lite/kernels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto, ValueInfoProto

from profiler.errors import ModelError
from profiler.formats.onnx.tensors import has_subgraph
from profiler.formats.tflite import onnx_axes, onnx_elementwise, onnx_rearranging, onnx_windows
from profiler.formats.tflite.emitter import Emitter
from profiler.formats.tflite.onnx_operator import TYPES, Emit, Operator, shape_in_file
from profiler.formats.tflite.ordered import NotInTflite, Stored
from profiler.formats.tflite.schema import FLOAT32

_OPERATORS: Mapping[str, Emit] = {
    **onnx_elementwise.OPERATORS, **onnx_axes.OPERATORS, **onnx_rearranging.OPERATORS, **onnx_windows.OPERATORS,
}  # fmt: skip
_READ_IN_THE_FILES_ORDER = ("MatMul", "FusedMatMul", "Gemm", "Softmax", "LogSoftmax")
"""Operators on the last axes, whose four dimensions are those of no image: alone, they read them as in the file."""


def reads_in_the_files_order(model: ModelProto) -> bool:
    """True if the extracted operator, alone, is fed with tensors as they are in its file."""
    return model.graph.node[0].op_type in _READ_IN_THE_FILES_ORDER


def type_of(value: ValueInfoProto) -> int:
    """The TFLite type of an input or output of an extracted operator; that of floats where there is none."""
    return TYPES.get(value.type.tensor_type.elem_type, FLOAT32)


def emit_operator(emitter: Emitter, name: str, model: ModelProto, inputs: Sequence[Stored]) -> list[Stored]:
    """Add the operator of an extracted file (profiler.formats.onnx.opaque) and return what it makes.

    `inputs` are what it reads, without constants. Raises `ModelError` if TFLite has no form of it.
    """
    (node,) = model.graph.node
    emit = _OPERATORS.get(node.op_type)
    shapes = [size.dim_value for value in model.graph.output for size in value.type.tensor_type.shape.dim]
    types = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    if emit is None or has_subgraph(node) or not types <= TYPES.keys() or 0 in shapes:
        raise ModelError(f"{node.op_type} has no form of ours in TFLite, so build for a runtime of ONNX files")
    operator = Operator(emitter, name, model, inputs)
    try:
        made = emit(operator)
    except NotInTflite as exc:
        raise ModelError(
            f"{node.op_type} {exc}, which has no form of ours in TFLite, so build for a runtime of ONNX files"
        ) from exc
    if not isinstance(made, list):
        made = [made]
    for tensor, value in zip(made, model.graph.output, strict=True):
        shape = shape_in_file(value)
        if tensor.shape != shape:
            raise ModelError(f"{name} ({node.op_type}) makes {tensor.shape} in TFLite and {shape} in its file; report this")
    return made
