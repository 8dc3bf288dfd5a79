"""What the tensors of a .tflite file hold while LiteRT runs it once on this machine, with the inputs of the runners."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np

from profiler.formats.recorded import MOST_BYTES, remark_on, run_apart, within_bounds
from profiler.formats.tflite.inputs import split
from profiler.formats.tflite.schema import Contents, Operator, refers_to_subgraphs

_PARTIAL = ("SQRT", "RSQRT", "LOG", "POW", "DIV", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")
"""Operators on floats that are not defined for all of them, or whose work depends on them."""
_INDICES = ("int32", "int64", "uint32", "uint64", "bool")
_RUN = """
import json
from ai_edge_litert.interpreter import Interpreter, OpResolverType
interpreter = Interpreter(
    model_path=f"{folder}/model.tflite", num_threads=1, experimental_preserve_all_tensors=True,
    experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
)
interpreter.allocate_tensors()
given = np.load(f"{folder}/inputs.npz", allow_pickle=False)
for place, detail in enumerate(interpreter.get_input_details()):
    dtype = np.dtype(detail["dtype"])
    known = given[str(place)].view(dtype).reshape(detail["shape"]) if str(place) in given else None
    interpreter.set_tensor(detail["index"], made_up(place, detail["shape"], dtype) if known is None else known)
interpreter.invoke()
np.savez(f"{folder}/values.npz", **{str(tensor): interpreter.get_tensor(tensor) for tensor in json.loads(sys.argv[2])})
"""


def recorded(contents: Contents, file: bytes) -> tuple[Contents, str | None]:
    """The contents of a file with the values that operators are fed which need them, and a sentence on these, if there are any.

    These are operators that read indices, such as GATHER, those that are not defined for all numbers, such as SQRT, loops, and
    those that are not known here.
    """
    needy = [operator for operator in contents.operators if _needs_values(contents, operator)]
    wanted = {tensor for operator in needy for tensor in contents.activations(operator)} - contents.fed.keys()
    places = within_bounds({tensor: _bytes_of(contents, tensor) for tensor in sorted(wanted)})
    fed = dict(contents.fed)
    if places:
        model, given = split(file)
        inputs = io.BytesIO()
        arrays: dict[str, Any] = {str(place): np.frombuffer(data, np.uint8) for place, data in given.items()}
        np.savez(inputs, **arrays)
        found = run_apart(_RUN, {"model.tflite": model, "inputs.npz": inputs.getvalue()}, json.dumps(places))
        for key, array in found.items():
            if array.shape == contents.shape(int(key)) and array.dtype == contents.numpy_type(int(key)):
                fed[int(key)] = array.tobytes()
    own: dict[bool, list[str]] = {True: [], False: []}
    for operator in needy:
        is_fed = fed.keys() >= set(contents.activations(operator))
        if is_fed or not operator.is_custom:  # an operator that is not known here keeps the network from running
            own[is_fed].append(operator.name)
    return replace(contents, fed=fed), remark_on(own[True], own[False])


def _needs_values(contents: Contents, operator: Operator) -> bool:
    read = contents.activations(operator)
    if not read:
        return False
    kinds = {contents.dtype(tensor) for tensor in read}
    return (
        operator.is_custom
        or refers_to_subgraphs(operator)
        or not kinds.isdisjoint(_INDICES)
        or (operator.name in _PARTIAL and "float32" in kinds)
    )


def _bytes_of(contents: Contents, tensor: int) -> int:
    """More than can be recorded for what has no values of numpy's own types."""
    dtype = contents.numpy_type(tensor)
    return MOST_BYTES + 1 if dtype is None else math.prod(contents.shape(tensor)) * dtype.itemsize
