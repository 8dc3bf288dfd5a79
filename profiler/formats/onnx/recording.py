"""What the tensors of an ONNX model hold while the whole model runs once on this machine, with the inputs of the runners."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from profiler.formats.onnx.tensors import Array, Tensor
from profiler.formats.recorded import MOST_BYTES, remark_on, run_apart, within_bounds

_CAST = re.compile("^Inserted(PrecisionFree)?Cast_")
"""Before the name of a tensor that ONNX Runtime casts, because it has a kernel for another precision than that of the file."""
Recorded = Callable[[], Mapping[str, Array] | None]
"""Gives the values of all inputs of a layer by their names in its file; None if one of them is not known."""
_RUN = """
import onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.log_severity_level = 4
options.intra_op_num_threads = 1
session = ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
kinds = {"float": "float32", "double": "float64"}
types = [value.type[len("tensor("):-1] for value in session.get_inputs()]
inputs = {
    value.name: made_up(place, value.shape, np.dtype(kinds.get(types[place], types[place])))
    for place, value in enumerate(session.get_inputs())
}
values = session.run([value.name for value in session.get_outputs()], inputs)
found = {str(place): value for place, value in enumerate(values) if isinstance(value, np.ndarray)}
np.savez(f"{folder}/values.npz", **found)
"""


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
        return remark_on(self.fed, self.made_up)


def _run(file: bytes, known: Mapping[str, Tensor]) -> Mapping[str, Array]:
    """Nothing if the model does not run here."""
    model = ModelProto()
    model.ParseFromString(file)
    own = {value.name for value in model.graph.input} | {name for node in model.graph.node for name in node.output}
    sources = {name: name if name in own else _CAST.sub("", name) for name in known}
    names = within_bounds({name: _bytes_of(tensor) for name, tensor in known.items() if sources[name] in own})
    outputs = list(dict.fromkeys(sources[name] for name in names))
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    values = run_apart(_RUN, {"model.onnx": model.SerializeToString()})
    found = {outputs[int(place)]: array for place, array in values.items()}
    return {
        name: found[sources[name]].astype(helper.tensor_dtype_to_np_dtype(known[name].element_type), copy=False)
        for name in names
        if sources[name] in found and found[sources[name]].shape == known[name].shape
    }


def _bytes_of(tensor: Tensor) -> int:
    """More than there is for what has no values of numpy's own types."""
    if tensor.element_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return MOST_BYTES + 1
    dtype = helper.tensor_dtype_to_np_dtype(tensor.element_type)
    return prod(tensor.shape) * dtype.itemsize if dtype.kind in "fiub" else MOST_BYTES + 1
