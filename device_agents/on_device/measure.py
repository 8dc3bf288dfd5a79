"""The runner: measures many models in one process on the device and reports the measurements as JSON lines.

    python measure.py job.json            run a job; one JSON object a line on standard output, each flushed
    python measure.py --probe FOLDER      report the device, and which runtimes run FOLDER/probe.onnx or FOLDER/probe.tflite

PROTOCOL.md beside it is the contract. It is pushed to the device and run there, never imported by the host. It needs only the
standard library, one runtime (which brings numpy) and Python 3.8, so that a board's old interpreter will do.

Models stay open within a memory bound and are measured in rounds, in the order in which the host has shuffled them. A measurement
warms the model up and then takes samples; a sample is as many inferences as last at least `sample_ms`, so that the time of reading
the clock does not matter. What disturbed a measurement is reported with it. Nothing is averaged here: the host keeps every sample.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import hashlib
import importlib
import json
import math
import os
import platform
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, Iterable, List, NamedTuple, Sequence  # noqa: UP035  Python 3.8

PROTOCOL = 5
UNREADABLE = "not readable"
PROBE_S = 60
"""A runtime that has not run the probe's model within this time is reported as broken."""
PATIENCE_S = 5.0
"""How long to wait for the host's acknowledgement of a result before the next is measured without it."""
SOON_NS = 20_000_000
"""Most acknowledgements arrive while the next model is warmed up, or this soon after."""


# ------------------------------------------------------------------------------------------------------------------- inputs

MASK = 2**64 - 1


def random_bits(seed: int, place: int, ordinal: Any) -> Any:
    """64 bits for the `ordinal`-th element (from 1) of the `place`-th input (from 0): a whole number, or a uint64 array of them."""
    step = 0xD1342543DE82EF95
    start = (seed * 0x9E3779B97F4A7C15 + (place << 40) * step) & MASK
    z = (ordinal * step + start) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def value_of(bits: Any, kind: str) -> Any:
    """An element by its numpy kind: in [-1, 1) for floats, 0 or 1 for booleans, 0 to 7 for whole numbers, which may be indices."""
    if kind == "f":
        return (bits >> 40) / 2**23 - 1
    return bits >> (63 if kind == "b" else 61)


def input_array(numpy: Any, seed: int, place: int, shape: Any, dtype: Any) -> Any:
    """The `place`-th input of a model, from 0. ValueError for a dynamic shape or a type that is not numeric."""
    if not all(hasattr(length, "__index__") and length >= 0 for length in shape):
        raise ValueError(f"input of dynamic shape {list(shape)}")
    dtype = numpy.dtype(dtype)
    if dtype.kind not in "fbiu":
        raise ValueError(f"input of type {dtype}")
    size = math.prod(int(length) for length in shape)
    bits = random_bits(seed, place, numpy.arange(1, size + 1, dtype=numpy.uint64))
    return value_of(bits, dtype.kind).astype(dtype).reshape([int(length) for length in shape])


# ----------------------------------------------------------------------------------------------------------------- runtimes


class Output(NamedTuple):
    """An output of a model: its values flat, as a list or an array."""

    shape: List[int]  # noqa: UP006
    type: str
    values: Any

    @classmethod
    def of_array(cls, array: Any) -> Output:
        flat = array.reshape(-1)
        return cls(list(array.shape), str(array.dtype), flat.view("uint8") if array.dtype.kind == "b" else flat)

    def is_finite(self) -> bool:
        if isinstance(self.values, list):
            return all(math.isfinite(value) for value in self.values)
        if self.values.dtype.kind in "iu" or not len(self.values):
            return True
        return bool(abs(self.values.astype("float64")).max() < math.inf)  # a NaN compares false

    def told(self, most: int) -> dict[str, Any]:
        values = self.values[:most]
        if not isinstance(values, list):
            values = (values if values.dtype.kind in "iu" else values.astype("float64")).tolist()
        return {"shape": self.shape, "type": self.type, "values": values}


class Opened(NamedTuple):
    """A model that is ready to run."""

    run: Callable[[], object]
    outputs: Callable[[], Sequence[Output]]


