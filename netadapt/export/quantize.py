"""Export of networks in 8-bit integers, calibrated on training images, by the quantiser of each format.

ONNX files come from onnxruntime's static quantiser, in QDQ form and with a scale for every output channel of the weights; their
inputs and outputs are floats. TFLite files come from ai-edge-quantizer with its recipe static_wi8_ai8; their inputs and outputs
are int8, with scales that the file holds.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from torch import Tensor, nn
from torch.nn import functional

from netadapt.export.files import (
    Exported,
    ExportError,
    channels_last,
    export_checked,
    in_order,
    open_network,
    reference,
    write_onnx,
    write_tflite,
)
from netadapt.export.tflite_file import packed
from netadapt.input_shapes import InputShapes
from netadapt.registry import load
from netadapt.silence_warnings import quiet
from netadapt.training.trees import Inputs, each_of, split

# the errors of the quantisers for a network that they cannot quantise
_QUANTISER_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of a file's outputs with PyTorch's on a set of images."""

    cosine_similarity: float
    """The mean over the images of the cosine similarity of their outputs."""
    top1_agreement: float | None
    """The share of images whose highest score is of the same class; None for a network whose outputs are no scores of classes."""
    max_abs_difference: float
    """The largest difference of two outputs."""


def export_int8(model: nn.Module, input_shapes: InputShapes, path: Path, inputs: Inputs, output: int = 0) -> Exported:
    """Export to 8-bit integers, calibrated on normalised inputs; examples beyond the last full batch are left out.

    The output at the place `output` is the one that is checked.
    The ending of `path` chooses the format. `ExportError` if there are too few images, the model cannot be quantised, or the
    file's outputs are not all numbers or always the same; an existing file is then unchanged.
    """
    file_format = path.suffix.lstrip(".")
    write_float, quantise = _FORMATS[file_format]

    def write(model: nn.Module, shapes: InputShapes, written: Path) -> None:
        floats = written.with_name(f"floats.{file_format}")
        write_float(model, shapes, floats)
        try:
            with quiet(), contextlib.redirect_stdout(io.StringIO()):
                quantise(floats, written, list(_batches(inputs, size)))
        except _QUANTISER_ERRORS as exc:
            reason = " ".join(str(exc).split())[:300]
            raise ExportError(f"the model cannot be quantised as {file_format}: {reason}; export it in float32 instead") from exc
        floats.unlink()

    def check(model: nn.Module, _shapes: InputShapes, written: Path, path: Path) -> float:
        return sensible_agreement(model, written, inputs, path, output).max_abs_difference

    size, count = input_shapes[0][0], len(each_of(inputs)[0])
    if count < size:
        raise ExportError(f"{path} was not written: calibration needs at least {size} images, got {count}")
    return export_checked(model, input_shapes, path, file_format, write, check)


def agreement(model: nn.Module, path: Path, inputs: Inputs, output: int = 0) -> Agreement:
    """The agreement of one output of an exported file with the model's in evaluation, on normalised inputs.

    Examples beyond the file's last full batch are left out. `ModelError` if the file cannot be executed.
    """
    return _agreement(*_outputs(model, path, inputs, output))


def sensible_agreement(model: nn.Module, written: Path, inputs: Inputs, path: Path, output: int = 0) -> Agreement:
    """The agreement of the file `written`, which is to become `path`, with the model.

    `ExportError` for outputs that are not all numbers, or the same for every image where PyTorch's are not.
    """
    expected, found = _outputs(model, written, inputs, output)
    if not found.isfinite().all():
        raise ExportError(f"{path} was not written: its outputs are not all numbers; export it in float32 instead")
    if len(found) > 1 and not (found != found[0]).any() and (expected != expected[0]).any():
        raise ExportError(f"{path} was not written: its outputs are the same for every image; try more --calibration images")
    return _agreement(expected, found)


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]
    """The batches in the form in which onnxruntime's quantiser reads them."""

    def __init__(self, inputs: Iterator[dict[str, Any]]) -> None:
        self._inputs = inputs

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)


def _quantise_onnx(floats: Path, written: Path, batches: list[tuple[Tensor, ...]]) -> None:
    model = onnx.load(floats)
    _use_global_average_pool(model)
    names = [tensor.name for tensor in model.graph.input]
    reader = _CalibrationReader(iter([dict(zip(names, (each.numpy() for each in batch), strict=True)) for batch in batches]))
    quantize_static(model, written, reader, quant_format=QuantFormat.QDQ, per_channel=True)


def _use_global_average_pool(model: ModelProto) -> None:
    """Replace means over height and width by GlobalAveragePool, in place: the quantiser leaves a ReduceMean in floats."""
    constants = {weight.name: weight for weight in model.graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*model.graph.value_info, *model.graph.input)}
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type != "ReduceMean" or len(node.input) != 2 or not attributes.get("keepdims", 1):
            continue
        axes = sorted(numpy_helper.to_array(constants[node.input[1]]).tolist()) if node.input[1] in constants else []
        if axes in ([2, 3], [-2, -1]) and ranks.get(node.input[0]) == 4:
            node.CopyFrom(helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), name=node.name))


def _quantise_tflite(floats: Path, written: Path, batches: list[tuple[Tensor, ...]]) -> None:
    quantiser = load("ai_edge_quantizer.quantizer:Quantizer")(str(floats), load("ai_edge_quantizer.recipe:static_wi8_ai8")())
    interpreter = load("ai_edge_litert.interpreter:Interpreter")(str(floats))
    ((name, signature),) = interpreter.get_signature_list().items()
    types = {key: tensor["dtype"] for key, tensor in interpreter.get_signature_runner().get_input_details().items()}
    samples = [
        {
            key: channels_last(each).contiguous().numpy().astype(types[key])  # the converter gives whole numbers 32 bits
            for key, each in zip(in_order(signature["inputs"]), batch, strict=True)
        }
        for batch in batches
    ]
    result = quantiser.quantize(quantiser.calibrate({name: samples}, num_threads=1))
    written.write_bytes(packed(result.quantized_model))


_FORMATS = {"onnx": (write_onnx, _quantise_onnx), "tflite": (write_tflite, _quantise_tflite)}


def _batches(inputs: Inputs, size: int) -> Iterator[tuple[Tensor, ...]]:
    """The full batches of this size; the examples that are left are dropped."""
    return (batch for batch in split(inputs, size) if len(batch[0]) == size)


def _outputs(model: nn.Module, path: Path, inputs: Inputs, output: int) -> tuple[Tensor, Tensor]:
    """The output of PyTorch at this place and that of the file for all examples, each (n, …)."""
    network, batch_size = open_network(path)
    batches = list(_batches(inputs, batch_size))
    expected = torch.cat([reference(model, batch)[output] for batch in batches])
    return expected, torch.cat([torch.from_numpy(np.array(network([each.numpy() for each in batch])[output])) for batch in batches])


def _agreement(expected: Tensor, found: Tensor) -> Agreement:
    similarity = functional.cosine_similarity(expected.flatten(1).double(), found.flatten(1).double(), dim=1)
    same_class = float((expected.argmax(1) == found.argmax(1)).float().mean()) if expected.ndim == 2 else None
    return Agreement(float(similarity.mean()), same_class, float((expected - found).abs().max()))
