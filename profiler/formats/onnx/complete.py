"""Makes one ONNX file of a user's model that can be run anywhere: with its weights, and with inputs of fixed shapes.

A file that is complete stays as it is, byte for byte. Of weights that are more than one file can hold the large ones are made up:
latency does not depend on their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto

from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given
from profiler.formats.onnx.library_errors import library_errors_as_ours
from profiler.formats.onnx.tensors import MOST_BYTES, MOST_FILE_BYTES, fed_inputs, make_up, opset_of
from profiler.formats.onnx.values import feed_given, feed_indices
from profiler.layers.layer import Shape

LARGE_WEIGHT_BYTES = 1 << 20
OPSET_OF_CONSTANTS = 9
"""The first with operators that make constants."""
MOST_WEIGHTS_BYTES = MOST_BYTES * 2
"""Half of this machine's memory: a runtime that has them open keeps a second copy of some."""
_MADE_UP = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16,
    TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip
"""The types of which an operator of opset 9 makes constants."""


def complete_onnx(path: Path, given: Given = NOTHING) -> bytes:
    """The file with weights that lie beside it, and with shapes as given; an open first dimension is 1.

    `ModelError` if it is damaged, if weights are missing, or if an input has another open dimension.
    """
    with library_errors_as_ours(path):
        return completed(path, given)


def completed(path: Path, given: Given) -> bytes:
    """The same, with the errors of the libraries."""
    data = path.read_bytes()
    model = ModelProto()
    model.ParseFromString(data)
    beside = [tensor for tensor in tensors_in(model.graph) if tensor.data_location == TensorProto.EXTERNAL]
    inputs = inputs_of(model)
    given.check_names([value.name for value in inputs])
    is_fixed = all(_is_fixed(value) for value in inputs)
    _take_in(path, model, beside, len(data))
    if not is_fixed or given.shapes:
        _fix_shapes(model, inputs, given)
    feed_given(model, given)
    if all(value.type.HasField("tensor_type") for value in inputs):
        feed_indices(model)
    if not beside and is_fixed and not given.shapes and not fed_inputs(model):
        return data  # byte for byte, as tables know it
    complete: bytes = model.SerializeToString(deterministic=True)
    return complete


def inputs_of(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs that need a value: old exporters list weights among the inputs."""
    weights = {weight.name for weight in model.graph.initializer} - fed_inputs(model)
    weights |= {weight.values.name for weight in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in weights]


def tensors_in(graph: GraphProto) -> Iterator[TensorProto]:
    """All constants of the graph, of its nodes and of the graphs in them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.type == AttributeProto.GRAPH else []), *attribute.graphs):
                yield from tensors_in(inner)


def made_up_weights(path: Path) -> str | None:
    """A sentence on the weights that are made up when the file is measured; None if all are its own."""
    with library_errors_as_ours(path):
        model = ModelProto()
        model.ParseFromString(path.read_bytes())
        beside = [tensor for tensor in tensors_in(model.graph) if tensor.data_location == TensorProto.EXTERNAL]
        total_bytes = sum(size for _, _, size in _places(path, beside))
    if total_bytes <= MOST_FILE_BYTES:
        return None
    return (
        f"{path}: its weights take {total_bytes / 2**30:.1f} GiB, more than one ONNX file can hold; those of "
        f"{LARGE_WEIGHT_BYTES / 2**20:g} MiB and more are measured with made-up values"
    )


def _places(path: Path, tensors: list[TensorProto]) -> list[tuple[Path, int, int]]:
    """The file, the first byte and the number of bytes of each of these tensors, which lie in files beside the model.

    The model may be a link, as download caches keep it: then the other files are beside the link, or beside what it leads to.
    """
    folders, found = (path.parent, path.resolve().parent), []
    for tensor in tensors:
        where = {entry.key: entry.value for entry in tensor.external_data}
        location = PurePosixPath(where.get("location", ""))
        if location.is_absolute() or ".." in location.parts or not location.parts:
            raise ModelError(f"the weight {tensor.name} is said to lie in {str(location)!r}, which is not beside the model")
        file = next((folder / location for folder in folders if (folder / location).is_file()), None)
        if file is None:
            raise ModelError(f"its weights are in {location}, which is not beside it; copy both files into one folder")
        offset, length = int(where.get("offset", 0)), int(where.get("length", -1))
        left_bytes = file.stat().st_size - offset
        if left_bytes < max(length, 0):
            raise ModelError(f"{location} is shorter than the weight {tensor.name} needs; copy it again")
        found.append((file, offset, left_bytes if length < 0 else length))
    return found


