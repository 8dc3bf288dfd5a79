"""The .tflite container (tensorflow/compiler/mlir/lite/schema/schema.fbs), checked when it is read and aligned when it is written.

Nothing here runs a model. In a file that passes `load` all offsets and indices are within their bounds, so reading it cannot crash
this process. Only the runner, a process of its own, finds out whether its operators make sense.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from device_agents.support.reading import read_bytes
from device_agents.support.text import printable
from profiler.errors import LayerError, ModelError
from profiler.formats.tflite.inputs import split
from profiler.layers.layer import Pair, Shape

Bytes = NDArray[np.uint8]
Padding = tuple[int, int, int, int]
"""Top, left, bottom and right padding in pixels."""

IDENTIFIER = b"TFL3"
VERSION = 3
BUFFER_ALIGNMENT = 16  # force_align of Buffer.data in the schema; runtimes map weights straight out of the file

OPERATOR_NUMBERS: dict[str, int] = {
    name: number for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)
}
OPERATOR_NAMES = {number: name for name, number in OPERATOR_NUMBERS.items()}
_LAST_DEPRECATED_CODE = 127
"""The largest operator number in the old, one-byte field. Operators above it have their number only in the new field."""

FLOAT32: int = schema.TensorType.FLOAT32
TYPE_NAMES: dict[int, str] = {number: name.lower() for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
_TYPE_BYTES = {"float32": 4, "float16": 2, "int32": 4, "uint8": 1, "int64": 8, "int16": 2, "int8": 1, "bool": 1, "float64": 8}

_DAMAGE = (struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)
"""The errors that the flatbuffers package raises for damaged files."""


@dataclass(frozen=True, slots=True)
class AlignedBuffer:
    """A replacement for BufferT, whose Pack neither aligns weights nor copies them in one piece."""

    data: Bytes | None = None

    def Pack(self, builder: Any) -> Any:
        """Write the buffer; the generated ModelT calls it."""
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
    """The name in schema.BuiltinOperator, or that of the custom operator."""
    is_custom: bool
    inputs: tuple[int, ...]
    """Tensor numbers; -1 stands for an optional tensor that is left out."""
    outputs: tuple[int, ...]
    table: Any
    """The OperatorT."""
    code: Any
    """The OperatorCodeT."""

    @property
    def options(self) -> Any:
        """The table of options, of a class for this kind of operator."""
        return self.table.builtinOptions


@dataclass(frozen=True, slots=True)
class Contents:
    """The first subgraph of a file, which is the one that runs, with everything that it needs."""

    label: str
    """The name of the file, for messages."""
    operators: tuple[Operator, ...]
    tensors: list[Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: Mapping[int, Bytes]
    """The bytes of the constant tensors of the first subgraph, by tensor number."""
    fed: Mapping[int, bytes]
    """The values of tensors that are known, by tensor number: a file of operators that read them is run with these."""
    codes: list[Any]
    other_subgraphs: list[Any]
    buffers: list[Any]

    def shape(self, tensor: int) -> Shape:
        """The shape of a tensor; () for a scalar."""
        return tuple(map(int, _items(self.tensors[tensor].shape)))

    def dtype(self, tensor: int) -> str:
        """The data type of a tensor, such as `float32`."""
        return TYPE_NAMES[self.tensors[tensor].type]

    def numpy_type(self, tensor: int) -> np.dtype[Any] | None:
        """The data type of a tensor; None for one that numpy does not have."""
        name = self.dtype(tensor)
        return np.dtype(name) if name in _TYPE_BYTES else None

    def scale(self, tensor: int) -> float:
        """The size of a step of a tensor of integers with one scale; 0 for other tensors."""
        table = self.tensors[tensor].quantization
        scales = np.ravel(table.scale) if table is not None and table.scale is not None else np.zeros(0)
        return float(scales[0]) if scales.size == 1 else 0.0

    def activations(self, operator: Operator) -> tuple[int, ...]:
        """The inputs of the operator that are computed: neither constants nor its own state."""
        return tuple(i for i in operator.inputs if i >= 0 and i not in self.constants and not self.tensors[i].isVariable)

    def read_from_outside(self, operators: Sequence[Operator]) -> tuple[int, ...]:
        """The computed tensors that some operators read and none of them makes, each once, in the order of reading."""
        made = {tensor for operator in operators for tensor in operator.outputs}
        read = dict.fromkeys(tensor for operator in operators for tensor in self.activations(operator))
        return tuple(tensor for tensor in read if tensor not in made)

    def name(self, tensor: int) -> str:
        """The name of a tensor, or `tensor_` and its number if it has none."""
        return text(self.tensors[tensor].name) or f"tensor_{tensor}"

    def values(self, tensor: int) -> NDArray[Any] | None:
        """The values of a dense constant; None for other tensors and for types that numpy does not have."""
        data, dtype = self.constants.get(tensor), self.numpy_type(tensor)
        if data is None or dtype is None or self.tensors[tensor].sparsity is not None:
            return None
        return data.view(dtype).reshape(self.shape(tensor))

    def integers(self, tensor: int) -> NDArray[Any] | None:
        """The values of a constant of integers, such as axes and paddings; None for other tensors."""
        values = self.values(tensor)
        return values if values is not None and values.dtype.kind == "i" else None


def refers_to_subgraphs(operator: Operator) -> bool:
    """True if what the operator does is said by other subgraphs of the file, as of a loop."""
    options = (operator.table.builtinOptions, operator.table.builtinOptions2)
    return any("subgraph" in field.lower() for found in options if found is not None for field in vars(found))


class Signature(NamedTuple):
    """A way to call a subgraph."""

    name: str
    subgraph: int
    inputs: tuple[int, ...]
    """Tensor numbers, in the order in which it names them."""


def same_padding(size: Shape, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Padding:
    """The padding that SAME means for an input of this height and width. An odd pixel is added at the bottom and right.

    Raises `LayerError` if a number of the window is not positive.
    """
    if min(*stride, *dilation, *kernel) < 1:
        raise LayerError(f"kernel {kernel}, stride {stride} and dilation {dilation} must be at least 1")
    totals = [
        max((-(-pixels // s) - 1) * s + (k - 1) * d + 1 - pixels, 0)
        for pixels, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    return totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2


def text(value: bytes | None) -> str:
    """A name from the file that can be printed safely."""
    return printable((value or b"").decode("utf-8", "replace"))


def operator_code(number: int, version: int = 1, custom: str | None = None) -> Any:
    """The OperatorCodeT of an operator. Both code fields are set, because runtimes before 2.3 read only the old one."""
    old = min(number, _LAST_DEPRECATED_CODE)
    return schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=old, version=version, customCode=custom)


def pack(codes: Sequence[Any], subgraphs: Sequence[Any], buffers: Sequence[AlignedBuffer]) -> bytes:
    """The bytes of a file whose first subgraph has the signature `serving_default`, without which quantisers refuse it."""
    main = subgraphs[0]
    signature = schema.SignatureDefT(
        signatureKey="serving_default",
        subgraphIndex=0,
        inputs=[schema.TensorMapT(name=main.tensors[tensor].name, tensorIndex=tensor) for tensor in main.inputs],
        outputs=[schema.TensorMapT(name=main.tensors[tensor].name, tensorIndex=tensor) for tensor in dict.fromkeys(main.outputs)],
    )
    model = schema.ModelT(
        version=VERSION, operatorCodes=codes, subgraphs=subgraphs, buffers=buffers, signatureDefs=[signature], description=""
    )
    # the initial size is sufficient for everything, because the builder grows by copying
    builder = flatbuffers.Builder(sum(buffer.data.size + 64 for buffer in buffers if buffer.data is not None) + (1 << 14))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def load(path: Path) -> Contents:
    """Read a file. Raises `ModelError` if it cannot be read, is damaged, or has a version or a size that is not supported."""
    return parse(path.name, read_bytes(path, ModelError))


def parse(label: str, data: bytes) -> Contents:
    """Read the bytes of a file; `label` is its name. Raises `ModelError` as `load` does."""
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ModelError(f"{label} is not a TFLite file: it does not begin with {IDENTIFIER.decode()}")
    with _damage_as_ours(label):
        return _contents(label, data)


def signatures_of(label: str, data: bytes) -> list[Signature]:
    """The signatures in a file that `parse` has read. `ModelError` if they are damaged."""
    with _damage_as_ours(label):
        model = schema.Model.GetRootAs(data, 0)
        tables = [schema.SignatureDefT.InitFromObj(model.SignatureDefs(index)) for index in range(model.SignatureDefsLength())]
        return [
            Signature(text(table.signatureKey), table.subgraphIndex, tuple(item.tensorIndex for item in table.inputs or []))
            for table in tables
        ]


@contextmanager
def _damage_as_ours(label: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as exc:
        raise ModelError(
            f"{label} is damaged or incomplete: it refers to a missing part ({exc}); convert or copy the model again"
        ) from exc


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
    _take_in_what_lies_behind(label, data, buffers, [table for subgraph in subgraphs for table in subgraph.operators or []])
    main = subgraphs[0]
    tensors = main.tensors or []
    constants, folded = _constants(label, main, tensors, buffers, codes)
    operators = []
    for index, table in enumerate(main.operators or []):
        if index not in folded:
            code = codes[table.opcodeIndex]
            name = _operator_name(code)
            is_custom = name == "CUSTOM"
            if is_custom:
                name = text(code.customCode) or name
            operators.append(Operator(index, name, is_custom, numbers(table.inputs), numbers(table.outputs), table, code))
    inputs = numbers(main.inputs)
    outputs = numbers(main.outputs)
    fed = {inputs[place]: values for place, values in split(data)[1].items()}
    return Contents(label, tuple(operators), tensors, inputs, outputs, constants, fed, codes, subgraphs[1:], buffers)


def _take_in_what_lies_behind(label: str, data: bytes, buffers: list[Any], tables: list[Any]) -> None:
    """Read weights and options that lie behind the flatbuffer, as in files over 2 GB. Offsets 0 and 1 mean that nothing does."""
    parts = [(buffer, "data", buffer.offset, buffer.size) for buffer in buffers]
    parts += [(table, "customOptions", table.largeCustomOptionsOffset, table.largeCustomOptionsSize) for table in tables]
    for owner, name, offset, size_bytes in parts:
        if offset > 1:
            if offset + size_bytes > len(data):
                raise ModelError(f"{label} is incomplete: weights behind its end are missing; copy the model again")
            setattr(owner, name, np.frombuffer(data, np.uint8, size_bytes, offset))


def _check_counts(label: str, model: Any, file_bytes: int) -> None:
    """Raises `ModelError` if the file claims more tables than fit in it, each of which takes at least four bytes."""
    room = file_bytes // 4
    # a damaged number of subgraphs must not become the length of the loop
    tables = model.SubgraphsLength() + model.OperatorCodesLength() + model.BuffersLength()
    if tables <= room:
        for index in range(model.SubgraphsLength()):
            subgraph = model.Subgraphs(index)
            tables += subgraph.TensorsLength() + subgraph.OperatorsLength()
    if tables > room:
        raise ModelError(
            f"{label} is damaged: it claims {tables} parts, more than fit in its {file_bytes} bytes; copy the model again"
        )


def _check_references(label: str, subgraph: Any, codes: list[Any], buffers: list[Any]) -> None:
    """Raises `ModelError` if a number in the subgraph refers to something that does not exist."""
    tensors = subgraph.tensors or []
    operators = subgraph.operators or []
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
        raise ModelError(
            f"{label} is damaged: it refers to a tensor, buffer or operator that it does not have; copy the model again"
        )


def _constants(
    label: str, main: Any, tensors: list[Any], buffers: list[Any], codes: list[Any]
) -> tuple[dict[int, Bytes], set[int]]:
    """The constant tensors, and the numbers of the operators that are folded into them.

    XNNPACK converts half-precision, int8 and sparse weights once when it loads a model. No inference pays for it: it is no layer.
    Sparse weights become zeros here, for latency does not depend on the values of dense ones.
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
        name = _operator_name(codes[table.opcodeIndex])
        if name not in ("DEQUANTIZE", "DENSIFY"):
            continue
        (source,), (target,) = numbers(table.inputs), numbers(table.outputs)
        if name == "DENSIFY":
            item_bytes = _TYPE_BYTES.get(TYPE_NAMES[tensors[target].type])
            if source in constants and item_bytes is not None:
                constants[target] = np.zeros(math.prod(map(int, _items(tensors[target].shape))) * item_bytes, np.uint8)
                folded.add(number)
            continue
        if source in constants and TYPE_NAMES[tensors[source].type] in ("float16", "int8") and tensors[target].type == FLOAT32:
            constants[target] = _widened(tensors[source], constants[source]).view(np.uint8)
            _check_constant(label, tensors[target], constants[target])
            folded.add(number)
    return constants, folded


