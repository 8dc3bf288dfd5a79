"""The .tflite container: the flatbuffer the schema describes, checked on the way in and aligned on the way out.

Nothing here runs a model. A file that passes `load` has every offset and index inside its bounds, so reading it cannot crash
this process; whether its operators make sense is found out by the runner, which is a process of its own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from device_agents.support.text import printable
from profiler.errors import LayerError, ModelError
from profiler.layers.layer import Pair, Shape

Bytes = NDArray[np.uint8]
Padding = tuple[int, int, int, int]
"""Top, left, bottom, right."""

IDENTIFIER = b"TFL3"
VERSION = 3
BUFFER_ALIGNMENT = 16  # force_align of Buffer.data in the schema; runtimes map weights straight out of the file

OPERATOR_NUMBERS: dict[str, int] = {
    name: number for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)
}
OPERATOR_NAMES = {number: name for name, number in OPERATOR_NUMBERS.items()}
_LAST_DEPRECATED_CODE = 127
"""Operators above it have only the newer field; the old one, a byte, then says 127."""

FLOAT32: int = schema.TensorType.FLOAT32
TYPE_NAMES: dict[int, str] = {number: name.lower() for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
_TYPE_BYTES = {"float32": 4, "float16": 2, "int32": 4, "uint8": 1, "int64": 8, "int16": 2, "int8": 1, "bool": 1, "float64": 8}

_DAMAGE = (struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)
"""What the flatbuffers package raises, depending on where in a damaged file it stumbles."""


@dataclass(frozen=True, slots=True)
class AlignedBuffer:
    """Stands in for BufferT, whose Pack neither aligns weights nor copies them in one piece."""

    data: Bytes | None = None

    def Pack(self, builder: Any) -> Any:
        vector = None
        if self.data is not None:
            builder.Prep(BUFFER_ALIGNMENT, self.data.size)
            vector = builder.CreateByteVector(self.data.tobytes())
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the main subgraph."""

    index: int
    name: str
    """BuiltinOperator's name, or the custom operator's own."""
    is_custom: bool
    inputs: tuple[int, ...]
    """Tensor numbers; -1 where an optional one is left out."""
    outputs: tuple[int, ...]
    table: Any
    """The OperatorT."""
    code: Any
    """The OperatorCodeT."""

    @property
    def options(self) -> Any:
        return self.table.builtinOptions


