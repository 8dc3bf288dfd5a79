"""Reads an ONNX file into the fused groups that onnxruntime executes.

onnxruntime itself optimises the model, up to the level that does not depend on the processor (EXTENDED), and the optimised model is
read: batch normalisation and constants are folded, and activations are fused into their convolutions. A group that we model becomes
a plain LayerSpec; any other is extracted with its weights.
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
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state

from profiler.errors import LayerError, ModelError, PlanError
from profiler.formats.onnx.fusion import rejoin_groups, rejoin_hard_swish
from profiler.formats.onnx.layers import describe
from profiler.formats.onnx.names import name_of, unique
from profiler.formats.onnx.opaque import activations, extract
from profiler.formats.onnx.tensors import Tensors, channels_last, check_sizes, open_session, opset_of, shape_of, tensors_of
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import Shape

_LIBRARY_ERRORS = (
    DecodeError,
    EncodeError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    # onnxruntime has a class for every status code, with no common base but Exception
    *(kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    OSError,
    RuntimeError,  # whatever else the libraries' C++ throws
    # raised for damaged files: names that are not text, tensors shorter than their shape, types that do not exist
    ValueError,
    TypeError,
)

# the place in onnxruntime's source, which does not help the user
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z]))?", re.DOTALL)


def read_onnx(path: Path) -> Graph:
    """The fused groups in the order in which they run, with channels-last shapes.

    Raises `ModelError` if onnxruntime cannot run the file, or if an input has no fixed shape.
    """
    with _library_errors_as_ours(path):
        model = _load(path)
        inputs = _inputs(model)
        optimised = _optimised(model)
        rejoin_hard_swish(optimised)
        return _graph(path.stem, inputs, optimised, tensors_of(optimised))


@contextmanager
def _library_errors_as_ours(path: Path) -> Iterator[None]:
    """Raises every error of the three libraries, which have a dozen classes, as a `ModelError` of one sentence."""
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
        raise ModelError("the file contains no network; check that it is a complete ONNX file")
    del model.graph.value_info[:]  # the shapes between the layers may be outdated, so they are inferred again
    return model


def _inputs(model: ModelProto) -> dict[str, Shape]:
    """The channels-last shapes of all inputs by name. Raises `ModelError` unless every input is a tensor of a fixed shape."""
    inputs = {}
    weights = {weight.name for weight in model.graph.initializer}
    for value in model.graph.input:
        # Old exporters list weights among the inputs. From IR version 4 on they could then be replaced, so that nothing is folded
        # into them, and the runtime executes other layers: they are left there, but nobody gives them a value.
        if value.name in weights:
            continue
        shape = shape_of(value)
        if shape is None:
            reason = "has no shape"
            if not value.type.HasField("tensor_type"):
                reason = "is not a tensor"
            else:
                for index, size in enumerate(value.type.tensor_type.shape.dim):
                    if size.dim_value < 1:
                        reason = f"has a dynamic shape, dimension {index} is {size.dim_param or size.dim_value or 'unknown'}"
                        break
            raise ModelError(f"input {value.name} {reason}; export the model with fixed shapes")
        inputs[value.name] = channels_last(shape)
    return inputs


def _optimised(model: ModelProto) -> ModelProto:
    """The model after onnxruntime's optimisations that do not depend on the processor."""
    # the optimised model keeps the shapes that are inferred before
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    check_sizes(inferred.graph)
    with tempfile.TemporaryDirectory(prefix="onnx_reader_") as folder:
        saved = Path(folder) / "optimised.onnx"
        open_session(inferred, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, saved)
        return onnx.load(saved, format="protobuf")


def _graph(name: str, inputs: dict[str, Shape], model: ModelProto, tensors: Tensors) -> Graph:
    source_of = {key: key for key in inputs}  # the node or input that makes each tensor
    nodes: dict[str, Node] = {}
    opaques: dict[str, bytes] = {}
    for proto in model.graph.node:
        if all(key in tensors.constants for key in proto.output if key):
            continue
        description = describe(proto, tensors, opset_of(model))
        if description is not None and description.exact:
            layer = description.layer
            reads = list(description.reads)
        else:
            layer, data = extract(proto, tensors, model, description.layer if description else None)
            reads = activations(proto, tensors)
            if layer.opaque is not None:
                opaques[layer.opaque.digest] = data
        node = Node(unique(name_of(proto, tensors), inputs.keys() | nodes.keys()), layer, tuple(source_of[key] for key in reads))
        nodes[node.name] = node
        source_of |= {key: node.name for key in proto.output if key}
    outputs = tuple(dict.fromkeys(source_of[value.name] for value in model.graph.output if value.name in source_of))
    if not nodes or not outputs:
        raise ModelError("its outputs do not depend on its inputs, so there is nothing to measure")
    groups, outputs = rejoin_groups(tuple(nodes.values()), outputs)
    used = {group.layer.opaque.digest for group in groups if group.layer.opaque}
    return Graph(name, tuple(inputs.items()), groups, outputs, {digest: opaques[digest] for digest in sorted(used)})
