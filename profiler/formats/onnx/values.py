"""Values for the inputs of an ONNX file, kept in the file itself.

A runner fills inputs with random numbers: floats from -1 to 1, indices of 0 and 1. A table of one row has no row 1, and the square
root of -1 is no number. Such inputs get values of their own, as initializers that are listed among the inputs: a runtime
does not take these for constants, because they could be replaced, so it folds nothing and executes what it would execute otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.formats.given import Given
from profiler.formats.onnx.library_errors import LIBRARY_ERRORS
from profiler.formats.onnx.recording import Recorded
from profiler.formats.onnx.tensors import FED, Array, fed_inputs, has_subgraph, open_session, shape_of

_INDICES = (TensorProto.INT32, TensorProto.INT64)
_DIVISIONS = ("Div", "Mod")
_LARGEST_TRIAL_BYTES = 1 << 28
_FLOATS = ((-1.0, 1.0), (0.1, 1.0), (1.0, 2.0))
"""Ranges that are tried in turn; the first is that of the runners, the others are for roots, logarithms and inverse cosines."""
_FILLED = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL, *_INDICES, TensorProto.INT8, TensorProto.INT16,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip
"""The types of the inputs that runners fill; numbers of other types, such as bfloat16, have to be in the file."""
_WHOLE = (1, 0)
"""Largest whole numbers that are tried in turn; the first is that of the runners."""


def feed(model: ModelProto, values: Mapping[str, Array]) -> None:
    """Give these inputs values."""
    if model.ir_version < 4:  # weights listed among the inputs count as constants there, but not from 4 on
        weights = {weight.name for weight in model.graph.initializer}
        kept = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = 4
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    names = sorted(fed_inputs(model) | set(values))
    kept_entries = [entry for entry in model.metadata_props if entry.key != FED]
    del model.metadata_props[:]
    model.metadata_props.extend(kept_entries)
    model.metadata_props.add(key=FED, value=json.dumps(names))


def feed_given(model: ModelProto, given: Given) -> None:
    """Give inputs the values that a person chose. `ModelError` if they do not fit."""
    found: dict[str, Array] = {}
    for value in model.graph.input:
        if value.name in given.values:
            kind = value.type.tensor_type.elem_type
            dtype = "text" if kind == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(kind)
            array = given.array(value.name, dtype, shape_of(value))
            assert array is not None
            found[value.name] = array
    if found:
        feed(model, found)


def feed_indices(model: ModelProto) -> None:
    """Give whole numbers among the inputs values with which the model runs on the host, if those of the runners do not do.

    A model that runs with none of them is left as it is: the device's runtime says why.
    """
    _feed_unusual(model)
    fed = fed_inputs(model) | {weight.name for weight in model.graph.initializer}
    free = [value for value in model.graph.input if value.name not in fed]
    chosen = [value for value in free if value.type.tensor_type.elem_type in _INDICES]
    if not chosen or not _is_small(free):
        return
    constants = {weight.name for weight in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    # dividing whole numbers by zero ends the process
    divides = any(node.op_type in _DIVISIONS and not constants.issuperset(node.input[1:]) for node in model.graph.node)
    try:
        session = open_session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    except LIBRARY_ERRORS:  # a model that only the device's runtime can open
        return
    for most in _WHOLE[:1] if divides else _WHOLE:
        # the largest of them everywhere: if that is a row of a table, then so are all others
        values = {value.name: _filled(value, _FLOATS[0], most, highest=True) for value in free}
        try:
            session.run(None, values)
        except LIBRARY_ERRORS:
            continue
        if divides or most != _WHOLE[0]:
            feed(model, {value.name: _filled(value, _FLOATS[0], most, least=int(divides)) for value in chosen})
        return


def _feed_unusual(model: ModelProto) -> None:
    """Give inputs of types that no runner fills random values."""
    has_value = {weight.name for weight in model.graph.initializer}
    free = [value for value in model.graph.input if value.type.tensor_type.elem_type not in _FILLED and value.name not in has_value]
    if free and _is_small(free):
        feed(model, {value.name: _filled(value, _FLOATS[0], _WHOLE[0]) for value in free})


def feed_alone(model: ModelProto, recorded: Recorded | None = None) -> None:
    """Give the inputs of a single node values for which its outputs are finite, if those of the runners do not do.

    They do if it runs with them and what it makes has the sizes that it has in the network: a table of one row has no row 1, and a
    Range to 0 or 1 is none to 1000. Else they are those of the network, if these are recorded, or made up.
    """
    (node,) = model.graph.node
    _feed_unusual(model)
    free = [value for value in model.graph.input if value.name not in fed_inputs(model)]
    if not free or not _is_small(free) or "QLinear" in node.op_type or "Integer" in node.op_type:
        return
    types = {value.type.tensor_type.elem_type for value in free}
    # dividing whole numbers by zero ends the process, so nothing is tried
    divides = node.op_type in _DIVISIONS and types <= {*_INDICES, TensorProto.INT8, TensorProto.INT16}
    if recorded is not None and (has_subgraph(node) or divides or not _does_alone(model, free, types)):
        values = recorded()
        if values is not None:
            feed(model, values)
            return
    if has_subgraph(node):
        return
    if divides:
        feed(model, {value.name: _filled(value, _FLOATS[0], 1, least=1) for value in free})
        return
    try:
        session = open_session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    except LIBRARY_ERRORS:  # an operator that only the device's runtime has
        return
    for first, values in _trials(free, bool(types & set(_INDICES))):
        try:
            outputs = session.run(None, values)
        except LIBRARY_ERRORS:
            continue
        if all(not isinstance(array, np.ndarray) or array.dtype.kind != "f" or np.isfinite(array).all() for array in outputs):
            if not first:
                feed(model, values)
            return


def _does_alone(model: ModelProto, free: list[ValueInfoProto], types: set[int]) -> bool:
    """True if the node runs with values such as those of the runners, and makes finite tensors of the sizes that are declared."""
    try:
        session = open_session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
        for _, values in _trials(free, bool(types & set(_INDICES))):
            outputs = session.run(None, values)
            break
    except LIBRARY_ERRORS:
        return False
    declared = [tuple(size.dim_value for size in value.type.tensor_type.shape.dim) for value in model.graph.output]
    return all(
        not isinstance(array, np.ndarray) or (array.shape == shape and (array.dtype.kind != "f" or bool(np.isfinite(array).all())))
        for array, shape in zip(outputs, declared, strict=True)
    )


def _trials(free: list[ValueInfoProto], with_indices: bool) -> Iterator[tuple[bool, dict[str, Array]]]:
    """Values to try, and whether they stand for those of the runners."""
    for between in _FLOATS:
        for most in _WHOLE if with_indices else _WHOLE[:1]:
            is_usual = (between, most) == (_FLOATS[0], _WHOLE[0])
            yield is_usual, {value.name: _filled(value, between, most, highest=is_usual) for value in free}


def _is_small(inputs: list[ValueInfoProto]) -> bool:
    """True if all of them are tensors of numbers of known shapes that take little memory."""
    total = 0
    for value in inputs:
        shape, kind = shape_of(value), value.type.tensor_type.elem_type
        if shape is None or kind in (TensorProto.STRING, TensorProto.UNDEFINED):
            return False
        total += math.prod(shape) * helper.tensor_dtype_to_np_dtype(kind).itemsize
    return total <= _LARGEST_TRIAL_BYTES


def _filled(value: ValueInfoProto, between: tuple[float, float], most: int, *, least: int = 0, highest: bool = False) -> Array:
    """Random values for an input; `highest` for the largest whole number everywhere. Equal inputs get equal values."""
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape, rng = shape_of(value) or (), np.random.default_rng(1)
    if dtype.kind in "iu":
        return np.full(shape, most, dtype) if highest else rng.integers(least, most, shape, endpoint=True).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 1, shape, endpoint=True).astype(dtype)
    return np.asarray(rng.uniform(*between, shape)).astype(dtype)