@dataclass(frozen=True, slots=True)
class Contents:
    """A file's first subgraph, which is what runs, and whatever it needs."""

    label: str
    """For messages: the file's name."""
    operators: tuple[Operator, ...]
    tensors: list[Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: Mapping[int, Bytes]
    """Raw bytes of the main subgraph's constant tensors, by tensor number."""
    codes: list[Any]
    other_subgraphs: list[Any]
    buffers: list[Any]

    def shape(self, tensor: int) -> Shape:
        return tuple(map(int, _items(self.tensors[tensor].shape)))

    def dtype(self, tensor: int) -> str:
        return TYPE_NAMES[self.tensors[tensor].type]

    def activations(self, operator: Operator) -> tuple[int, ...]:
        """The operator's inputs that are computed: no constants, no state it keeps to itself."""
        return tuple(i for i in operator.inputs if i >= 0 and i not in self.constants and not self.tensors[i].isVariable)

    def name(self, tensor: int) -> str:
        return text(self.tensors[tensor].name) or f"tensor_{tensor}"

    def values(self, tensor: int) -> NDArray[Any] | None:
        """Of a dense constant of a type that numpy knows; None for anything else."""
        data, dtype = self.constants.get(tensor), self.dtype(tensor)
        if data is None or dtype not in _TYPE_BYTES or self.tensors[tensor].sparsity is not None:
            return None
        return data.view(np.dtype(dtype)).reshape(self.shape(tensor))

    def integers(self, tensor: int) -> NDArray[Any] | None:
        """Of a constant of whole numbers: axes, paddings."""
        values = self.values(tensor)
        return values if values is not None and values.dtype.kind == "i" else None


def same_padding(size: Shape, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Padding:
    """What SAME means for a figure of this height and width: an odd pixel goes to the bottom and right."""
    if min(*stride, *dilation, *kernel) < 1:
        raise LayerError(f"kernel {kernel}, stride {stride} and dilation {dilation} must be positive")
    totals = [
        max((-(-pixels // s) - 1) * s + (k - 1) * d + 1 - pixels, 0)
        for pixels, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    return totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2


def text(value: bytes | None) -> str:
    """A name from the file, fit to be printed."""
    return printable((value or b"").decode("utf-8", "replace"))


def operator_code(number: int, version: int = 1, custom: str | None = None) -> Any:
    """Both code fields are set: runtimes before 2.3 read only the old one."""
    old = min(number, _LAST_DEPRECATED_CODE)
    return schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=old, version=version, customCode=custom)


def pack(codes: Sequence[Any], subgraphs: Sequence[Any], buffers: Sequence[AlignedBuffer]) -> bytes:
    """A whole file with the signature "serving_default" over the first subgraph, without which quantizers refuse it."""
    main = subgraphs[0]
    signature = schema.SignatureDefT(
        signatureKey="serving_default",
        subgraphIndex=0,
        inputs=[_signature_entry(main, tensor) for tensor in main.inputs],
        outputs=[_signature_entry(main, tensor) for tensor in dict.fromkeys(main.outputs)],
    )
    model = schema.ModelT(
        version=VERSION, operatorCodes=codes, subgraphs=subgraphs, buffers=buffers, signatureDefs=[signature], description=""
    )
    # room for everything from the start: the builder grows by copying
    builder = flatbuffers.Builder(sum(buffer.data.size + 64 for buffer in buffers if buffer.data is not None) + (1 << 14))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _signature_entry(subgraph: Any, tensor: int) -> Any:
    return schema.TensorMapT(name=subgraph.tensors[tensor].name, tensorIndex=tensor)


def load(path: Path) -> Contents:
    """`ModelError` in one sentence for whatever keeps the file from being read."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ModelError(f"{path.name} is not a TFLite file: it does not say {IDENTIFIER.decode()} at its start")
    try:
        return _contents(path.name, data)
    except _DAMAGE as exc:
        raise ModelError(f"{path.name} is damaged or cut short: it points at what is not there ({exc})") from exc


def _contents(label: str, data: bytes) -> Contents:
    model = schema.Model.GetRootAs(data, 0)
    if model.Version() != VERSION:
        raise ModelError(f"{label} has TFLite schema version {model.Version()}, but only version {VERSION} can be read")
    if model.SubgraphsLength() == 0:
        raise ModelError(f"{label} holds no network: it has no subgraph")
    _check_counts(label, model, len(data))
    codes = [schema.OperatorCodeT.InitFromObj(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
    buffers = [schema.BufferT.InitFromObj(model.Buffers(i)) for i in range(model.BuffersLength())]
    subgraphs = [schema.SubGraphT.InitFromObj(model.Subgraphs(i)) for i in range(model.SubgraphsLength())]
    for subgraph in subgraphs:
        _check_references(label, subgraph, codes, buffers)
    tables = [table for subgraph in subgraphs for table in subgraph.operators or []]
    if any(buffer.offset > 1 for buffer in buffers) or any(table.largeCustomOptionsOffset > 1 for table in tables):
        raise ModelError(f"{label} keeps its weights behind the flatbuffer, as files over 2 GB do; that cannot be read yet")
    main = subgraphs[0]
    tensors = main.tensors or []
    constants, folded = _constants(label, main, tensors, buffers, codes)
    operators = tuple(_operator(i, table, codes) for i, table in enumerate(main.operators or []) if i not in folded)
    inputs, outputs = numbers(main.inputs), numbers(main.outputs)
    return Contents(label, operators, tensors, inputs, outputs, constants, codes, subgraphs[1:], buffers)


def _check_counts(label: str, model: Any, file_bytes: int) -> None:
    """Every table costs its vector four bytes, so a file that claims more tables than that would only eat memory."""
    room = file_bytes // 4
    tables = model.SubgraphsLength() + model.OperatorCodesLength() + model.BuffersLength()
    if tables <= room:
        for index in range(model.SubgraphsLength()):
            subgraph = model.Subgraphs(index)
            tables += subgraph.TensorsLength() + subgraph.OperatorsLength()
    if tables > room:
        raise ModelError(f"{label} is damaged: it claims {tables} parts, more than fit in its {file_bytes} bytes")


def _check_references(label: str, subgraph: Any, codes: list[Any], buffers: list[Any]) -> None:
    tensors, operators = subgraph.tensors or [], subgraph.operators or []
    used = [*numbers(subgraph.inputs), *numbers(subgraph.outputs)]
    optional = [index for table in operators for index in numbers(table.inputs)]
    made = [index for table in operators for index in (*numbers(table.outputs), *numbers(table.intermediates))]
    inside = (
        all(0 <= index < len(tensors) for index in (*used, *made))
        and all(-1 <= index < len(tensors) for index in optional)
        and all(0 <= tensor.buffer < len(buffers) and tensor.type in TYPE_NAMES for tensor in tensors)
        and all(0 <= table.opcodeIndex < len(codes) for table in operators)
    )
    if not inside:
        raise ModelError(f"{label} is damaged: it numbers a tensor, buffer or operator that it does not have")


def _constants(
    label: str, main: Any, tensors: list[Any], buffers: list[Any], codes: list[Any]
) -> tuple[dict[int, Bytes], set[int]]:
    """Constant tensors, and the DEQUANTIZEs of half-precision weights that became part of them.

    XNNPACK widens such weights once when it loads a model, so no inference pays for it and no layer is made of it.
    """
    constants = {
        index: buffers[tensor.buffer].data
        for index, tensor in enumerate(tensors)
        if not tensor.isVariable and buffers[tensor.buffer].data is not None and buffers[tensor.buffer].data.size
    }
    for index, data in constants.items():
        _check_constant(label, tensors[index], data)
    folded = set()
    for number, table in enumerate(main.operators or []):
        if _operator_name(codes[table.opcodeIndex]) != "DEQUANTIZE":
            continue
        (source,), (target,) = numbers(table.inputs), numbers(table.outputs)
        if source in constants and TYPE_NAMES[tensors[source].type] == "float16" and tensors[target].type == FLOAT32:
            constants[target] = constants[source].view(np.float16).astype(np.float32).view(np.uint8)
            _check_constant(label, tensors[target], constants[target])
            folded.add(number)
    return constants, folded


def _check_constant(label: str, tensor: Any, data: Bytes) -> None:
    item_bytes = _TYPE_BYTES.get(TYPE_NAMES[tensor.type])
    if item_bytes is None or tensor.sparsity is not None:
        return
    shape = tuple(map(int, _items(tensor.shape)))
    if math.prod(shape) * item_bytes != data.size or min(shape, default=1) < 0:
        raise ModelError(
            f"{label} is damaged: {text(tensor.name)} holds {data.size} bytes, which its shape {shape} does not explain"
        )


def _operator(index: int, table: Any, codes: list[Any]) -> Operator:
    code = codes[table.opcodeIndex]
    name = _operator_name(code)
    is_custom = name == "CUSTOM"
    if is_custom:
        name = text(code.customCode) or name
    return Operator(index, name, is_custom, numbers(table.inputs), numbers(table.outputs), table, code)


def _operator_name(code: Any) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)  # a file sets either or both
    return OPERATOR_NAMES.get(number, f"OPERATOR_{number}")


def _items(vector: Any) -> Any:
    return () if vector is None else vector


def numbers(vector: Any) -> tuple[int, ...]:
    return tuple(map(int, _items(vector)))
