"""The errors of protobuf, onnx and onnxruntime as errors of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state

from profiler.errors import LayerError, ModelError, PlanError

LIBRARY_ERRORS = (
    DecodeError,
    EncodeError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    # onnxruntime has a class for every status code, with no common base but Exception
    *(kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,  # whatever else the libraries' C++ throws
    # raised for damaged files: names that are not text, tensors shorter than their shape, types that do not exist
    ValueError,
    TypeError,
)

# the place in onnxruntime's source, which does not help the user
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z]))?", re.DOTALL)

_WAYS_OUT: Mapping[str, str] = {
    "IR version": "export it for an older version of ONNX, or install a newer onnxruntime",
    "under development": "export it for an older opset, or install a newer onnxruntime",
    "Could not find an implementation": "it lacks that version or data type of the operator; export it for another",
    "not a registered function": "it lacks that operator; export the network without it",
}
"""The next step for what onnxruntime says."""


@contextmanager
def library_errors_as_ours(path: Path) -> Iterator[None]:
    """Raises every error of the three libraries, which have a dozen classes, as a `ModelError` of one sentence."""
    try:
        yield
    except (ModelError, LayerError, PlanError) as exc:
        raise ModelError(f"{path}: {exc}") from exc
    except OSError as exc:
        file = "" if exc.filename in (None, str(path)) else f"{exc.filename}: "
        raise ModelError(f"{path} cannot be read: {file}{exc.strerror or exc}") from exc
    except LIBRARY_ERRORS as exc:
        reason = " ".join(_STATUS.sub("", str(exc)).split())[:300] or type(exc).__name__
        way = next((f"; {way}" for said, way in _WAYS_OUT.items() if said in reason), "")
        raise ModelError(f"{path} is not a model that onnxruntime {ort.__version__} can run: {reason}{way}") from exc