def _take_in(path: Path, model: ModelProto, tensors: list[TensorProto], file_bytes: int) -> None:
    """Put the values of these tensors, which lie in files beside the model, into the model itself.

    If they are more than it can hold, large weights become operators that make constants. `ModelError` if that does not do, or
    if they are more than this machine has memory for.
    """
    places = _places(path, tensors)
    total_bytes = file_bytes + sum(size for _, _, size in places)
    made_up: set[str] = set()
    if total_bytes > MOST_FILE_BYTES:
        told = f"its weights take {total_bytes / 2**30:.1f} GiB"
        if total_bytes > MOST_WEIGHTS_BYTES:
            raise ModelError(f"{told}, over half of this machine's memory; use a machine that has more, or measure it in parts")
        own = {weight.name for weight in model.graph.initializer}
        large = [
            (tensor.name, size)
            for tensor, (_, _, size) in zip(tensors, places, strict=True)
            if size >= LARGE_WEIGHT_BYTES and tensor.name in own and tensor.data_type in _MADE_UP
        ]
        made_up = {name for name, _ in large}
        if opset_of(model) < OPSET_OF_CONSTANTS or total_bytes - sum(size for _, size in large) > MOST_FILE_BYTES:
            raise ModelError(f"{told}, more than one ONNX file can hold; measure it in parts")
    for tensor, (file, offset, size_bytes) in zip(tensors, places, strict=True):
        if tensor.name in made_up:
            continue
        with file.open("rb") as opened:
            opened.seek(offset)
            tensor.raw_data = opened.read(size_bytes)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    if made_up:
        make_up(model, made_up)


def _is_fixed(value: ValueInfoProto) -> bool:
    """True if nothing is open. What is not a tensor has no shape, and is for the reader to refuse."""
    if not value.type.HasField("tensor_type"):
        return True
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(size.HasField("dim_value") and size.dim_value >= 0 for size in tensor.shape.dim)


def _fix_shapes(model: ModelProto, inputs: list[ValueInfoProto], given: Given) -> None:
    """Give every input a shape of numbers. A name of a dimension stands for one number in the whole model."""
    sizes: dict[str, int] = {}
    shapes: dict[str, Shape] = {}
    for value in inputs:
        shape = given.shape(value.name)
        declared = value.type.tensor_type
        if shape is None or (declared.HasField("shape") and not declared.shape.dim and not shape):
            continue
        if declared.HasField("shape") and len(declared.shape.dim) != len(shape):
            raise ModelError(f"input {value.name} has {len(declared.shape.dim)} dimensions, not the {len(shape)} that are given")
        shapes[value.name] = shape
        sizes |= {size.dim_param: number for size, number in zip(declared.shape.dim, shape, strict=False) if size.dim_param}
    for value in inputs:
        first = value.type.tensor_type.shape.dim[:1]
        if value.name not in shapes and first and first[0].dim_param:
            sizes.setdefault(first[0].dim_param, 1)
    for value in inputs:
        if value.name not in shapes and _is_fixed(value):
            continue
        declared = value.type.tensor_type
        if value.name not in shapes:
            shapes[value.name] = _shape_by(value, sizes)
        del declared.shape.dim[:]
        declared.shape.SetInParent()
        for number in shapes[value.name]:
            declared.shape.dim.add().dim_value = number
    # what is between inputs and outputs is inferred again from the fixed shapes
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type") and (shapes or not _is_fixed(value)):
            value.type.tensor_type.ClearField("shape")


def _shape_by(value: ValueInfoProto, sizes: dict[str, int]) -> Shape:
    """The declared shape with names replaced by their sizes, and an open first dimension by 1."""
    declared = value.type.tensor_type
    told = [size.dim_param or (str(size.dim_value) if size.dim_value > 0 else "?") for size in declared.shape.dim]
    shape = []
    for index, size in enumerate(declared.shape.dim):
        if size.HasField("dim_value") and size.dim_value >= 0:
            shape.append(int(size.dim_value))
        elif size.dim_param in sizes or index == 0:
            shape.append(sizes.get(size.dim_param, 1))
        else:
            break
    if len(shape) == len(told) and declared.HasField("shape"):
        return tuple(shape)
    example = "x".join(size if size.isdigit() else ("1" if index == 0 else "N") for index, size in enumerate(told)) or "1xN"
    has = f"the open shape {'x'.join(told)}" if declared.HasField("shape") else "no shape"
    raise ModelError(f"input {value.name} has {has}; say which it is to have with --shape {value.name}={example}, N a number")
