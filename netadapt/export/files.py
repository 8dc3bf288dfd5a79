"""Export of a trained model to an ONNX or TFLite file, which is kept only if its runtime computes the same as PyTorch."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from ai_edge_litert.interpreter import Interpreter
from onnxruntime.capi import onnxruntime_pybind11_state
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from netadapt.errors import NetAdaptError
from netadapt.export.operators import operators_read_once
from netadapt.input_shapes import InputShapes
from netadapt.outputs import as_list, flat_outputs
from netadapt.registry import load
from netadapt.silence_warnings import quiet
from netadapt.training.tasks import scores_of
from netadapt.training.trees import each_of, random_inputs, zeros_of
from netadapt.training.types import Part, Scores
from profiler.errors import ModelError

Array = npt.NDArray[np.float32]
Network = Callable[[Sequence[Array]], list[Array]]
"""An opened model file: a function from all inputs to all outputs, with the channels of images first."""

RELATIVE_TOLERANCE = 1e-3
"""The largest difference, relative to the largest output: sums in another order give about 1e-6, a wrongly converted layer far
more than this."""
_CHECKS = 4
_SEED = 0
# the errors of the exporters for a model that they cannot convert; most are subclasses of RuntimeError
_EXPORT_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)

# onnxruntime has an exception for every status code, and their only common base is Exception
_ORT_ERRORS = tuple(
    kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
_OPEN_ERRORS: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_ORT_ERRORS)

Check = Callable[[nn.Module, InputShapes, Path, Path], float]
"""A check of a file that has just been written: from the model in evaluation, the shapes of its inputs, the path of the file and
the final path for errors, to the largest difference from PyTorch's outputs. `ExportError` if the file is not to be kept."""


class ExportError(NetAdaptError):
    """A model cannot be exported to this format, or the file does not compute the same as the model."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was exported and checked."""

    path: Path
    format: str
    """onnx or tflite."""
    max_abs_difference: float
    """The largest difference between an output of the file and PyTorch's, over the inputs of the check."""
    size_bytes: int


def export_onnx(model: nn.Module, input_shapes: InputShapes, path: Path) -> Exported:
    """Export to ONNX, with images as (n, c, h, w). After an `ExportError` an existing file is unchanged."""
    return export_checked(model, input_shapes, path, "onnx", write_onnx)


def export_tflite(model: nn.Module, input_shapes: InputShapes, path: Path) -> Exported:
    """Export to TFLite, with images as (n, h, w, c), as is usual there. After an `ExportError` an existing file is unchanged."""
    return export_checked(model, input_shapes, path, "tflite", write_tflite)


def write_onnx(model: nn.Module, input_shapes: InputShapes, path: Path) -> None:
    """Write an ONNX file without checking it. The model must be in evaluation, because batch normalisation is folded."""
    with _export_errors("onnx"), quiet(), flat_outputs(model), operators_read_once(), _Exportable():
        torch.onnx.export(model, zeros_of(input_shapes), path, dynamo=True, external_data=False, verbose=False)


def write_tflite(model: nn.Module, input_shapes: InputShapes, path: Path) -> None:
    """Write a TFLite file without checking it, with channels last in inputs and outputs, so that it has no transposing layers."""
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")  # its progress goes to standard output
    inputs = zeros_of(input_shapes)
    image_inputs = [index for index, each in enumerate(inputs) if each.ndim == 4]
    image_outputs = [index for index, output in enumerate(reference(model, inputs)) if output.ndim == 4]
    with _export_errors("tflite"), quiet(), flat_outputs(model), _Exportable():
        with_images_last = load("litert_torch:to_channel_last_io")(model, args=image_inputs, outputs=image_outputs).eval()
        converted = load("litert_torch:convert")(with_images_last, tuple(map(channels_last, inputs)))
        path.write_bytes(converted.model_content())


def open_network(path: Path) -> tuple[Network, int]:
    """An exported file, opened in its runtime, and its batch size. `ModelError` if it cannot be executed.

    The function takes and returns floats; inputs and outputs that are integers in the file are quantised by their stored scales.
    """
    opener = _OPENERS.get(path.suffix)
    if opener is None or not path.is_file():
        raise ModelError(f"{path} is not an exported network; give a file that ends in {' or '.join(_OPENERS)}")
    try:
        with quiet():
            return opener(path)
    except _OPEN_ERRORS as exc:
        raise ModelError(f"{path} cannot be run, so export it again: {' '.join(str(exc).split())[:300]}") from exc


