"""LiteRT, and tflite-runtime, its predecessor."""

from __future__ import annotations

import importlib
from pathlib import Path

from device_agents.on_device.runner.executed import Executed
from device_agents.on_device.runner.inputs import Inputs
from device_agents.on_device.runner.runtimes.interface import Opened, Output, Runtime, newest
from device_agents.on_device.runner.runtimes.litert_profile import LiteRtProfiler, NotProfiled


class LiteRt(Runtime):
    """LiteRT, the successor of TensorFlow Lite, with its default XNNPACK delegate."""

    module = "ai_edge_litert.interpreter"
    package = "ai_edge_litert"
    model = "probe.tflite"
    libraries: tuple[str, ...] = ("libpywrap_litert_common.so", "_pywrap*.so")
    many_open = True  # XNNPACK's workers sleep between runs

    def __init__(self, threads: int, folder: Path) -> None:
        self.interpreter = importlib.import_module(self.module).Interpreter
        self.threads = threads
        self.flags = {"delegate": "XNNPACK, as the runtime applies it by default"}
        self.version = _distribution_version(self.package)
        self.folder = Path(str(importlib.import_module(self.package).__file__)).parent
        self.library_path = newest(self.folder, self.libraries)
        self.profiler: LiteRtProfiler | None = None

    def open(self, path: Path, seed: int, as_it_is: bool) -> Opened:
        interpreter = self.interpreter(model_path=str(path), num_threads=self.threads)
        interpreter.allocate_tensors()
        inputs = Inputs(path, seed)
        for place, detail in enumerate(interpreter.get_input_details()):
            interpreter.set_tensor(detail["index"], inputs.array(place, detail["shape"], detail["dtype"]))
        details = interpreter.get_output_details()
        return Opened(interpreter.invoke, lambda: [Output.of_array(interpreter.get_tensor(detail["index"])) for detail in details])

    def executed(self, path: Path, seed: int, as_it_is: bool, inferences: int) -> Executed:
        self.open(path, seed, as_it_is).run_once(finite=False)
        try:
            if self.profiler is None:
                self.profiler = LiteRtProfiler(self.folder / "libLiteRt.so", self.threads)
            return Executed(self.profiler.profile(path, seed, inferences))
        except NotProfiled as exc:
            return Executed([], reason=str(exc))


class TfliteRuntime(LiteRt):
    """tflite-runtime, LiteRT's predecessor: its last release needs numpy 1 and Python 3.11 or older."""

    module = "tflite_runtime.interpreter"
    package = "tflite_runtime"
    libraries = ("_pywrap*.so",)

    def executed(self, path: Path, seed: int, as_it_is: bool, inferences: int) -> Executed:
        self.open(path, seed, as_it_is).run_once(finite=False)
        return Executed([], reason="tflite-runtime does not tell what it executes")


def _distribution_version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:  # not installed by pip
        return str(getattr(importlib.import_module(package), "__version__", "not known"))
