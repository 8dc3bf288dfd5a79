"""What the tensors of an ONNX model hold while the whole model runs once on this machine, with the inputs of the runners.

A layer alone is fed with this where made-up values will not do: an index has to be inside its table, a new shape has to fit, a loop
has to run as often as in the network. The model runs in a process of its own, because a division of whole numbers by zero ends it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from profiler.formats.onnx.tensors import Array, Tensor

Recorded = Callable[[], Mapping[str, Array] | None]
"""Gives the values of all inputs of a layer by their names in its file; None if one of them is not known."""
MOST_VALUE_BYTES = 1 << 24
"""The largest tensor that is recorded: the file of a layer carries it to the device."""
MOST_BYTES = 1 << 28
"""The most that is recorded of a model; the smallest tensors come first, for indices and shapes are small."""
_PATIENCE_S = 120.0
RUN = """
import sys
import numpy as np
import onnxruntime as ort

def made_up(place, shape, dtype):
    step, mask = 0xD1342543DE82EF95, 2**64 - 1
    start = np.uint64((0x9E3779B97F4A7C15 + (place << 40) * step) & mask)
    size = int(np.prod(shape, dtype=np.int64))
    z = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(step) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    if dtype.kind == "f":
        values = (z >> np.uint64(40)) / 2**23 - 1
    else:
        values = z >> np.uint64(63 if dtype.kind == "b" or dtype.itemsize >= 4 else 61)
    return values.astype(dtype).reshape(shape)

path, out = sys.argv[1:]
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.log_severity_level = 4
options.intra_op_num_threads = 1
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
kinds = {"float": "float32", "double": "float64"}
types = [value.type[len("tensor("):-1] for value in session.get_inputs()]
inputs = {
    value.name: made_up(place, value.shape, np.dtype(kinds.get(types[place], types[place])))
    for place, value in enumerate(session.get_inputs())
}
values = session.run([value.name for value in session.get_outputs()], inputs)
np.savez(out, **{str(place): value for place, value in enumerate(values) if isinstance(value, np.ndarray)})
"""
"""The inputs are those of PROTOCOL.md for the seed 1, so that what depends on them is what it was on the device."""


@dataclass(slots=True)
class Recording:
    """The values of a model's tensors; the model runs when they are first asked for."""

    file: bytes
    """The model, complete, before a runtime has optimised it."""
    known: Mapping[str, Tensor]
    """The tensors that may be asked for."""
    fed: list[str] = field(default_factory=list)
    """The kinds of layers that are fed with recorded values."""
    made_up: list[str] = field(default_factory=list)
    """The kinds of those that would need such values, but have none."""
    _found: Mapping[str, Array] | None = None

    def values(self, names: Iterable[str]) -> dict[str, Array] | None:
        """The values of these tensors; None unless all are known."""
        if self._found is None:
            self._found = _run(self.file, self.known)
        found = {name: self._found[name] for name in names if name in self._found}
        return found if len(found) == len(set(names)) else None

    @property
    def remark(self) -> str | None:
        """Which layers are measured with the network's own values, and which could not be; None if none needs them."""
        said = []
        if self.fed:
            said.append(f"{_listed(self.fed)} measured alone with values that the network itself feeds")
        if self.made_up:
            said.append(
                f"{_listed(self.made_up)} measured alone with made-up values, for the network's own are too large or unknown"
            )
        return "; ".join(said) or None


def _listed(kinds: list[str]) -> str:
    names = list(dict.fromkeys(kinds))
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _run(file: bytes, known: Mapping[str, Tensor]) -> Mapping[str, Array]:
    """Nothing if the model does not run here."""
    model = ModelProto()
    model.ParseFromString(file)
    own = {value.name for value in model.graph.input} | {name for node in model.graph.node for name in node.output}
    names, total = [], 0
    for name, size_bytes in sorted(
        ((name, _bytes_of(tensor)) for name, tensor in known.items() if name in own), key=lambda item: item[1]
    ):
        if size_bytes > MOST_VALUE_BYTES or total + size_bytes > MOST_BYTES:
            break
        names.append(name)
        total += size_bytes
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    with tempfile.TemporaryDirectory(prefix="recording_") as folder:
        path, out = Path(folder, "model.onnx"), Path(folder, "values.npz")
        path.write_bytes(model.SerializeToString())
        try:
            done = subprocess.run(
                [sys.executable, "-c", RUN, str(path), str(out)], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            return {}
        if done.returncode or not out.exists():
            return {}
        with np.load(out, allow_pickle=False) as values:
            found = {names[int(place)]: values[place] for place in values.files}
    return {name: array for name, array in found.items() if array.shape == known[name].shape}


def _bytes_of(tensor: Tensor) -> int:
    """More than there is for what has no values of numpy's own types."""
    if tensor.element_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return MOST_BYTES + 1
    dtype = helper.tensor_dtype_to_np_dtype(tensor.element_type)
    return prod(tensor.shape) * dtype.itemsize if dtype.kind in "fiub" else MOST_BYTES + 1
