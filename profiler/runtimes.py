"""The runtimes that models are measured with: one row each, from which every list and every choice of a command is derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Runtime:
    """One inference runtime."""

    name: str
    model_format: str
    """The files that it reads: onnx, tflite, or json for the fake runtime's scripts."""
    fusion: str | None
    """Whose rules say which layers it executes as one (profiler.layers.execution): onnxruntime or tflite. None where these are not
    known: layers are then measured as the file has them, and a build says so."""
    wheel: tuple[str, str] | None = None
    """The Python package on this host whose folder holds the shared library for the native runner, and the library's pattern."""
    is_simulated: bool = False


_ROWS = (
    Runtime("onnxruntime", "onnx", "onnxruntime", ("onnxruntime", "capi/libonnxruntime.so*")),
    # CUDA's and TensorRT's providers fuse by rules of their own, which have not been read off a device yet.
    Runtime("onnxruntime-cuda", "onnx", None),
    Runtime("onnxruntime-tensorrt", "onnx", None),
    Runtime("litert", "tflite", "tflite", ("ai_edge_litert", "libLiteRt.so")),
    Runtime("tflite-runtime", "tflite", "tflite"),
    Runtime("fake", "json", "tflite", is_simulated=True),
)
RUNTIMES: Mapping[str, Runtime] = {row.name: row for row in _ROWS}
MEANT: Mapping[str, str] = {
    "ort": "onnxruntime", "onnx": "onnxruntime", "onnxrt": "onnxruntime", "onnx-runtime": "onnxruntime", "cpu": "onnxruntime",
    "cuda": "onnxruntime-cuda", "gpu": "onnxruntime-cuda", "ort-cuda": "onnxruntime-cuda", "onnxruntime-gpu": "onnxruntime-cuda",
    "trt": "onnxruntime-tensorrt", "tensorrt": "onnxruntime-tensorrt", "tflite": "litert", "tf": "litert", "tensorflow": "litert",
    "tensorflow-lite": "litert", "xnnpack": "litert", "tflite_runtime": "tflite-runtime",
}  # fmt: skip
"""The runtimes that are meant by other names, in lower case."""
UNKNOWN_RUNTIME = "unknown"
"""Of a table that others made and that does not say."""
MODELLED_RUNTIME = "modelled"
"""Of a table that was computed from a description of hardware (profiler.modelled), whose layers are those of the network itself."""


def offered_runtimes() -> tuple[str, ...]:
    """The names of those that commands offer."""
    return tuple(runtime.name for runtime in RUNTIMES.values() if not runtime.is_simulated)


def fusion_of(runtime: str) -> str | None:
    """Whose fusion rules hold for a runtime; those of TFLite for a table that does not say with which runtime it was made."""
    if runtime in (UNKNOWN_RUNTIME, MODELLED_RUNTIME):
        return "tflite" if runtime == UNKNOWN_RUNTIME else None
    return RUNTIMES[runtime].fusion
