"""Exported networks in eight-bit integers, calibrated on images of the training part, by each format's own quantiser.

ONNX: onnxruntime's static quantiser, QDQ form, weights with a scale for every output channel; the file takes and gives floats.
TFLite: ai-edge-quantizer's static_wi8_ai8 recipe; the file takes and gives int8, with the scales it stores for them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import onnx
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from torch import Tensor, nn
from torch.nn import functional

from netadapt.export.files import Exported, ExportError, export_checked, open_network, reference, write_onnx, write_tflite
from netadapt.input_shape import InputShape
from netadapt.registry import load
from netadapt.silence_warnings import quiet
from profiler.formats.tflite.schema import IDENTIFIER, AlignedBuffer

# what the quantisers raise for a network that they cannot quantise
_QUANTISER_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a file's outputs are to PyTorch's, over some images."""

    cosine_similarity: float
    """Of all outputs of an image, the mean over the images."""
    top1_agreement: float | None
    """The share of images whose highest score is of the same class; None for a network that gives no scores."""
    max_abs_difference: float


def export_int8(model: nn.Module, input_shape: InputShape, path: Path, images: Tensor) -> Exported:
    """Calibrated on the images (n, c, h, w), of which those that fill no batch of the file are left out.

    `ExportError` leaves an existing file untouched; so does a file whose outputs are no numbers or always the same.
    """
    file_format = path.suffix.lstrip(".")
    write_float, quantise = _FORMATS[file_format]

    def write(ours: nn.Module, shape: InputShape, written: Path) -> None:
        floats = written.with_name(f"floats.{file_format}")
        write_float(ours, shape, floats)
        with _quantiser_errors(file_format), quiet(), contextlib.redirect_stdout(io.StringIO()):
            quantise(floats, written, list(_batches(images, shape[0])))
        floats.unlink()

    def check(ours: nn.Module, _shape: InputShape, written: Path, path: Path) -> float:
        return sensible_agreement(ours, written, images, path).max_abs_difference

    if len(images) < input_shape[0]:
        raise ExportError(f"{path} was not written: calibration needs at least {input_shape[0]} images, got {len(images)}")
    return export_checked(model, input_shape, path, file_format, write, check)


def agreement(model: nn.Module, path: Path, images: Tensor) -> Agreement:
    """Of an exported file with the model in evaluation. Images that fill no batch of the file are left out."""
    return _agreement(*_outputs(model, path, images))


def sensible_agreement(model: nn.Module, written: Path, images: Tensor, path: Path) -> Agreement:
    """The same; `ExportError` for outputs that are no numbers, or the same for every image where PyTorch's are not."""
    expected, found = _outputs(model, written, images)
    if not found.isfinite().all():
        raise ExportError(f"{path} was not written: its outputs are not all numbers")
    if len(found) > 1 and not (found != found[0]).any() and (expected != expected[0]).any():
        raise ExportError(f"{path} was not written: its outputs are the same for every image; try more --calibration images")
    return _agreement(expected, found)


def quantise_onnx(floats: Path, written: Path, batches: list[Tensor]) -> None:
    model = onnx.load(floats)
    _pool_by_one_operator(model)
    name = model.graph.input[0].name
    reader = _Reader(iter([{name: batch.numpy()} for batch in batches]))
    quantize_static(model, written, reader, quant_format=QuantFormat.QDQ, per_channel=True)


def quantise_tflite(floats: Path, written: Path, batches: list[Tensor]) -> None:
    quantiser = load("ai_edge_quantizer.quantizer:Quantizer")(str(floats), load("ai_edge_quantizer.recipe:static_wi8_ai8")())
    ((name, signature),) = load("ai_edge_litert.interpreter:Interpreter")(str(floats)).get_signature_list().items()
    (source,) = signature["inputs"]
    samples = [{source: batch.permute(0, 2, 3, 1).contiguous().numpy()} for batch in batches]
    result = quantiser.quantize(quantiser.calibrate({name: samples}, num_threads=1))
    written.write_bytes(_weights_inside(result.quantized_model))


def _weights_inside(contents: bytes) -> bytes:
    """The same TFLite file with all its weights in the flatbuffer: above 256 kB the quantiser appends them, where the profiler
    and older runtimes do not look."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(contents, 0))
    model.buffers = [AlignedBuffer(_stored(buffer, contents)) for buffer in model.buffers]
    builder = flatbuffers.Builder(len(contents))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _stored(buffer: Any, contents: bytes) -> NDArray[np.uint8] | None:
    if buffer.offset > 1:
        return np.frombuffer(contents, np.uint8, buffer.size, buffer.offset)
    return None if buffer.data is None else np.asarray(buffer.data, np.uint8)


_FORMATS = {"onnx": (write_onnx, quantise_onnx), "tflite": (write_tflite, quantise_tflite)}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: Iterator[dict[str, Any]]) -> None:
        self._inputs = inputs

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)


@contextlib.contextmanager
def _quantiser_errors(name: str) -> Iterator[None]:
    try:
        yield
    except _QUANTISER_ERRORS as exc:
        raise ExportError(f"the model cannot be quantised as {name}: {' '.join(str(exc).split())[:300]}") from exc


def _pool_by_one_operator(model: ModelProto) -> None:
    """Means over height and width as GlobalAveragePool, in place: the quantiser leaves a ReduceMean in floats."""
    constants = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type != "ReduceMean" or len(node.input) != 2 or not attributes.get("keepdims", 1):
            continue
        axes = sorted(numpy_helper.to_array(constants[node.input[1]]).tolist()) if node.input[1] in constants else []
        if axes in ([2, 3], [-2, -1]) and _rank(model, node.input[0]) == 4:
            node.CopyFrom(helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), name=node.name))


def _rank(model: ModelProto, name: str) -> int:
    shapes = {value.name: len(value.type.tensor_type.shape.dim) for value in (*model.graph.value_info, *model.graph.input)}
    return shapes.get(name, 0)


def _batches(images: Tensor, size: int) -> Iterator[Tensor]:
    return (batch for batch in torch.split(images, size) if len(batch) == size)


def _outputs(model: nn.Module, path: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's and the file's first outputs, (n, …)."""
    network, at_once = open_network(path)
    batches = list(_batches(images, at_once))
    expected = torch.cat([reference(model, batch)[0] for batch in batches])
    return expected, torch.cat([torch.from_numpy(np.array(network(batch.numpy())[0])) for batch in batches])


def _agreement(expected: Tensor, found: Tensor) -> Agreement:
    similarity = functional.cosine_similarity(expected.flatten(1).double(), found.flatten(1).double(), dim=1)
    same = float((expected.argmax(1) == found.argmax(1)).float().mean()) if expected.ndim == 2 else None
    return Agreement(float(similarity.mean()), same, float((expected - found).abs().max()))