def _widened(tensor: Any, data: Bytes) -> NDArray[np.float32]:
    """The values of a constant of half-precision numbers or quantised integers, in one dimension."""
    if TYPE_NAMES[tensor.type] == "float16":
        return data.view(np.float16).astype(np.float32)
    shape = tuple(map(int, _items(tensor.shape)))
    table = tensor.quantization
    along = [1] * len(shape)
    if len(table.scale) > 1:
        along[table.quantizedDimension] = len(table.scale)
    scales, zero_points = (np.reshape(values, along).astype(np.float32) for values in (table.scale, table.zeroPoint))
    return ((data.view(np.int8).reshape(shape).astype(np.float32) - zero_points) * scales).reshape(-1)


def _check_constant(label: str, tensor: Any, data: Bytes) -> None:
    """Raises `ModelError` if the size of a dense constant differs from that of its shape."""
    item_bytes = _TYPE_BYTES.get(TYPE_NAMES[tensor.type])
    if item_bytes is None or tensor.sparsity is not None:
        return
    shape = tuple(map(int, _items(tensor.shape)))
    if math.prod(shape) * item_bytes != data.size or min(shape, default=1) < 0:
        raise ModelError(f"{label} is damaged: {text(tensor.name)} holds {data.size} bytes, which do not fit its shape {shape}")


def _operator_name(code: Any) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)  # a file sets either or both
    return OPERATOR_NAMES.get(number, f"OPERATOR_{number}")


def _items(vector: Any) -> Any:
    return () if vector is None else vector


def numbers(vector: Any) -> tuple[int, ...]:
    """A vector of the file as integers; () if it is missing."""
    return tuple(map(int, _items(vector)))
