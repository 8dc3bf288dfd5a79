"""An ONNX file as the fused groups that onnxruntime executes.

onnxruntime itself optimises the model, up to the level that does not depend on the processor (EXTENDED), and we read what it
saves: batch normalisation and constants are folded, activations sit in their convolutions. A group that we model becomes a
plain LayerSpec; anything else is cut out with its weights.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto
from onnxruntime.capi import onnxruntime_pybind11_state

from profiler.errors import LayerError, ModelError, PlanError
from profiler.formats.onnx.fusion import join_hard_swish, joined
from profiler.formats.onnx.layers import channels_last, describe
from profiler.formats.onnx.names import name_of, unique
from profiler.formats.onnx.opaque import activations, extract
from profiler.formats.onnx.tensors import Tensors, check_sizes, open_session, opset_of, shape_of, tensors_of
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, Shape

_LIBRARY_ERRORS = (
    DecodeError,
    EncodeError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    # onnxruntime has a class for every status code, with no common base but Exception
    *(kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    OSError,
    RuntimeError,  # whatever else the libraries' C++ throws
    # of a damaged file: names that are not text, tensors shorter than their shape, types that do not exist
    ValueError,
    TypeError,
)

# where in its own source onnxruntime noticed: of no use to the reader of the sentence
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z]))?", re.DOTALL)


def read_onnx(path: Path) -> Graph:
    """The groups in the order in which they run, figures channels last. `ModelError` if onnxruntime could not run the file."""
    with _told_in_one_sentence(path):
        model = _load(path)
        inputs = _inputs(model)
        optimised = _optimised(model)
        join_hard_swish(optimised)
        return _graph(path.stem, inputs, optimised, tensors_of(optimised))


@contextmanager
def _told_in_one_sentence(path: Path) -> Iterator[None]:
    """Anything may be wrong with someone's file, and three libraries have a dozen classes to say so."""
    try:
        yield
    except (ModelError, LayerError, PlanError) as exc:
        raise ModelError(f"{path}: {exc}") from exc
    except _LIBRARY_ERRORS as exc:
        reason = " ".join(_STATUS.sub("", str(exc)).split())[:300] or type(exc).__name__
        raise ModelError(f"{path} is not a model that onnxruntime {ort.__version__} can run: {reason}") from exc


def _load(path: Path) -> ModelProto:
    model = onnx.load(path, format="protobuf")
    if not model.graph.node:
        raise ModelError("there is no network in it; is it an ONNX file, and complete?")
    weights = {weight.name for weight in model.graph.initializer}
    # old exporters list the weights among the inputs, where they could be replaced and therefore nothing be folded into them
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.value_info[:]  # what a file says of the tensors between may be outdated; it is worked out anew
    return model


def _inputs(model: ModelProto) -> dict[str, Shape]:
    """Figures channels last. `ModelError` unless every input is a tensor of one fixed shape."""
    inputs = {}
    for value in model.graph.input:
        shape = shape_of(value)
        if shape is None:
            raise ModelError(f"input {value.name} {_why_not_static(value)}; export the model with fixed shapes")
        inputs[value.name] = channels_last(shape)
    return inputs


def _why_not_static(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return "is not a tensor"
    for index, size in enumerate(value.type.tensor_type.shape.dim):
        if size.dim_value < 1:
            return f"has a dynamic shape, dimension {index} is {size.dim_param or size.dim_value or 'unknown'}"
    return "has no shape"


def _optimised(model: ModelProto) -> ModelProto:
    """What onnxruntime makes of the model before it depends on the processor. Shapes are inferred first: they survive."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    check_sizes(inferred.graph)
    with tempfile.TemporaryDirectory(prefix="onnx_reader_") as folder:
        saved = Path(folder) / "optimised.onnx"
        open_session(inferred, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, saved)
        return onnx.load(saved, format="protobuf")


def _graph(name: str, inputs: dict[str, Shape], model: ModelProto, tensors: Tensors) -> Graph:
    """From here on a tensor is called after the node or the input that makes it."""
    made_by = {key: key for key in inputs}
    nodes: dict[str, Node] = {}
    opaques: dict[str, bytes] = {}
    for proto in model.graph.node:
        if all(key in tensors.constants for key in proto.output if key):
            continue
        layer, reads = _layer(proto, model, tensors, opaques)
        node = Node(unique(name_of(proto, tensors), inputs.keys() | nodes.keys()), layer, tuple(made_by[key] for key in reads))
        nodes[node.name] = node
        made_by |= {key: node.name for key in proto.output if key}
    outputs = tuple(dict.fromkeys(made_by[value.name] for value in model.graph.output if value.name in made_by))
    if not nodes or not outputs:
        raise ModelError("its outputs do not depend on its inputs, so there is nothing to measure")
    groups, outputs = joined(tuple(nodes.values()), outputs)
    used = {group.layer.opaque.digest for group in groups if group.layer.opaque}
    return Graph(name, tuple(inputs.items()), groups, outputs, {digest: opaques[digest] for digest in sorted(used)})


def _layer(proto: NodeProto, model: ModelProto, tensors: Tensors, opaques: dict[str, bytes]) -> tuple[LayerSpec, list[str]]:
    """The node as a layer, put among the cut-outs if it must be, and the tensors it reads."""
    description = describe(proto, tensors, opset_of(model))
    if description is not None and description.exact:
        return description.layer, list(description.reads)
    layer, data = extract(proto, tensors, model, description.layer if description else None)
    if layer.opaque is not None:
        opaques[layer.opaque.digest] = data
    return layer, activations(proto, tensors)