def file_scores(path: Path, part: Part, output: int = 0) -> Scores:
    """The scores of an exported network on all images of the part, by the output at this place, executed by its own runtime.

    `ModelError` if it cannot be executed, `TaskError` as for `scores_of`.
    """
    network, batch_size = open_network(path)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.split(torch.arange(len(part)), batch_size):
            inputs, targets = part.batch(indices)
            missing = batch_size - len(indices)  # the file takes only full batches
            full = [np.pad(each.numpy(), ((0, missing), *((0, 0),) * (each.ndim - 1))) for each in each_of(inputs)]
            outputs = network(full)[output]
            yield torch.from_numpy(outputs[: len(indices)]), targets

    return scores_of(part.task, batches())


def export_checked(
    model: nn.Module,
    input_shapes: InputShapes,
    path: Path,
    name: str,
    write: Callable[[nn.Module, InputShapes, Path], None],
    check: Check | None = None,
) -> Exported:
    """Write a file with `write`, check it and only then move it to `path`. `ExportError` if the file is not to be kept.

    `name` is the format, and the ending that exporters expect. By default the check is that outputs are equal to PyTorch's.
    """
    copy = deepcopy(model).cpu().float().eval()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            written = Path(folder) / path.with_suffix(f".{name}").name
            write(copy, input_shapes, written)
            difference = (check or _check_equal)(copy, input_shapes, written, path)
            size_bytes = written.stat().st_size
            os.replace(written, path)  # noqa: PTH105, a rename that overwrites on every system
    except OSError as exc:
        raise ExportError(f"{path} cannot be written: {exc.strerror or exc}; choose another path") from exc
    return Exported(path, name, difference, size_bytes)


@contextmanager
def _export_errors(name: str) -> Iterator[None]:
    """Turn the errors of the exporter for this format into `ExportError`."""
    try:
        yield
    except _EXPORT_ERRORS as exc:
        reason = str(exc.__cause__ or exc)  # the exporter's own message is advice of several lines
        raise ExportError(f"the model cannot be written as {name}: {' '.join(reason.split())[:300]}") from exc


def _check_equal(model: nn.Module, input_shapes: InputShapes, written: Path, path: Path) -> float:
    """The check that outputs for random inputs are equal within RELATIVE_TOLERANCE."""
    network, _ = open_network(written)
    generator = torch.Generator().manual_seed(_SEED)
    largest = 0.0
    for _ in range(_CHECKS):
        inputs = random_inputs(input_shapes, generator=generator)
        for expected, found in zip(reference(model, inputs), network([each.numpy() for each in inputs]), strict=True):
            wanted = expected.double().numpy()  # numbers of classes and masks are no floats
            difference, scale = float(np.abs(wanted - found.astype(np.float64)).max()), float(np.abs(wanted).max())
            if not difference <= RELATIVE_TOLERANCE * scale:  # so that NaN fails too
                raise ExportError(
                    f"{path} was not written: its outputs differ from PyTorch's by {difference:.3g}, of at most {scale:.3g}; "
                    "the exporter converts a layer of this network wrongly, so try another format"
                )
            largest = max(largest, difference)
    return largest


