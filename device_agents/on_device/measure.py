"""The runner: measures many models in one process on the device and tells what it saw in JSON lines.

    python measure.py job.json      run a job; one JSON object a line on standard output, each flushed
    python measure.py --probe       say what this device is and which runtimes it has

It is pushed to the device and run there, never imported by the host. It needs the standard library and one runtime (numpy comes
with that) and Python 3.8, so that a board's old interpreter will do. It ends when its standard input closes: the host is gone.

Models stay open within a memory bound and are visited in shuffled rounds. A visit warms the model up and then takes samples; a
sample is as many inferences as last at least `sample_ms`, so that reading the clock costs nothing. What disturbed a visit is told
with it: samples during which the kernel took the process off its core, the clock before and after. Every so often there is a short
look at one reference model, so that the host can see the device change its speed. A line "begin" goes out before each visit: when a
model takes the process down, the host knows which. These lines are the heartbeat too: one from another thread would go on while a
model hangs. Nothing is averaged here: the host keeps every sample.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import platform
import random
import resource
import select
import signal
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, Iterable, Tuple, cast  # noqa: UP035  Python 3.8 has no collections.abc.Callable[...]

PROTOCOL = 2
UNREADABLE = "not readable"
Opened = Tuple[Callable[[], object], Callable[[], Any]]  # noqa: UP006
"""What opening a model gives: its run function, and one that fetches the outputs."""


# ---------------------------------------------------------------------------------------------------------------- runtimes


class OnnxRuntime:
    """ONNX Runtime on the CPU, inputs and outputs bound beforehand so that a run copies and allocates nothing."""

    module = "onnxruntime"

    def __init__(self, threads: int) -> None:
        import numpy
        import onnxruntime

        self.numpy, self.ort = numpy, onnxruntime
        self.version = onnxruntime.__version__
        self.library_path = _newest(
            Path(onnxruntime.__file__).parent / "capi", ("onnxruntime_pybind11_state*", "libonnxruntime.so*")
        )
        self.flags = {"providers": ["CPUExecutionProvider"], "graph_optimization": "all", "inter_op_threads": 1, "io_binding": True}
        self.options = onnxruntime.SessionOptions()
        # a pool for each open model would leave many of them spinning and fighting over the cores
        shared = threads > 1 and hasattr(onnxruntime, "set_global_thread_pool_sizes")
        if shared:
            onnxruntime.set_global_thread_pool_sizes(threads, 1)
            self.options.use_per_session_threads = False
            self.flags["thread_pool"] = "one, shared by all models"
        self.many_open = shared or threads == 1
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3

    def open(self, path: Path, rng: random.Random) -> Opened:
        session = self.ort.InferenceSession(str(path), self.options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for value in session.get_inputs():
            array = _inputs(self.numpy, rng, value.shape, _numpy_type(value.type))
            binding.bind_ortvalue_input(value.name, self.ort.OrtValue.ortvalue_from_numpy(array))
        for value in session.get_outputs():
            binding.bind_output(value.name)
        session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        for value, output in zip(session.get_outputs(), outputs):
            binding.bind_ortvalue_output(value.name, output)
        return lambda: session.run_with_iobinding(binding), lambda: [output.numpy() for output in outputs]


class LiteRt:
    """LiteRT, the successor of TensorFlow Lite, with its default XNNPACK delegate."""

    module = "ai_edge_litert.interpreter"
    package = "ai_edge_litert"
    libraries: tuple[str, ...] = ("libpywrap_litert_common.so", "_pywrap*.so")
    many_open = True  # XNNPACK's workers sleep between runs

    def __init__(self, threads: int) -> None:
        import numpy

        self.numpy, self.threads = numpy, threads
        self.flags = {"delegate": "XNNPACK, as the runtime applies it by default"}
        self.interpreter = importlib.import_module(self.module).Interpreter
        self.version = _distribution_version(self.package)
        self.library_path = _newest(Path(str(importlib.import_module(self.package).__file__)).parent, self.libraries)

    def open(self, path: Path, rng: random.Random) -> Opened:
        interpreter = self.interpreter(model_path=str(path), num_threads=self.threads)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], _inputs(self.numpy, rng, detail["shape"], detail["dtype"]))
        details = interpreter.get_output_details()
        return interpreter.invoke, lambda: [interpreter.get_tensor(detail["index"]) for detail in details]


class TfliteRuntime(LiteRt):
    """tflite-runtime, LiteRT's predecessor: its last release needs numpy 1 and Python 3.11 or older."""

    module = "tflite_runtime.interpreter"
    package = "tflite_runtime"
    libraries = ("_pywrap*.so",)


