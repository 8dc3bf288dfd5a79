"""Makes one .tflite file of a user's model whose tensors all have the shapes that they have when it runs, with the values of inputs
that are given.

Converters leave dimensions open: in the batch, in other dimensions of inputs, and in tensors between them, whose shape in the file
is then not the one at run time. LiteRT itself is asked for them, in a process of its own, which a damaged file may crash. A file
without open dimensions stays as it is, byte for byte, if no values are given.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from device_agents.support.reading import read_bytes
from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given
from profiler.formats.tflite.inputs import joined
from profiler.formats.tflite.schema import IDENTIFIER, AlignedBuffer, Contents, load, numbers, signatures_of
from profiler.layers.layer import Shape

_PATIENCE_S = 120.0
_ASK = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
path, shapes = sys.argv[1], json.loads(sys.argv[2])
interpreter = Interpreter(model_path=path, num_threads=1, experimental_preserve_all_tensors=True)
for index, shape in shapes:
    interpreter.resize_tensor_input(index, shape)
interpreter.allocate_tensors()
for detail in interpreter.get_input_details():
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
interpreter.invoke()
print(json.dumps([[detail["index"], [int(size) for size in detail["shape"]]] for detail in interpreter.get_tensor_details()]))
"""


def complete_tflite(path: Path, given: Given = NOTHING) -> bytes:
    """The file with shapes and values as given; an open first dimension is 1. `ModelError` if another one of an input is open, if
    values do not fit, or for a damaged file."""
    contents = load(path)
    given.check_names([contents.name(tensor) for tensor in contents.inputs])
    shapes = {tensor: _shape_of_input(contents, tensor, given) for tensor in contents.inputs}
    values = {}
    for place, tensor in enumerate(contents.inputs):
        kind = contents.numpy_type(tensor)
        array = given.array(contents.name(tensor), contents.dtype(tensor) if kind is None else kind, shapes[tensor])
        if array is not None:
            values[place] = array.tobytes()
    if shapes != {tensor: contents.shape(tensor) for tensor in shapes} or _has_open(contents):
        return joined(_rewritten(path, _shapes_at_run_time(path, shapes)), values)
    data = read_bytes(path, ModelError)
    # LiteRT counts the inputs of a compiled model as its signature does, and those of an interpreter as the subgraph does
    if values and any(each.inputs != contents.inputs for each in signatures_of(path.name, data) if each.subgraph == 0):
        data = _rewritten(path, {})
    return joined(data, values)


def other_signatures(path: Path) -> str | None:
    """Which signatures of the file are not measured, because a runner runs the first subgraph; None if there are no others."""
    signatures = signatures_of(path.name, read_bytes(path, ModelError))
    first = [each.name for each in signatures if each.subgraph == 0]
    others = [each.name for each in signatures if each.subgraph != 0]
    if not others:
        return None
    measured = f"signature {first[0]}" if first else "its first subgraph"
    return f"{path}: only {measured} is measured, not {' and '.join(others)}; convert each to a file of its own"


def _shape_of_input(contents: Contents, tensor: int, given: Given) -> Shape:
    name, found = contents.name(tensor), contents.shape(tensor)
    signature = numbers(contents.tensors[tensor].shapeSignature) or found
    wanted = given.shape(name)
    if wanted is not None:
        if len(wanted) != len(found):
            raise ModelError(f"input {name} has {len(found)} dimensions, not the {len(wanted)} that are given")
        return wanted
    if any(size < 1 for size in (*signature[1:], *found[1:])) or min(found[:1], default=1) < 0:
        told = "x".join("?" if size < 1 else str(size) for size in signature)
        example = "x".join(str(size) if size > 0 else ("1" if place == 0 else "N") for place, size in enumerate(signature))
        raise ModelError(
            f"{contents.label}: input {name} has the open shape {told}; say which it is to have with --shape {name}={example}, "
            "N a number"
        )
    return (1, *found[1:]) if found and (signature[0] < 1 or found[0] < 1) else found


def _has_open(contents: Contents) -> bool:
    """True if a tensor that is computed has a dimension of which the file does not say how large it is at run time."""
    computed = {tensor for operator in contents.operators for tensor in operator.outputs}
    for tensor in computed:
        signature = numbers(contents.tensors[tensor].shapeSignature)
        if min(signature[1:], default=1) < 0 or min(contents.shape(tensor), default=1) < 1:
            return True
    return False


def _shapes_at_run_time(path: Path, inputs: dict[int, Shape]) -> dict[int, Shape]:
    """The shapes of all tensors of the first subgraph, once LiteRT has run it with zeros. `ModelError` if it cannot run it."""
    command = [sys.executable, "-c", _ASK, str(path), json.dumps([[tensor, list(shape)] for tensor, shape in inputs.items()])]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired as exc:
        raise ModelError(f"{path} does not end when LiteRT runs it with these shapes") from exc
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise ModelError(f"{path} does not run in LiteRT with these shapes: {said[:300]}")
    return {index: tuple(shape) for index, shape in json.loads(done.stdout.splitlines()[-1])}


def _rewritten(path: Path, shapes: dict[int, Shape]) -> bytes:
    """The file with these shapes of the tensors of its first subgraph, none of them open, and with its inputs in one order."""
    data, contents = read_bytes(path, ModelError), load(path)
    model: Any = schema.ModelT.InitFromPackedBuf(data, 0)
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        if index in shapes and index not in contents.constants:
            tensor.shape = np.array(shapes[index], np.int32)
        tensor.shapeSignature = None
    places = {tensor: place for place, tensor in enumerate(contents.inputs)}
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            signature.inputs.sort(key=lambda item: places.get(item.tensorIndex, len(places)))
    for operator in model.subgraphs[0].operators:
        if operator.largeCustomOptionsOffset > 1:
            start, size_bytes = operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize
            operator.customOptions = np.frombuffer(data, np.uint8, size_bytes, start)
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
    # the buffers as they were read: what lies behind the flatbuffer is inside from now on
    model.buffers = [AlignedBuffer(buffer.data) for buffer in contents.buffers]
    builder = flatbuffers.Builder(sum(buffer.data.size + 64 for buffer in contents.buffers if buffer.data is not None) + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())