def reference(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs that PyTorch computes, always as a list."""
    with torch.no_grad():
        return as_list(model(*inputs))


def channels_last(tensor: Tensor) -> Tensor:
    """An image (n, c, h, w) as (n, h, w, c), as TFLite has it; any other tensor as it is."""
    return tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor


class _Exportable(TorchFunctionMode):
    """Functions that exporters write wrongly, or not at all, are written as others that compute the same.

    An adaptive pool of maxima becomes a maximum over all pixels, or a pool of windows. Nearest interpolation by a factor that is no
    whole number becomes a selection of rows and columns: runtimes round their own factor, and take other pixels than PyTorch for
    some. From 60 to 64, where 16 * 60 / 64 is 15, they compute 16 / (64 / 60), which is a little less. A sequence is interpolated
    as an image of one row.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.interpolate:
            asked = inspect.signature(func).bind(*args, **(kwargs or {})).arguments
            if asked["input"].ndim == 3 and asked.get("mode", "nearest") in _OF_IMAGES:
                return functional.interpolate(**_as_rows(**asked)).squeeze(2)
            if (indices := _nearest_pixels(**asked)) is not None:
                images: Tensor = asked["input"]
                for axis, chosen in enumerate(indices, start=2):
                    images = images.index_select(axis, chosen)
                return images
        if func is functional.adaptive_max_pool2d and (pooled := _pooled(*args, **(kwargs or {}))) is not None:
            return pooled
        return func(*args, **(kwargs or {}))


_OF_IMAGES = {"nearest": "nearest", "nearest-exact": "nearest-exact", "linear": "bilinear"}
"""The interpolation of sequences, and that of images."""


def _as_rows(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **options: Any) -> dict[str, Any]:
    """The arguments of `interpolate` for a sequence (n, c, length) as those for images (n, c, 1, length)."""
    for_rows = [
        given if given is None else (1, *(given if isinstance(given, tuple | list) else [given])) for given in (size, scale_factor)
    ]
    return {"input": input.unsqueeze(2), "size": for_rows[0], "scale_factor": for_rows[1], "mode": _OF_IMAGES[mode], **options}


def _pooled(input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor | None:
    """The maxima of adaptive pooling; None where its windows are not all alike, and where their places are asked for."""
    before = tuple(input.shape[-2:])
    given = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * 2
    after = [n if m is None else m for n, m in zip(before, given, strict=True)]
    if return_indices or any(n % m for n, m in zip(before, after, strict=True)):
        return None
    if after == [1, 1]:
        return input.amax((-2, -1), keepdim=True)
    window = [n // m for n, m in zip(before, after, strict=True)]
    return functional.max_pool2d(input, window, window)


def _nearest_pixels(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", *_rest: Any, **options: Any
) -> list[Tensor] | None:
    """The rows and columns that nearest interpolation takes, as PyTorch computes them; None where factors are whole numbers."""
    if mode not in ("nearest", "nearest-exact") or input.ndim != 4:
        return None
    before = tuple(input.shape[2:])
    given = None if scale_factor is None else tuple(scale_factor) if isinstance(scale_factor, tuple | list) else (scale_factor,) * 2
    after = [int(n * factor) for n, factor in zip(before, given, strict=True)] if given else size
    after = tuple(after) if isinstance(after, tuple | list) else (after,) * 2
    if all(n % m == 0 or (m % n == 0 and mode == "nearest") for n, m in zip(before, after, strict=True)) and mode == "nearest":
        return None
    found = []
    for place, (n, m) in enumerate(zip(before, after, strict=True)):
        factor = np.float32(1 / given[place] if given and not options.get("recompute_scale_factor") else n / m)
        half = np.float32(0.5 if mode == "nearest-exact" else 0)
        pixels = np.floor((np.arange(m, dtype=np.float32) + half) * factor).astype(np.int64)
        found.append(torch.from_numpy(np.minimum(pixels, n - 1)))
    return found


def _open_onnx(path: Path) -> tuple[Network, int]:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # only fatal errors
    # callers compute between two batches, and spinning threads would occupy their cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True))), int(session.get_inputs()[0].shape[0])


def _open_tflite(path: Path) -> tuple[Network, int]:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    inputs: Sequence[dict[str, Any]] = interpreter.get_input_details()
    if len(inputs) > 1:  # in the order of the model's arguments, args_0, args_1, …
        named = interpreter.get_signature_runner().get_input_details()
        inputs = [named[name] for name in in_order(named)]
    outputs: Sequence[dict[str, Any]] = interpreter.get_output_details()

    def run(arrays: Sequence[Array]) -> list[Array]:
        for tensor, array in zip(inputs, arrays, strict=True):
            last = np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
            interpreter.set_tensor(tensor["index"], _quantise(last, tensor))
        interpreter.invoke()
        values = [_dequantise(interpreter.get_tensor(output["index"]), output) for output in outputs]
        return [value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for value in values]

    return run, int(inputs[0]["shape"][0])


def in_order(names: Iterable[str]) -> list[str]:
    """The names of a TFLite signature's inputs, args_0 and so on, in the order of the network's arguments."""
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _quantise(values: Array, tensor: Mapping[str, Any]) -> npt.NDArray[Any]:
    """The values in the data type of a TFLite tensor, given its details: floats as they are, integers by its scale."""
    if tensor["dtype"] is np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    if not scale:  # integers that stand for themselves, such as token ids
        return values.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    integers: npt.NDArray[Any] = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(tensor["dtype"])
    return integers


def _dequantise(values: npt.NDArray[Any], tensor: Mapping[str, Any]) -> Array:
    """The reverse of `_quantise`, in floats."""
    if tensor["dtype"] is np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    if not scale:  # integers that stand for themselves, such as the number of a class
        return values.astype(np.float32)
    floats: Array = ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return floats


_OPENERS = {".onnx": _open_onnx, ".tflite": _open_tflite}
