"""ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from device_agents.on_device.runner.executed import WARM_UP_RUNS, Executed
from device_agents.on_device.runner.host import told
from device_agents.on_device.runner.inputs import input_array
from device_agents.on_device.runner.runtimes.interface import NotInThisBuild, Opened, Output, Runtime, newest
from device_agents.on_device.runner.runtimes.onnxruntime_profile import read_profile

LEFT_BEHIND_S = 3600.0
"""A folder of profiles that is older than this belongs to no runner any more."""


def _remove_left_behind(folder: Path) -> None:
    """Remove the profiles of runners that were killed while they wrote them."""
    for left in folder.glob("executed-*"):
        if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
            shutil.rmtree(left, ignore_errors=True)


class OnnxRuntime(Runtime):
    """ONNX Runtime. Inputs and outputs are bound beforehand, so that a run copies and allocates nothing."""

    package = "onnxruntime"
    model = "probe.onnx"
    provider = "CPUExecutionProvider"
    memory = "cpu"
    """ONNX Runtime's name of the memory in which inputs and outputs are."""

    def __init__(self, threads: int, folder: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # which writes a database, and sends it, while models are measured
        import onnxruntime

        self.ort = onnxruntime
        if self.provider not in onnxruntime.get_available_providers():
            has = ", ".join(onnxruntime.get_available_providers())
            raise NotInThisBuild(f"onnxruntime {onnxruntime.__version__} has no {self.provider}, only {has}; install one that has")
        self.version = onnxruntime.__version__
        self.library_path = newest(
            Path(onnxruntime.__file__).parent / "capi", ("onnxruntime_pybind11_state*", "libonnxruntime.so*")
        )
        self.flags: dict[str, Any] = {"graph_optimization": "all", "inter_op_threads": 1, "io_binding": True}
        self.providers = self._providers(folder)
        self.threads = threads
        self._set_threads()

    def _providers(self, folder: Path) -> list[Any]:
        self.flags["providers"] = [self.provider]
        return [self.provider]

    def _set_threads(self) -> None:
        # with a pool for each open model, many of them would spin and compete for the cores
        self.shared = self.threads > 1 and hasattr(self.ort, "set_global_thread_pool_sizes")
        if self.shared:
            self.ort.set_global_thread_pool_sizes(self.threads, 1)
            self.flags["thread_pool"] = "one, shared by all models"
        self.many_open = self.shared or self.threads == 1

    def open(self, path: Path, seed: int, as_it_is: bool) -> Opened:
        return self._bound(self._session(path, self._options(as_it_is)), seed)

    def executed(self, path: Path, seed: int, as_it_is: bool, inferences: int) -> Executed:
        _remove_left_behind(path.parent)
        with TemporaryDirectory(prefix="executed-", dir=path.parent) as folder:
            graph, reason = Path(folder, "graph.onnx"), None
            try:
                session = self._session(path, self._profiled_options(as_it_is, folder, graph))
            except Exception as exc:  # its own exceptions share no other base; compiled partitions cannot be saved
                reason = f"the runtime does not save what it executes: {told(exc)}"
                session = self._session(path, self._profiled_options(as_it_is, folder))
            opened = self._bound(session, seed).run_once(finite=False)
            for _ in range(WARM_UP_RUNS + inferences):
                opened.run()
            data = graph.read_bytes() if reason is None else None
            profile = Path(session.end_profiling())
            try:
                found = read_profile(profile)
            except (LookupError, ValueError) as exc:  # it does not escape every name
                return Executed([], data, f"the profile of ONNX Runtime cannot be read: {told(exc)}")
            if len(found) < WARM_UP_RUNS + inferences:  # it records no more than a million events
                return Executed([], data, f"the profile of ONNX Runtime ends after {len(found)} inferences")
            return Executed(found[-inferences:], data, reason)

    def _options(self, as_it_is: bool) -> Any:
        options = self.ort.SessionOptions()
        if self.shared:
            options.use_per_session_threads = False
        if as_it_is:
            options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return options

    def _profiled_options(self, as_it_is: bool, folder: str, graph: Path | None = None) -> Any:
        """With the profiler on, and a file for the graph, beside which large weights go into one of their own."""
        options = self._options(as_it_is)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        if graph is not None:
            options.optimized_model_filepath = str(graph)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        return options

    def _session(self, path: Path, options: Any) -> Any:
        session = self.ort.InferenceSession(str(path), options, providers=self.providers)
        if session.get_providers()[0] != self.provider:
            given = session.get_providers()[0]
            raise RuntimeError(
                f"it would run on {given}: {self.provider} does not load, its libraries are missing or of other versions"
            )
        return session

    def _bound(self, session: Any, seed: int) -> Opened:
        binding = session.io_binding()
        for place, value in enumerate(session.get_inputs()):
            array = input_array(seed, place, value.shape, _numpy_type(value.type))
            binding.bind_ortvalue_input(value.name, self.ort.OrtValue.ortvalue_from_numpy(array, self.memory, 0))
        for value in session.get_outputs():
            binding.bind_output(value.name, self.memory)
        session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        for value, output in zip(session.get_outputs(), outputs):
            binding.bind_ortvalue_output(value.name, output)
        return Opened(self._run(session, binding), lambda: [Output.of_array(output.numpy()) for output in outputs])

    def _run(self, session: Any, binding: Any) -> Callable[[], object]:
        return lambda: session.run_with_iobinding(binding)


class OnnxRuntimeCuda(OnnxRuntime):
    """On an NVIDIA GPU by cuDNN and cuBLAS. Operators for which the CUDA provider has no kernel run on the CPU."""

    provider = "CUDAExecutionProvider"
    memory = "cuda"

    def _providers(self, folder: Path) -> list[Any]:
        options = self._provider_options(folder)
        # the folder is named after the job and would make equal settings look different
        told = {name: value for name, value in options.items() if value != str(folder)}
        self.flags.update(
            providers=[self.provider, "CPUExecutionProvider"], provider_options=told, timed="until the outputs are there"
        )
        return [(self.provider, options), "CPUExecutionProvider"]

    def _provider_options(self, folder: Path) -> dict[str, Any]:
        return {"cudnn_conv_algo_search": "EXHAUSTIVE"}

    def _run(self, session: Any, binding: Any) -> Callable[[], object]:
        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()  # the run itself only puts the work into the GPU's queue

        return run


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """On an NVIDIA GPU by engines that TensorRT builds: seconds for each model, hence the cache beside the job."""

    provider = "TensorrtExecutionProvider"

    def _provider_options(self, folder: Path) -> dict[str, Any]:
        self.flags["warning"] = (
            "TensorRT fuses across layers: of all runtimes, sums of single layers say least about a network here"
        )
        return {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}


def _numpy_type(name: str) -> str:
    """numpy's name of a type that ONNX Runtime calls 'tensor(float)'."""
    inner = name[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(inner, inner)
