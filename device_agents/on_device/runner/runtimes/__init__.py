"""The runtimes by the names that jobs call them by."""

from __future__ import annotations

from pathlib import Path

from device_agents.on_device.runner.host import told
from device_agents.on_device.runner.runtimes.fake import Fake
from device_agents.on_device.runner.runtimes.interface import Runtime
from device_agents.on_device.runner.runtimes.litert import LiteRt, TfliteRuntime
from device_agents.on_device.runner.runtimes.onnxruntime import OnnxRuntime, OnnxRuntimeCuda, OnnxRuntimeTensorRt

RUNTIMES: dict[str, type[Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "onnxruntime-cuda": OnnxRuntimeCuda,
    "onnxruntime-tensorrt": OnnxRuntimeTensorRt,
    "litert": LiteRt,
    "tflite-runtime": TfliteRuntime,
    "fake": Fake,
}


def load_runtime(name: str, threads: int, folder: Path) -> Runtime:
    """The runtime of that name. SystemExit if it is not installed or does not work."""
    try:
        return RUNTIMES[name](threads, folder)
    except ModuleNotFoundError as exc:
        raise SystemExit(f"ModuleNotFoundError: {exc}") from exc  # the host recognises this name
    except Exception as exc:  # a broken package may raise anything; it is reported
        raise SystemExit(f"{name} cannot be used: {told(exc)}") from exc