class NotInThisBuild(Exception):
    """The runtime is installed, but was built without the provider that was asked for."""


class OnnxRuntime:
    """ONNX Runtime. Inputs and outputs are bound beforehand, so that a run copies and allocates nothing."""

    package = "onnxruntime"
    model = "probe.onnx"
    provider = "CPUExecutionProvider"
    memory = "cpu"
    """ONNX Runtime's name of the memory in which inputs and outputs are."""

    def __init__(self, threads: int, folder: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # which writes a database, and sends it, while models are measured
        import onnxruntime

        self.numpy, self.ort = importlib.import_module("numpy"), onnxruntime
        if self.provider not in onnxruntime.get_available_providers():
            has = ", ".join(onnxruntime.get_available_providers())
            raise NotInThisBuild(f"onnxruntime {onnxruntime.__version__} has no {self.provider}, only {has}; install one that has")
        self.version = onnxruntime.__version__
        self.library_path = _newest(
            Path(onnxruntime.__file__).parent / "capi", ("onnxruntime_pybind11_state*", "libonnxruntime.so*")
        )
        self.flags: dict[str, Any] = {"graph_optimization": "all", "inter_op_threads": 1, "io_binding": True}
        self.providers = self._providers(folder)
        self._set_options(threads)

    def _providers(self, folder: Path) -> list[Any]:
        self.flags["providers"] = [self.provider]
        return [self.provider]

    def _set_options(self, threads: int) -> None:
        self.options = self.ort.SessionOptions()
        # with a pool for each open model, many of them would spin and compete for the cores
        shared = threads > 1 and hasattr(self.ort, "set_global_thread_pool_sizes")
        if shared:
            self.ort.set_global_thread_pool_sizes(threads, 1)
            self.options.use_per_session_threads = False
            self.flags["thread_pool"] = "one, shared by all models"
        self.many_open = shared or threads == 1
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3

    def open(self, path: Path, seed: int) -> Opened:
        session = self.ort.InferenceSession(str(path), self.options, providers=self.providers)
        if session.get_providers()[0] != self.provider:
            given = session.get_providers()[0]
            raise RuntimeError(
                f"it would run on {given}: {self.provider} does not load, its libraries are missing or of other versions"
            )
        binding = session.io_binding()
        for place, value in enumerate(session.get_inputs()):
            array = input_array(self.numpy, seed, place, value.shape, _numpy_type(value.type))
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


class LiteRt:
    """LiteRT, the successor of TensorFlow Lite, with its default XNNPACK delegate."""

    module = "ai_edge_litert.interpreter"
    package = "ai_edge_litert"
    model = "probe.tflite"
    libraries: tuple[str, ...] = ("libpywrap_litert_common.so", "_pywrap*.so")
    many_open = True  # XNNPACK's workers sleep between runs

    def __init__(self, threads: int, folder: Path) -> None:
        self.interpreter = importlib.import_module(self.module).Interpreter
        self.numpy, self.threads = importlib.import_module("numpy"), threads
        self.flags = {"delegate": "XNNPACK, as the runtime applies it by default"}
        self.version = _distribution_version(self.package)
        self.library_path = _newest(Path(str(importlib.import_module(self.package).__file__)).parent, self.libraries)

    def open(self, path: Path, seed: int) -> Opened:
        interpreter = self.interpreter(model_path=str(path), num_threads=self.threads)
        interpreter.allocate_tensors()
        for place, detail in enumerate(interpreter.get_input_details()):
            interpreter.set_tensor(detail["index"], input_array(self.numpy, seed, place, detail["shape"], detail["dtype"]))
        details = interpreter.get_output_details()
        return Opened(interpreter.invoke, lambda: [Output.of_array(interpreter.get_tensor(detail["index"])) for detail in details])


class TfliteRuntime(LiteRt):
    """tflite-runtime, LiteRT's predecessor: its last release needs numpy 1 and Python 3.11 or older."""

    module = "tflite_runtime.interpreter"
    package = "tflite_runtime"
    libraries = ("_pywrap*.so",)


class Fake:
    """No runtime: a model is a JSON file that says how it behaves. For tests of the host; chosen by name only."""

    package = "json"
    many_open = True

    def __init__(self, threads: int, folder: Path) -> None:
        self.version, self.library_path = "0", Path(__file__)
        self.flags = {"simulated": True}

    def open(self, path: Path, seed: int) -> Opened:
        script = json.loads(Path(path).read_text())
        if "error" in script:
            raise RuntimeError(script["error"])
        latency_ns = script["latency_ns"]
        if type(latency_ns) is not int:
            raise ValueError("latency_ns is not a whole number")
        outputs = [self._output(seed, place, given) for place, given in enumerate(script.get("inputs", []))]
        if script.get("nan"):
            outputs.append(Output([1], "float32", [math.nan]))

        def run() -> None:
            if script.get("crash"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if script.get("hang"):
                time.sleep(1e6)
            until = clock_ns() + latency_ns
            while clock_ns() < until:
                pass

        return Opened(run, lambda: outputs)

    def _output(self, seed: int, place: int, given: dict[str, Any]) -> Output:
        kind = {"float32": "f", "float64": "f", "bool": "b"}.get(given["type"], "i")
        size = math.prod(given["shape"])
        values = [value_of(random_bits(seed, place, element), kind) for element in range(1, size + 1)]
        return Output(given["shape"], given["type"], values)


RUNTIMES: dict[str, Any] = {
    "onnxruntime": OnnxRuntime,
    "onnxruntime-cuda": OnnxRuntimeCuda,
    "onnxruntime-tensorrt": OnnxRuntimeTensorRt,
    "litert": LiteRt,
    "tflite-runtime": TfliteRuntime,
    "fake": Fake,
}


def load_runtime(name: str, threads: int, folder: Path) -> Any:
    try:
        return RUNTIMES[name](threads, folder)
    except ModuleNotFoundError as exc:
        raise SystemExit(f"ModuleNotFoundError: {exc}") from exc  # the host recognises this name
    except Exception as exc:  # a broken package may raise anything; it is reported
        raise SystemExit(f"{name} cannot be used: {told(exc)}") from exc


def _numpy_type(name: str) -> str:
    """numpy's name of a type that ONNX Runtime calls 'tensor(float)'."""
    inner = name[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(inner, inner)


def _distribution_version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:  # not installed by pip
        return str(getattr(importlib.import_module(package), "__version__", "not known"))


def _newest(folder: Path, patterns: Iterable[str]) -> Path | None:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[-1]
    return None


# --------------------------------------------------------------------------------------------------------------- the device


def clock_ns() -> int:
    """A clock that no time server steps or slews."""
    return time.clock_gettime_ns(CLOCK)


CLOCK = getattr(time, "CLOCK_MONOTONIC_RAW", getattr(time, "CLOCK_MONOTONIC", 1))


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,18}", text) else None


def numbers(paths: Iterable[Path]) -> list[int] | None:
    """The numbers in those files that can be read; None if there are none."""
    return [value for value in map(read_number, paths) if value is not None] or None


class Device:
    """What can be read of the device, below `root`, which is `/` except in tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        cpus = [path for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*") if path.name[3:].isdigit()]
        self.cpus = sorted(cpus, key=lambda path: int(path.name[3:]))
        self.clock_files = [cpu / "cpufreq/scaling_cur_freq" for cpu in self.cpus]
        self.dumpsys = root / "system/bin/dumpsys"
        self.energy: Rapl | Ina3221 | None = next((source for source in (Rapl(root), Ina3221(root)) if source.usable()), None)

    def facts(self) -> dict[str, Any]:
        return {
            "system": platform.system(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpu": self.cpu_model(),
            "cores": os.cpu_count(),
            "memory_bytes": self.memory_bytes(),
            "governor": self.governor(),
            "python": platform.python_version(),
        }

    def conditions(self) -> dict[str, Any]:
        heat = numbers((self.root / "sys/class/thermal").glob("thermal_zone*/temp"))
        counts = numbers(cpu / "thermal_throttle/core_throttle_count" for cpu in self.cpus)
        return {
            "load_1min": self.load_1min(),
            "frequencies_khz": numbers(self.clock_files),
            "temperature_c": max(heat) / 1000 if heat else None,
            "throttled": sum(counts) if counts else None,
            "thermal_status": self.thermal_status(),
        }

    def cpu_model(self) -> str:
        lines = [line.partition(":") for line in (read_text(self.root / "proc/cpuinfo") or "").splitlines()]
        named = {name.strip(): value.strip() for name, _, value in reversed(lines) if value.strip()}
        found = [named[name] for name in ("model name", "Hardware", "Processor") if name in named]
        return found[0] if found else platform.machine()

    def memory_bytes(self) -> int | None:
        found = re.search(r"^MemTotal:\s*([0-9]+) kB", read_text(self.root / "proc/meminfo") or "", re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None

    def governor(self) -> str:
        found = {read_text(cpu / "cpufreq/scaling_governor") for cpu in self.cpus}
        return "+".join(sorted(name for name in found if name)) or UNREADABLE

    def load_1min(self) -> float | None:
        found = re.match(r"[0-9]+\.[0-9]+(?= )", read_text(self.root / "proc/loadavg") or "")
        return float(found.group()) if found else None

    def fastest_khz(self) -> int | None:
        """The clock of the fastest core, which is the one that measures."""
        found = numbers(self.clock_files)
        return max(found) if found else None

    def thermal_status(self) -> int | None:
        """Android's thermal status, from 0 (none) to 6 (shutdown)."""
        if not self.dumpsys.exists():
            return None
        command = [str(self.dumpsys), "thermalservice"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.search(rb"^[ \t]*Thermal Status:[ \t]*([0-6])[ \t]*$", done.stdout, re.MULTILINE)
        return int(found.group(1)) if found else None


def affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def current_core() -> int | None:
    core = SCHED_GETCPU() if SCHED_GETCPU else -1
    return core if core >= 0 else None


SCHED_GETCPU = getattr(ctypes.CDLL(None), "sched_getcpu", None)


def involuntary_switches() -> int:
    """How often the kernel has preempted this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------------- energy


class Rapl:
    """The processor's own energy counters in microjoules, one for each package."""

    name = "rapl"

    def __init__(self, root: Path) -> None:
        folders = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
        own = [folder for folder in folders if folder.name.count(":") == 1]  # intel-rapl:0:0 is a part of intel-rapl:0
        self.packages = [folder for folder in own if (read_text(folder / "name") or "").startswith("package")]

    def usable(self) -> bool:
        files = [folder / name for folder in self.packages for name in ("energy_uj", "max_energy_range_uj")]
        return bool(files) and all(read_number(path) is not None for path in files)

    def begin(self) -> None:
        self.before, self.started_ns = self._read(), clock_ns()

    def end(self) -> tuple[int, int]:
        """Nanoseconds and microjoules since the beginning."""
        after, duration_ns = self._read(), clock_ns() - self.started_ns
        ranges = [_must(folder / "max_energy_range_uj") for folder in self.packages]
        spent = [new - old + (most if new < old else 0) for old, new, most in zip(self.before, after, ranges)]
        return duration_ns, sum(spent)

    def _read(self) -> list[int]:
        return [_must(folder / "energy_uj") for folder in self.packages]


class Ina3221:
    """A board's own power meters, as on Jetsons, sampled by a second thread."""

    EVERY_S = 0.01
    WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")

    def __init__(self, root: Path) -> None:
        chips = root / "sys/bus/i2c/drivers"
        rails: list[tuple[str, list[Path]]] = []
        for label in sorted(chips.glob("ina3221*/*/hwmon/hwmon*/in[0-9]_label")):
            number = label.name[2]
            if number != "7":  # the sum of the others' shunts
                rails.append((read_text(label) or "NC", [label.with_name(f"{kind}{number}_input") for kind in ("in", "curr")]))
        for label in sorted(chips.glob("ina3221*/*/iio:device*/rail_name_[0-9]")):
            rails.append((read_text(label) or "NC", [label.with_name(f"in_power{label.name[-1]}_input")]))
        whole = [rail for rail in rails if rail[0] in self.WHOLE_BOARD]
        self.rails = whole or [rail for rail in rails if rail[0] != "NC"]
        self.name = "ina3221: " + ", ".join(name for name, _ in self.rails)

    def usable(self) -> bool:
        return bool(self.rails) and all(read_number(path) is not None for _, paths in self.rails for path in paths)

    def begin(self) -> None:
        self.samples = [self._sample()]
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def end(self) -> tuple[int, int]:
        """Nanoseconds and microjoules since the beginning."""
        self.over.set()
        self.thread.join()
        self.samples.append(self._sample())
        areas = [(t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in zip(self.samples, self.samples[1:])]
        return self.samples[-1][0] - self.samples[0][0], max(0, round(sum(areas) / 1e9))

    def _watch(self) -> None:
        while not self.over.wait(self.EVERY_S):
            try:
                self.samples.append(self._sample())
            except OSError:  # a lost sample is interpolated; only the first and the last are needed
                continue

    def _sample(self) -> tuple[int, int]:
        """The time in nanoseconds and the power in microwatts: millivolts times milliamperes, or milliwatts on older boards."""
        return clock_ns(), sum(math.prod(map(_must, paths)) * (1 if len(paths) == 2 else 1000) for _, paths in self.rails)


def _must(path: Path) -> int:
    value = read_number(path)
    if value is None:
        raise OSError(f"{path} cannot be read any more")
    return value


# ------------------------------------------------------------------------------------------------------------------ the job


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e9


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _cores(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and bool(value) and all(type(core) is int and 0 <= core < 8192 for core in value)
    )


def _models(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and _text(each.get("id")) and _text(each.get("file")) for each in value
    )


def _schedule(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and _whole(0)(each.get("round"))
        and isinstance(each.get("models"), list)
        and all(map(_text, each["models"]))
        for each in value
    )


FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is int and value == PROTOCOL,
    "runtime": lambda value: isinstance(value, str) and value in RUNTIMES,
    "threads": _whole(1),
    "seed": _whole(0),
    "cpus": _cores,
    "root": _text,
    "lease": lambda value: value is None or _text(value),
    "measurement_ms": _number,
    "warmup_ms": _number,
    "sample_ms": _number,
    "min_samples": _whole(1),
    "min_round_s": _number,
    "silence_s": lambda value: _number(value) and value > 0,
    "memory_bytes": _whole(0),
    "max_open": _whole(1),
    "max_open_pools": _whole(1),
    "reference": lambda value: value is None or _text(value),
    "reference_every": _whole(1),
    "reference_ms": _number,
    "acknowledged": lambda value: isinstance(value, bool),
    "outputs": _whole(0),
    "energy_ms": _number,
    "models": _models,
    "schedule": _schedule,
}


def read_job(path: Path) -> dict[str, Any]:
    try:
        job = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise SystemExit(f"the job {path} cannot be read: {told(exc)}") from exc
    if not isinstance(job, dict):
        raise SystemExit(f"{path} is not a job")
    for name, makes_sense in FIELDS.items():
        if not makes_sense(job.get(name, ...)):  # not None, because null may be a valid value
            raise SystemExit(f"{name} of the job is missing or makes no sense to protocol {PROTOCOL}: {str(job.get(name))[:80]!r}")
    if job["outputs"] and job["energy_ms"]:
        raise SystemExit("a job is for outputs or for energy, not for both")
    known = {model["id"] for model in job["models"]}
    unknown = {name for entry in job["schedule"] for name in entry["models"]} | {job["reference"] or ""} - {""}
    if unknown - known:
        raise SystemExit(f"the job's schedule or reference names {min(unknown - known)[:80]!r}, which is none of its models")
    return job


def take_lease(path: str) -> int:
    """The descriptor of the lease file, locked until it is closed, so that runners of two hosts never measure at once."""
    writable = True
    try:
        try:
            lease = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user made the file; it can be locked nevertheless
            lease, writable = os.open(path, os.O_RDONLY), False
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.read(lease, 500).decode(errors="replace").strip()
        say("busy", holder=holder)
        raise SystemExit(f"another runner holds the lease {path}: {holder!r}") from exc
    except OSError as exc:
        raise SystemExit(f"the lease cannot be had: {told(exc)}") from exc
    if writable:
        os.ftruncate(lease, 0)
        os.write(lease, f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}\n".encode())
    return lease


def pin(cpus: list[int]) -> None:
    """Keep this process and all its later threads on these cores."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system cannot keep a process on cores")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as exc:
        raise SystemExit(f"the system does not let this process run on cores {cpus}: {exc.strerror}") from exc
    refused = sorted(set(cpus) - os.sched_getaffinity(0))
    if refused:
        raise SystemExit(f"the system does not let this process run on cores {refused}")


def told(exc: BaseException) -> str:
    """An exception in one line, with its cause if it has one."""
    cause = f" ({type(exc.__cause__).__name__}: {exc.__cause__})" if exc.__cause__ else ""
    return " ".join(f"{type(exc).__name__}: {exc}{cause}".split())[:500]


def say(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps(dict(values, event=event), separators=(",", ":"), allow_nan=False) + "\n")
    sys.stdout.flush()


class Host:
    """The process at the other end of standard input. Each byte from there acknowledges one result."""

    def __init__(self, acknowledges: bool) -> None:
        self.acknowledges, self.owed = acknowledges, 0

    def told(self) -> None:
        """Count a result that was sent."""
        self.owed += int(self.acknowledges)

    def has_everything(self) -> bool:
        self.listen(0.0)
        return not self.owed

    def wait(self) -> None:
        """Wait until all results are acknowledged, but no longer than PATIENCE_S: the host may have missed a line."""
        until = time.monotonic() + PATIENCE_S
        while self.owed and time.monotonic() < until:
            self.listen(until - time.monotonic())
        self.owed = 0

    def listen(self, wait_s: float) -> None:
        """Read acknowledgements for up to `wait_s`. Ends this process if the host has closed standard input."""
        readable, _, _ = select.select([sys.stdin], [], [], max(0.0, wait_s))
        if readable:
            came = os.read(sys.stdin.fileno(), 4096)
            if not came:
                raise SystemExit("the host is gone")
            self.owed = max(0, self.owed - len(came))


# ---------------------------------------------------------------------------------------------------------------- measuring


class OpenModels:
    """Keeps models open within bounds on their number and memory; the least recently used are closed first."""

    MEMORY_PER_FILE_BYTE = 3  # weights, a packed copy of them, and activations

    def __init__(self, runtime: Any, folder: Path, job: dict[str, Any]) -> None:
        self.runtime, self.folder, self.seed = runtime, folder, job["seed"]
        self.max_bytes = job["memory_bytes"]
        self.max_open = job["max_open"] if runtime.many_open else job["max_open_pools"]
        self.open_models: OrderedDict[str, tuple[Opened, int]] = OrderedDict()

    def get(self, model: dict[str, Any]) -> Opened:
        """The open model. If it was not open, it has been run once and its outputs have been checked."""
        if model["id"] in self.open_models:
            self.open_models.move_to_end(model["id"])
            return self.open_models[model["id"]][0]
        path = Path(self.folder, model["file"])
        size = path.stat().st_size * self.MEMORY_PER_FILE_BYTE
        while self.open_models and (len(self.open_models) >= self.max_open or size + self._bytes() > self.max_bytes):
            self.open_models.popitem(last=False)
        opened = run_once(self.runtime, path, self.seed)
        self.open_models[model["id"]] = (opened, size)
        return opened

    def _bytes(self) -> int:
        return sum(size for _, size in self.open_models.values())


def run_once(runtime: Any, path: Path, seed: int) -> Opened:
    opened: Opened = runtime.open(path, seed)
    opened.run()
    if not all(output.is_finite() for output in opened.outputs()):
        raise ValueError("its outputs are not finite")
    return opened


class Work:
    """A job: measurements of latency, outputs or energy, each reported in a line."""

    def __init__(self, job: dict[str, Any], models: OpenModels, device: Device) -> None:
        self.job, self.open_models, self.device = job, models, device
        self.models = {model["id"]: model for model in job["models"]}
        self.refused: set[str] = set()
        self.host = Host(job["acknowledged"])
        self.event = "outputs" if job["outputs"] else "energy" if job["energy_ms"] else "measurement"

    def do(self) -> None:
        for entry in self.job["schedule"]:
            started_ns = clock_ns()
            say("round", round=entry["round"], clock_ns=started_ns, **self.device.conditions())
            if self.event == "energy":
                say("idle", round=entry["round"], **self.idle())
            self.one_round(entry["round"], entry["models"])
            time.sleep(max(0.0, self.job["min_round_s"] - (clock_ns() - started_ns) / 1e9))
        say("done", **self.device.conditions())

    def one_round(self, number: int, names: list[str]) -> None:
        measurements = 0
        for name in names:
            if name in self.refused:
                continue
            self.host.listen(0.0)
            if self.event == "measurement" and measurements % self.job["reference_every"] == 0:
                self.look_at_reference(number)
            if name not in self.refused:  # it may be the reference, and have failed just now
                self.attempt(self.event, name, number)
                measurements += 1

    def look_at_reference(self, number: int) -> None:
        name = self.job["reference"]
        if name is not None and name not in self.refused:
            self.attempt("reference", name, number)

    def attempt(self, event: str, name: str, number: int) -> None:
        """Measure a model and report it. A `begin` line goes first, so that the host knows which model crashed the process."""
        say("begin", model=name, round=number)
        signal.setitimer(signal.ITIMER_REAL, self.job["silence_s"])
        try:
            seen = getattr(self, event)(self.open_models.get(self.models[name]))
        except Exception as exc:  # runtimes' own exceptions share no other base; it is reported
            self.refused.add(name)
            event, seen = "failed", {"reason": told(exc)}
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(event, model=name, round=number, **seen)
        self.host.told()

    def measurement(self, opened: Opened) -> dict[str, Any]:
        return self.sample(opened.run, self.job["measurement_ms"])

    def reference(self, opened: Opened) -> dict[str, Any]:
        return self.sample(opened.run, self.job["reference_ms"])

    def outputs(self, opened: Opened) -> dict[str, Any]:
        return {"outputs": [output.told(self.job["outputs"]) for output in opened.outputs()]}

    def idle(self) -> dict[str, Any]:
        return self.watched(lambda: time.sleep(self.job["energy_ms"] / 1e3))[1]

    def energy(self, opened: Opened) -> dict[str, Any]:
        def run() -> int:
            until, inferences = clock_ns() + self.job["energy_ms"] * 1e6, 0
            while clock_ns() < until or not inferences:
                opened.run()
                inferences += 1
            return inferences

        self.get_ready(opened.run)
        inferences, seen = self.watched(run)
        return dict(seen, inferences=inferences)

    def watched(self, work: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
        """The result of the work, and its duration and energy."""
        assert self.device.energy is not None
        self.device.energy.begin()
        try:
            result = work()
        finally:
            duration_ns, energy_uj = self.device.energy.end()
        return result, {"duration_ns": duration_ns, "energy_uj": energy_uj}

    def get_ready(self, run: Callable[[], object]) -> int:
        """Warm up, and wait until the host has acknowledged every result so far. Returns the shortest run in nanoseconds.

        If the host dies, only one measurement is lost: the one it has not acknowledged, or the one that begins now.
        """
        shortest_ns = self.warm_up(run)
        soon = clock_ns() + SOON_NS
        while not self.host.has_everything() and clock_ns() < soon:  # to stay warm until the answer is there
            shortest_ns = min(shortest_ns, _timed(run))
        if self.host.owed:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the wait is for the host, and the model not to blame
            self.host.wait()
            signal.setitimer(signal.ITIMER_REAL, self.job["silence_s"])
            shortest_ns = min(shortest_ns, self.warm_up(run))
        return shortest_ns

    def warm_up(self, run: Callable[[], object]) -> int:
        """The shortest run in nanoseconds, except the first, which is cold. A run that was disturbed would be too long, and the
        number of inferences in a sample computed from it too small."""
        start = clock_ns()
        once_ns = [_timed(run)]
        while len(once_ns) < 3 or clock_ns() - start < self.job["warmup_ms"] * 1e6:
            once_ns.append(_timed(run))
        return min(once_ns[1:])

    def sample(self, run: Callable[[], object], measurement_ms: float) -> dict[str, Any]:
        """Warm up, then take samples for `measurement_ms`: nanoseconds of each, inferences in each, and which were disturbed."""
        loops = max(1, -int(-self.job["sample_ms"] * 1e6 // self.get_ready(run)))
        samples_ns: list[int] = []
        switched: list[int] = []
        khz = self.device.fastest_khz()
        start = clock_ns()
        while len(samples_ns) < self.job["min_samples"] or clock_ns() - start < measurement_ms * 1e6:
            switches = involuntary_switches()
            before = clock_ns()
            for _ in range(loops):
                run()
            samples_ns.append(max(1, clock_ns() - before))
            if involuntary_switches() != switches:
                switched.append(len(samples_ns) - 1)
        core, after_khz = current_core(), self.device.fastest_khz()
        clock_khz = None if khz is None or after_khz is None else [khz, after_khz]
        seen = {"started_ns": start, "loops": loops, "samples_ns": samples_ns, "switched": switched}
        return dict(seen, clock_khz=clock_khz, core=core)


def _timed(run: Callable[[], object]) -> int:
    before = clock_ns()
    run()
    return max(1, clock_ns() - before)


def run_job(path: Path) -> None:
    job = read_job(path)
    lease = None if job["lease"] is None else take_lease(job["lease"])
    if job["cpus"] is not None:
        pin(job["cpus"])
    device = Device(Path(job["root"]))
    if job["energy_ms"] and device.energy is None:
        raise SystemExit(
            "no energy can be read here: neither a processor's counters (often root's alone) nor a board's power meters"
        )
    runtime = load_runtime(job["runtime"], job["threads"], path.resolve().parent)
    say(
        "hello",
        protocol=PROTOCOL,
        runner="python",
        build=None,
        runtime=job["runtime"],
        version=runtime.version,
        library_sha256=sha256(runtime.library_path) if runtime.library_path else None,
        flags=runtime.flags,
        runner_sha256=sha256(Path(__file__)),
        affinity=affinity(),
        pid=os.getpid(),
        energy_source=device.energy and device.energy.name,
        device=device.facts(),
    )
    gc.disable()  # a collection would disturb a sample, and there is next to nothing to collect
    Work(job, OpenModels(runtime, path.parent, job), device).do()
    if lease is not None:
        os.close(lease)


# -------------------------------------------------------------------------------------------------------------------- probe


def probe(folder: Path) -> None:
    device = Device(Path("/"))
    found = {name: try_runtime(name, folder) for name, runtime in RUNTIMES.items() if runtime is not Fake}
    source = device.energy and device.energy.name
    conditions = device.conditions()
    say("probe", protocol=PROTOCOL, runner="python", device=device.facts(), energy_source=source, runtimes=found, **conditions)


def try_runtime(name: str, folder: Path) -> dict[str, Any]:
    """The runtime's version, or why it cannot be used. It is tried in a child process, because it may crash or hang."""
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(PROBE_S)
        try:
            os.write(answer, json.dumps(answer_of(RUNTIMES[name], folder)).encode())
        finally:
            os._exit(0)
    os.close(answer)
    with os.fdopen(answers, "rb") as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"broken": f"it crashes the process by {signal.Signals(os.WTERMSIG(status)).name}"}
    return dict(json.loads(said)) if said else {"broken": "it ends the process"}


def answer_of(kind: Any, folder: Path) -> dict[str, Any]:
    try:
        runtime = kind(1, folder)
        run_once(runtime, folder / kind.model, seed=1)
    except ModuleNotFoundError as exc:
        return {"missing": True} if exc.name == kind.package else {"broken": told(exc)}
    except NotInThisBuild:
        return {"missing": True}
    except Exception as exc:  # a broken runtime may raise anything; it is reported
        return {"broken": told(exc)}
    return {"version": runtime.version}


def main(arguments: list[str]) -> None:
    for number in (signal.SIGALRM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if len(arguments) == 2 and arguments[0] == "--probe":
        probe(Path(arguments[1]))
    elif len(arguments) == 1 and not arguments[0].startswith("--"):
        run_job(Path(arguments[0]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
