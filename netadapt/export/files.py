"""A trained model as an ONNX or TFLite file, written only if the file's own runtime computes what PyTorch does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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

from netadapt.errors import NetAdaptError
from netadapt.input_shape import InputShape
from netadapt.registry import load
from netadapt.silence_warnings import quiet
from netadapt.training.tasks import scores_of
from netadapt.training.types import Part, Scores
from profiler.errors import ModelError

Array = npt.NDArray[np.float32]
Network = Callable[[Array], list[Array]]
"""An opened file: from images (n, c, h, w) to its outputs, images among them channels first too."""

RELATIVE_TOLERANCE = 1e-3
"""Of the largest output. Sums in another order give about 1e-6; a layer that was converted wrongly gives far more than this."""
_CHECKS = 4
_SEED = 0
# what exporters raise for a model that they cannot convert; most are RuntimeErrors of their own
_EXPORT_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)

# onnxruntime has a class for every status code, with no common base but Exception
_ORT_ERRORS = tuple(
    kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
Check = Callable[[nn.Module, InputShape, Path, Path], float]
"""Of a model, in evaluation, and its shape with the file just written, which is to have the last name: the largest difference."""
_OPEN_ERRORS: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_ORT_ERRORS)


class ExportError(NetAdaptError):
    """A model cannot be written in this format, or the file does not compute the same."""


@dataclass(frozen=True, slots=True)
class Exported:
    path: Path
    format: str
    """onnx or tflite."""
    max_abs_difference: float
    """The largest between an output of the file and of PyTorch, on the same random inputs."""
    size_bytes: int


def export_onnx(model: nn.Module, input_shape: InputShape, path: Path) -> Exported:
    """Inputs (n, c, h, w). `ExportError` leaves an existing file untouched."""
    return export_checked(model, input_shape, path, "onnx", write_onnx)


def export_tflite(model: nn.Module, input_shape: InputShape, path: Path) -> Exported:
    """Inputs (n, h, w, c), as is usual in this format. `ExportError` leaves an existing file untouched."""
    return export_checked(model, input_shape, path, "tflite", write_tflite)


def write_onnx(model: nn.Module, input_shape: InputShape, path: Path) -> None:
    """The bare export, unchecked. Batch normalisation is folded, so the model must be in evaluation."""
    with _export_errors("onnx"), quiet():
        torch.onnx.export(model, (torch.zeros(input_shape),), path, dynamo=True, external_data=False, verbose=False)


def write_tflite(model: nn.Module, input_shape: InputShape, path: Path) -> None:
    """The bare export, unchecked. Images go in and come out channels last, so that no layer is spent on turning them."""
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")  # its progress goes to standard output
    images = torch.zeros(input_shape)
    turned = [index for index, output in enumerate(reference(model, images)) if output.ndim == 4]
    with _export_errors("tflite"), quiet():
        channels_last = load("litert_torch:to_channel_last_io")(model, args=[0], outputs=turned).eval()
        converted = load("litert_torch:convert")(channels_last, (images.permute(0, 2, 3, 1),))
        path.write_bytes(converted.model_content())


def open_network(path: Path) -> tuple[Network, int]:
    """An exported file in its runtime, and how many images it takes at once. `ModelError` if it cannot be run.

    Floats go in and come out, of a file that takes and gives integers too.
    """
    opener = _OPENERS.get(path.suffix)
    if opener is None or not path.is_file():
        raise ModelError(f"{path} is not an exported network; there must be a file that ends in {' or '.join(_OPENERS)}")
    try:
        with quiet():
            return opener(path)
    except _OPEN_ERRORS as exc:
        raise ModelError(f"{path} cannot be run: {' '.join(str(exc).split())[:300]}") from exc


def file_scores(path: Path, part: Part) -> Scores:
    """How good an exported network is on all images of the part, run by its own runtime."""
    network, at_once = open_network(path)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.split(torch.arange(len(part)), at_once):
            images, targets = part.batch(indices)
            missing = at_once - len(indices)  # the file takes full batches only
            outputs = network(np.pad(images.numpy(), ((0, missing), (0, 0), (0, 0), (0, 0))))[0]
            yield torch.from_numpy(outputs[: len(indices)]), targets

    return scores_of(part.task, batches())


def file_accuracy(path: Path, part: Part) -> float:
    """That of the scores which picks, from 0 to 1."""
    return file_scores(path, part).accuracy


def export_checked(
    model: nn.Module,
    input_shape: InputShape,
    path: Path,
    name: str,
    write: Callable[[nn.Module, InputShape, Path], None],
    check: Check | None = None,
) -> Exported:
    """Write to a folder of its own, check, then put in place. The check is that outputs are equal, unless another is given."""
    ours = deepcopy(model).cpu().float().eval()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            written = Path(folder) / path.with_suffix(f".{name}").name
            write(ours, input_shape, written)
            difference = (check or _checked_difference)(ours, input_shape, written, path)
            size_bytes = written.stat().st_size
            os.replace(written, path)  # noqa: PTH105, a rename that overwrites on every system
    except OSError as exc:
        raise ExportError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    return Exported(path, name, difference, size_bytes)


@contextmanager
def _export_errors(name: str) -> Iterator[None]:
    try:
        yield
    except _EXPORT_ERRORS as exc:
        reason = str(exc.__cause__ or exc)  # an exporter's own message is advice on several lines
        raise ExportError(f"the model cannot be written as {name}: {' '.join(reason.split())[:300]}") from exc


def _checked_difference(model: nn.Module, input_shape: InputShape, written: Path, path: Path) -> float:
    network, _ = open_network(written)
    generator = torch.Generator().manual_seed(_SEED)
    largest = 0.0
    for _ in range(_CHECKS):
        images = torch.randn(input_shape, generator=generator)
        for expected, found in zip(reference(model, images), network(images.numpy()), strict=True):
            difference = float(np.abs(expected.numpy() - found).max())
            if not difference <= RELATIVE_TOLERANCE * float(expected.abs().max()):  # so that NaN fails too
                raise ExportError(
                    f"{path} was not written: its outputs differ from PyTorch's by {difference:.3g}, of {expected.abs().max():.3g}"
                )
            largest = max(largest, difference)
    return largest


def reference(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        outputs = model(images)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _open_onnx(path: Path) -> tuple[Network, int]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # between two images other work is done, from which threads that spin would take the cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda array: session.run(None, {images.name: array}), int(images.shape[0])


def _open_tflite(path: Path) -> tuple[Network, int]:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (images,) = interpreter.get_input_details()
    outputs: Sequence[dict[str, Any]] = interpreter.get_output_details()

    def run(array: Array) -> list[Array]:
        interpreter.set_tensor(images["index"], _quantised(np.ascontiguousarray(array.transpose(0, 2, 3, 1)), images))
        interpreter.invoke()
        found = [_dequantised(interpreter.get_tensor(output["index"]), output) for output in outputs]
        return [value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for value in found]

    return run, int(images["shape"][0])


def _quantised(values: Array, tensor: Mapping[str, Any]) -> npt.NDArray[Any]:
    """As this tensor of a TFLite file takes them: floats as they are, integers by its scale."""
    if tensor["dtype"] is np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    integers: npt.NDArray[Any] = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(tensor["dtype"])
    return integers


def _dequantised(values: npt.NDArray[Any], tensor: Mapping[str, Any]) -> Array:
    if tensor["dtype"] is np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    floats: Array = ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return floats


_OPENERS = {".onnx": _open_onnx, ".tflite": _open_tflite}