class Fake:
    """No runtime at all: a model is a JSON file saying how it behaves. For tests of the host, chosen by name only."""

    module = "json"
    many_open = True

    def __init__(self, threads: int) -> None:
        self.version, self.library_path = "0", Path(__file__)
        self.flags = {"simulated": True}

    def open(self, path: Path, rng: random.Random) -> Opened:
        script = json.loads(Path(path).read_text())
        if "error" in script:
            raise RuntimeError(script["error"])

        def run() -> None:
            if script.get("crash"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if script.get("hang"):
                time.sleep(3600)
            until = clock_ns() + script["latency_ns"]
            while clock_ns() < until:
                pass

        return run, list


RUNTIMES: dict[str, Any] = {"onnxruntime": OnnxRuntime, "litert": LiteRt, "tflite-runtime": TfliteRuntime, "fake": Fake}


def _numpy_type(name: str) -> str:
    """'tensor(float)' as ONNX Runtime says it, as numpy does."""
    inner = name[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(inner, inner)


def _inputs(numpy: Any, rng: random.Random, shape: Any, dtype: Any) -> Any:
    """Seeded values: uniform in [-1, 1) for floats, small whole numbers else, so that indices stay in range."""
    size = 1
    for length in shape:
        if not isinstance(length, int) and not hasattr(length, "__index__"):
            raise ValueError(f"input of dynamic shape {list(shape)}")
        size *= int(length)
    dtype = numpy.dtype(dtype)
    generator = numpy.random.RandomState(rng.randrange(2**31))
    if dtype.kind == "f":
        values = generator.uniform(-1.0, 1.0, size)
    else:
        values = generator.randint(0, 2 if dtype.kind == "b" else 8, size)
    return values.astype(dtype).reshape([int(length) for length in shape])


def _all_finite(outputs: Any) -> bool:
    for output in outputs:
        if output.dtype.kind == "f" and not abs(output).max(initial=0) < float("inf"):  # a NaN compares false
            return False
    return True


def _distribution_version(package: str) -> str:
    from importlib import metadata

    return metadata.version({"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}.get(package, package))


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


def read_text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def cpu_model() -> str:
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware", "Processor"):
            return value.strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def governor() -> str:
    found = sorted(
        {read_text(path) or UNREADABLE for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    )
    return "+".join(found) or UNREADABLE


def temperature_c() -> float | None:
    """Of the hottest zone, or None where none can be read."""
    values = [read_text(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    numbers = [int(value) / 1000 for value in values if value and value.lstrip("-").isdigit()]
    return max(numbers) if numbers else None


def load_1min() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def device_facts() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "governor": governor(),
        "python": platform.python_version(),
    }


CLOCK_FILES = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))


def frequencies_khz() -> list[int] | None:
    values = [read_text(path) for path in CLOCK_FILES]
    return [int(value) for value in values if value and value.isdigit()] or None


def fastest_khz() -> int | None:
    """The clock of the fastest core, which is the one at work."""
    found = frequencies_khz()
    return max(found) if found else None


def throttled() -> int | None:
    """How often cores were slowed down for their heat since the device started; None where it is not told."""
    values = [read_text(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    numbers = [int(value) for value in values if value and value.isdigit()]
    return sum(numbers) if numbers else None


def conditions() -> dict[str, Any]:
    return {
        "load_1min": load_1min(),
        "frequencies_khz": frequencies_khz(),
        "temperature_c": temperature_c(),
        "throttled": throttled(),
    }


def sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def involuntary_switches() -> int:
    """How often the kernel has taken this process off its core."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def say(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps(dict(values, event=event), separators=(",", ":")) + "\n")
    sys.stdout.flush()


def host_is_gone() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and os.read(sys.stdin.fileno(), 4096) == b""


# -------------------------------------------------------------------------------------------------------------- measuring


class OpenModels:
    """Keeps models open, least recently used out first, within a bound on their number and on their files' size."""

    # a session needs its weights, a packed copy of them and its activations: about three times the file
    MEMORY_PER_FILE_BYTE = 3

    def __init__(self, runtime: Any, folder: Path, job: dict[str, Any]) -> None:
        self.runtime, self.folder, self.seed = runtime, folder, job["seed"]
        self.max_bytes = job["memory_bytes"]
        self.max_open = job["max_open"] if runtime.many_open else job["max_open_pools"]
        self.open_models: OrderedDict[str, tuple[Callable[[], object], int]] = OrderedDict()

    def get(self, model: dict[str, Any]) -> Callable[[], object]:
        """Its run function; opened, run once and its outputs checked if it is not open yet."""
        if model["id"] in self.open_models:
            self.open_models.move_to_end(model["id"])
            return self.open_models[model["id"]][0]
        path = Path(self.folder, model["file"])
        size = path.stat().st_size * self.MEMORY_PER_FILE_BYTE
        while self.open_models and (len(self.open_models) >= self.max_open or size + self._bytes() > self.max_bytes):
            self.open_models.popitem(last=False)
        run, outputs = cast(Opened, self.runtime.open(path, random.Random(self.seed)))
        run()
        if not _all_finite(outputs()):
            raise ValueError("its outputs are not finite")
        self.open_models[model["id"]] = (run, size)
        return run

    def _bytes(self) -> int:
        return sum(size for _, size in self.open_models.values())


def visit(run: Callable[[], object], job: dict[str, Any], visit_ms: float) -> dict[str, Any]:
    """Warm up, then sample for `visit_ms`: nanoseconds of each sample, inferences per sample, and which samples were disturbed."""
    start = clock_ns()
    once_ns = [_timed(run)]
    while len(once_ns) < 3 or clock_ns() - start < job["warmup_ms"] * 1e6:
        once_ns.append(_timed(run))
    # any one run may be disturbed, the first is cold: taken for longer than they are, samples would become too short
    loops = max(1, -int(-job["sample_ms"] * 1e6 // min(once_ns[1:])))
    samples_ns: list[int] = []
    switched: list[int] = []
    khz = fastest_khz()
    start = clock_ns()
    while len(samples_ns) < job["min_samples"] or clock_ns() - start < visit_ms * 1e6:
        switches = involuntary_switches()
        before = clock_ns()
        for _ in range(loops):
            run()
        samples_ns.append(clock_ns() - before)
        if involuntary_switches() != switches:
            switched.append(len(samples_ns) - 1)
    clock_khz = [khz, fastest_khz()] if khz else None
    return {"started_ns": start, "loops": loops, "samples_ns": samples_ns, "switched": switched, "clock_khz": clock_khz}


def _timed(run: Callable[[], object]) -> int:
    before = clock_ns()
    run()
    return max(1, clock_ns() - before)


def measure(model: dict[str, Any], models: OpenModels, round_number: int, job: dict[str, Any], reference: bool = False) -> bool:
    """One visit, or one look at the reference, told in a line. False if the model cannot be run at all."""
    say("begin", model=model["id"], round=round_number)
    try:
        seen = visit(models.get(model), job, job["reference_ms"] if reference else job["visit_ms"])
    except Exception as exc:  # runtimes' own exceptions share no other base; it is told, not hidden
        say("failed", model=model["id"], round=round_number, reason=f"{type(exc).__name__}: {exc}"[:500])
        return False
    say("reference" if reference else "visit", model=model["id"], round=round_number, **seen)
    return True


def run_job(path: str) -> None:
    job = json.loads(Path(path).read_text())
    if job.get("format") != PROTOCOL:
        raise SystemExit("this runner speaks job format {}, not {}".format(PROTOCOL, job.get("format")))
    if job.get("cpus") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cpus"])
    runtime = RUNTIMES[job["runtime"]](job["threads"])
    say(
        "hello",
        protocol=PROTOCOL,
        device=device_facts(),
        runtime=job["runtime"],
        version=runtime.version,
        library_sha256=sha256(runtime.library_path) if runtime.library_path else None,
        flags=runtime.flags,
        runner_sha256=sha256(__file__),
        affinity=affinity(),
        pid=os.getpid(),
    )
    gc.disable()  # it would run in the middle of a sample; there is next to nothing to collect
    open_models = OpenModels(runtime, Path(path).parent, job)
    models = {model["id"]: model for model in job["models"]}
    refused: set[str] = set()
    for entry in job["schedule"]:
        started_ns = clock_ns()
        say("round", round=entry["round"], clock_ns=started_ns, **conditions())
        order = list(entry["models"])
        random.Random("{}-{}".format(job["seed"], entry["round"])).shuffle(order)
        for place, name in enumerate(order):
            if host_is_gone():
                raise SystemExit("the host is gone")
            if job["reference"] is not None and place % job["reference_every"] == 0:
                measure(models[job["reference"]], open_models, entry["round"], job, reference=True)
            if name not in refused and not measure(models[name], open_models, entry["round"], job):
                refused.add(name)
        time.sleep(max(0.0, job["min_round_s"] - (clock_ns() - started_ns) / 1e9))
    say("done", **conditions())


def probe() -> None:
    """What the device is, and each runtime's version or why it cannot be used."""
    found = {}
    for name, runtime in RUNTIMES.items():
        if runtime is Fake:
            continue
        try:
            found[name] = {"version": runtime(1).version}
        except ImportError:
            found[name] = {"missing": True}
        except (OSError, RuntimeError, AttributeError, SystemError) as exc:
            found[name] = {"broken": f"{type(exc).__name__}: {exc}"[:300]}
    say("probe", protocol=PROTOCOL, device=device_facts(), runtimes=found, **conditions())


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe"]:
        probe()
    elif len(sys.argv) == 2:
        run_job(sys.argv[1])
    else:
        raise SystemExit(__doc__)
