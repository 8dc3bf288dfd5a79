"""The Python runner: what every runner must do, and what only it can."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, ValueInfoProto, helper
from packed_runner import packed_runner
from runner_conformance import CONDITIONING, Line, RunnerConformance, events, expected_input, model_of, run, told, written
from runner_conformance_executed import ExecutedConformance

from device_agents import python_runner
from device_agents.on_device.runner import measuring
from device_agents.on_device.runner.executed import Executed, Inference, Ran
from device_agents.on_device.runner.inputs import input_array
from device_agents.on_device.runner.job import Job, read_job
from device_agents.on_device.runner.open_models import OpenModels, in_turn
from device_agents.on_device.runner.runtimes.fake import Fake
from device_agents.on_device.runner.runtimes.interface import Opened
from device_agents.on_device.runner.runtimes.onnxruntime_profile import read_profile
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d

COMMAND = [sys.executable, packed_runner()]
NUMPY_TYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64", "uint64", "bool")


class TestMeasurePy(RunnerConformance, ExecutedConformance):
    @pytest.fixture
    def command(self) -> list[str]:
        return COMMAND


# ------------------------------------------------------------------------------------------------------------------- archive


def test_the_same_modules_are_packed_into_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(python_runner.ON_DEVICE, tmp_path / "device_agents" / "on_device")
    here = python_runner.packed()
    monkeypatch.setattr(python_runner, "ON_DEVICE", tmp_path / "device_agents" / "on_device")
    for path in sorted(tmp_path.rglob("*.py"), reverse=True):
        path.touch()
    assert python_runner.packed() == here


def test_it_is_packed_by_hand_with_one_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "device_agents.python_runner", str(tmp_path / "runner.pyz")])
    assert (done.returncode, (tmp_path / "runner.pyz").read_bytes()) == (0, python_runner.packed())


def test_it_runs_where_this_package_is_not_installed_nor_compression(tmp_path: Path) -> None:
    without_zlib = (
        "import runpy, sys; sys.modules['zlib'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    job = written(tmp_path, {"a": CONDITIONING}, ["a"])
    lines, code, stderr = run([sys.executable, "-I", "-S", "-c", without_zlib, packed_runner(), job])
    assert (code, told(lines)[-1]) == (0, "done"), stderr


# -------------------------------------------------------------------------------------------------------------------- inputs


@given(
    seed=st.integers(0, 2**63 - 1),
    place=st.integers(0, 5),
    kind=st.sampled_from(NUMPY_TYPES),
    shape=st.lists(st.integers(0, 7), max_size=4),
)
def test_arrays_are_filled_by_the_formula(seed: int, place: int, kind: str, shape: list[int]) -> None:
    array = input_array(seed, place, shape, kind)
    expected = numpy.array(expected_input(seed, place, kind, array.size), dtype=kind).reshape(shape)
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [[1, "batch"], [None, 3], [-1, 3]])
def test_there_is_no_input_of_a_dynamic_shape(shape: list[Any]) -> None:
    with pytest.raises(ValueError, match="dynamic"):
        input_array(1, 0, shape, "float32")


@pytest.mark.parametrize("kind", ["string", numpy.bytes_, numpy.object_])
def test_text_is_not_made_up_and_the_next_step_is_told(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"input of text, .*; give the part of the network that works on numbers alone$"):
        input_array(1, 0, [3], kind)


# ------------------------------------------------------------------------------------------------------------- real runtimes


def convolution(suffix: str) -> bytes:
    return FORMATS[suffix].write(Graph.of_layer(conv2d((1, 8, 8, 3), 16, 3, activation="relu6")))


def job_for(folder: Path, runtime: str, model: bytes, **more: Any) -> str:
    suffix = "onnx" if runtime.startswith("onnxruntime") else "tflite"
    (folder / f"conv.{suffix}").write_bytes(model)
    return written(folder, {}, ["a"], runtime=runtime, models=[model_of("a", f"conv.{suffix}")], **more)


def told_outputs(path: str) -> list[dict[str, Any]]:
    lines, code, stderr = run([*COMMAND, path])
    assert code == 0, stderr
    (line,) = events(lines, "outputs")
    return list(line["outputs"])


def array(seed: int, place: int, shape: Sequence[int]) -> numpy.ndarray[Any, Any]:
    size = int(numpy.prod(shape))
    return numpy.array(expected_input(seed, place, "float32", size), dtype="float32").reshape(shape)


def as_told(outputs: Sequence[numpy.ndarray[Any, Any]]) -> list[dict[str, Any]]:
    return [{"shape": list(each.shape), "type": str(each.dtype), "values": each.reshape(-1).tolist()} for each in outputs]


def test_outputs_are_those_of_onnx_runtime_itself(tmp_path: Path) -> None:
    model = convolution("onnx")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {value.name: array(7, place, value.shape) for place, value in enumerate(session.get_inputs())}
    assert told_outputs(job_for(tmp_path, "onnxruntime", model, seed=7, outputs=10**6)) == as_told(session.run(None, feeds))


def test_outputs_are_those_of_litert_itself(tmp_path: Path) -> None:
    model = convolution("tflite")
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    for place, detail in enumerate(interpreter.get_input_details()):
        interpreter.set_tensor(detail["index"], array(7, place, [int(length) for length in detail["shape"]]))
    interpreter.invoke()
    outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    assert told_outputs(job_for(tmp_path, "litert", model, seed=7, outputs=10**6)) == as_told(outputs)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize("threads", [1, 2])
def test_real_models_are_measured(tmp_path: Path, runtime: str, threads: int) -> None:
    model = convolution("onnx" if runtime == "onnxruntime" else "tflite")
    lines, code, stderr = run([*COMMAND, job_for(tmp_path, runtime, model, threads=threads)])
    assert code == 0, stderr
    assert told(lines) == ["hello", "round 0", "begin a", "measurement a", "done"]
    assert lines[0]["library_sha256"] is not None


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_file_that_is_no_model_fails_alone(tmp_path: Path, runtime: str) -> None:
    lines, code, _ = run([*COMMAND, job_for(tmp_path, runtime, b"garbage")])
    assert (code, told(events(lines, "failed"))) == (0, ["failed a"])


# --------------------------------------------------------------------------------------------------------------------- probe


def probed(folder: Path) -> dict[str, Any]:
    for suffix in ("onnx", "tflite"):
        (folder / f"probe.{suffix}").write_bytes(convolution(suffix))
    (line,), code, stderr = run([*COMMAND, "--probe", str(folder)])
    assert code == 0, stderr
    return dict(line["runtimes"])


def package(folder: Path, name: str, files: Mapping[str, str]) -> Path:
    """A package of that name, found before the installed one; the folder for PYTHONPATH."""
    path = folder / "packages" / name
    path.mkdir(parents=True)
    for file, text in {"__init__.py": "", **files}.items():
        (path / file).write_text(text)
    return path.parent


def test_onnxruntime_leaves_nothing_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert "version" in probed(tmp_path)["onnxruntime"]
    assert list((tmp_path / "home").iterdir()) == []


def test_a_probe_runs_a_model_on_each_runtime(tmp_path: Path) -> None:
    found = probed(tmp_path)
    assert set(found) == {"onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "litert", "tflite-runtime"}
    assert found["onnxruntime"] == {"version": onnxruntime.__version__}
    assert "version" in found["litert"]


def test_a_provider_that_is_not_in_the_build_is_missing(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider; install onnxruntime instead of onnxruntime-gpu for this test")
    assert probed(tmp_path)["onnxruntime-cuda"] == {"missing": True}


BREAKS_LATER = """
class Interpreter:
    def __init__(self, model_path, num_threads):
        raise SystemError("numpy.core.multiarray\\nfailed to import")
"""


@pytest.mark.parametrize(
    ("interpreter", "reason"),
    [
        (BREAKS_LATER, "SystemError: numpy.core.multiarray failed to import"),
        ("import no_such_module", "no_such_module"),
        ("raise ImportError('libthing.so.1: cannot open shared object file')", "libthing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL"),
        ("import os; os._exit(3)", "ends the process"),
    ],
)
def test_a_runtime_that_is_there_but_does_not_work_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str, reason: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(package(tmp_path, "tflite_runtime", {"interpreter.py": interpreter})))
    found = probed(tmp_path)
    assert reason in found["tflite-runtime"]["broken"]
    assert "version" in found["litert"]


without_tflite_runtime = pytest.mark.skipif(
    importlib.util.find_spec("tflite_runtime") is not None, reason="tflite-runtime is here; uninstall it for this test"
)


@without_tflite_runtime
def test_a_runtime_that_is_not_there_is_missing(tmp_path: Path) -> None:
    assert probed(tmp_path)["tflite-runtime"] == {"missing": True}


@without_tflite_runtime
def test_a_job_for_a_runtime_that_is_not_there_says_which_module(tmp_path: Path) -> None:
    lines, code, stderr = run([*COMMAND, job_for(tmp_path, "tflite-runtime", b"")])
    assert (lines, code > 0) == ([], True)
    assert stderr == "ModuleNotFoundError: No module named 'tflite_runtime'\n"


def test_a_job_for_a_broken_runtime_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(package(tmp_path, "tflite_runtime", {"interpreter.py": "raise OSError('no luck')"})))
    lines, code, stderr = run([*COMMAND, job_for(tmp_path, "tflite-runtime", b"")])
    assert (lines, code > 0, stderr) == ([], True, "tflite-runtime cannot be used: OSError: no luck\n")


# ------------------------------------------------------------------------------------------------- what a runtime executes

INTERPRETER = """
import numpy

class Interpreter:
    def __init__(self, model_path, num_threads):
        pass
    def allocate_tensors(self):
        pass
    def get_input_details(self):
        return []
    get_output_details = get_input_details
    def invoke(self):
        pass
"""


@pytest.mark.parametrize(("runtime", "name"), [("tflite-runtime", "tflite_runtime"), ("litert", "ai_edge_litert")])
def test_a_runtime_without_a_profiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, name: str) -> None:
    monkeypatch.setenv("PYTHONPATH", str(package(tmp_path, name, {"interpreter.py": INTERPRETER})))
    lines, code, stderr = run([*COMMAND, job_for(tmp_path, runtime, b"", profiled=2)])
    assert code == 0, stderr
    (line,) = events(lines, "executed")
    assert (line["graph"], line["inferences_us"], line["operators"]) == (None, [], [])
    assert ("does not tell" if runtime == "tflite-runtime" else "libLiteRt.so") in line["reason"]


def test_a_graph_that_is_too_large_is_not_told() -> None:
    assert Executed([], graph=bytes(8 << 20)).told()["graph"] is not None
    told_line = Executed([], graph=bytes((8 << 20) + 1)).told()
    assert told_line["graph"] is None
    assert "8388609 bytes" in told_line["reason"]


def test_an_operator_that_runs_twice_in_an_inference_has_the_sum_of_its_runs() -> None:
    twice, never, once = (Inference(50, [Ran("a", "Add", "cpu", 3, us) for us in runs]) for runs in ([10, 20], [], [5]))
    (operator,) = Executed([twice, never, once]).told()["operators"]
    assert operator["samples_us"] == [30, 0, 5]


def test_what_runs_inside_of_control_flow_is_part_of_it_at_every_depth(tmp_path: Path) -> None:
    """Each event is written when it ends."""
    ran = [("Relu", 10, 5), ("Sin", 22, 1), ("Cos", 24, 1), ("If", 23, 4), ("Loop", 21, 9), ("Exp", 31, 2)]
    profile: list[dict[str, Any]] = []
    for op, ts, dur in ran:
        args = {"op_name": op, "provider": "cpu", "node_index": "0"}
        profile.append({"cat": "Node", "name": f"{op}_kernel_time", "ts": ts, "dur": dur, "args": args})
    (tmp_path / "profile.json").write_text(json.dumps([*profile, {"cat": "Session", "name": "model_run", "ts": 9, "dur": 40}]))
    (inference,) = read_profile(tmp_path / "profile.json")
    assert [(each.op, each.duration_us) for each in inference.ran] == [("Relu", 5), ("Loop", 9), ("Exp", 2)]


LISTED = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)


@pytest.mark.parametrize(
    ("node", "output"),
    [
        (helper.make_node("SequenceConstruct", ["x"], ["y"]), LISTED),
        (
            helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16),
            helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [3]),
        ),
    ],
    ids=["a list of tensors", "a type that numpy lacks"],
)
def test_outputs_that_cannot_be_looked_at_are_not_told_of_as_not_finite(
    node: NodeProto, output: ValueInfoProto, tmp_path: Path
) -> None:
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    job = written(tmp_path, {}, ["a"], runtime="onnxruntime", models=[model_of("a", "a.onnx", finite=False)])
    lines, code, stderr = run([*COMMAND, job])
    assert code == 0, stderr
    assert told(lines)[1:4] == ["round 0", "begin a", "measurement a"]


def test_an_error_that_is_not_a_runtimes_is_not_taken_for_a_finite_output(tmp_path: Path) -> None:
    class Misspelt(Fake):
        def open(self, path: Path, seed: int, as_it_is: bool) -> Opened:
            return Opened(lambda: None, lambda: [path.nmae])  # type: ignore[attr-defined]

    job = read_job(Path(written(tmp_path, {"a": {"latency_ns": 1}}, ["a"], models=[model_of("a", "a.json", finite=False)])))
    with pytest.raises(AttributeError, match="nmae"):
        OpenModels(Misspelt(1, tmp_path), tmp_path, job).get(job["models"][0])


def test_runs_of_copies_come_in_turn() -> None:
    ran: list[str] = []
    copies = [Opened(partial(ran.append, name), list) for name in "abc"]
    opened = in_turn(copies)
    for _ in range(5):
        opened.run()
    assert ran == ["a", "b", "c", "a", "b"]


# ----------------------------------------------------------------------------------------------------------------------- GPU

PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}

SIMULATED_GPU = '''
"""ONNX Runtime with a GPU, as far as the runner uses it: a run returns at once, the work is done a millisecond later."""
import json, os, time
import numpy

__version__ = "9.9"
GIVEN = json.loads(os.environ["GIVEN"])

def get_available_providers():
    return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

class SessionOptions:
    optimized_model_filepath = profile_file_prefix = None
    def add_session_config_entry(self, name, value):
        pass

class OrtValue:
    def __init__(self, array, memory):
        self.array, self.memory = array, memory
    def numpy(self):
        return self.array
    @staticmethod
    def ortvalue_from_numpy(array, memory="cpu", device=0):
        return OrtValue(array, memory)

class Value:
    def __init__(self, name):
        self.name, self.shape, self.type = name, [2], "tensor(float)"

class Binding:
    def __init__(self, log):
        self.log, self.inputs, self.ready_at = log, {}, None
    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value
        self.log["inputs"] = value.memory
    def bind_output(self, name, memory="cpu"):
        self.log["outputs"] = memory
    def bind_ortvalue_output(self, name, value):
        self.log["kept"] = value.memory
    def get_outputs(self):
        return [OrtValue(self.inputs["x"].array * 2, self.log["outputs"])]
    def synchronize_outputs(self):
        time.sleep(max(0, self.ready_at - time.monotonic()))

class InferenceSession:
    def __init__(self, path, options, providers):
        if options.optimized_model_filepath:
            raise RuntimeError("Unable to serialize model as it contains compiled nodes")
        self.log, self.runs, self.prefix = {"providers": providers}, 0, options.profile_file_prefix
    def end_profiling(self):
        node = {"name": "engine_kernel_time", "args": {"op_name": "TRTKernel", "provider": GIVEN[0], "node_index": "4"}}
        each = [dict(node, cat="Node", ts=1, dur=5), {"cat": "Session", "name": "model_run", "ts": 0, "dur": 9}]
        with open(self.prefix + ".json", "w") as file:
            json.dump(self.runs * each, file)
        return file.name
    def get_providers(self):
        return GIVEN
    def get_inputs(self):
        return [Value("x")]
    def get_outputs(self):
        return [Value("y")]
    def io_binding(self):
        return Binding(self.log)
    def run_with_iobinding(self, binding):
        self.runs += 1
        binding.ready_at = time.monotonic() + 0.001
        open(os.environ["LOG"], "w").write(json.dumps(self.log))
'''


def on_simulated_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, given: Sequence[str], **more: Any
) -> tuple[list[Line], dict[str, Any]]:
    """The runner's lines, and what it asked of ONNX Runtime."""
    monkeypatch.setenv("PYTHONPATH", str(package(tmp_path, "onnxruntime", {"__init__.py": SIMULATED_GPU})))
    monkeypatch.setenv("GIVEN", json.dumps(given))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    lines, code, stderr = run([*COMMAND, job_for(tmp_path, runtime, b"model", **more)])
    assert code == 0, stderr
    return lines, json.loads((tmp_path / "log").read_text()) if (tmp_path / "log").exists() else {}


@pytest.mark.parametrize("runtime", PROVIDERS)
def test_a_gpu_is_waited_for_within_each_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    lines, _ = on_simulated_gpu(tmp_path, monkeypatch, runtime, [PROVIDERS[runtime], "CPUExecutionProvider"])
    (line,) = events(lines, "measurement")
    assert min(line["samples_ns"]) >= line["loops"] * 1_000_000


@pytest.mark.parametrize("runtime", PROVIDERS)
def test_inputs_and_outputs_lie_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    _, asked = on_simulated_gpu(tmp_path, monkeypatch, runtime, [PROVIDERS[runtime], "CPUExecutionProvider"])
    assert (asked["inputs"], asked["outputs"], asked["kept"]) == ("cuda", "cuda", "cuda")


def test_cuda_tries_every_convolution_algorithm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, asked = on_simulated_gpu(tmp_path, monkeypatch, "onnxruntime-cuda", ["CUDAExecutionProvider"])
    options = {"cudnn_conv_algo_search": "EXHAUSTIVE"}
    assert asked["providers"] == [["CUDAExecutionProvider", options], "CPUExecutionProvider"]
    assert lines[0]["flags"]["providers"] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert lines[0]["flags"]["provider_options"] == options


def test_tensorrt_keeps_its_engines_beside_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, asked = on_simulated_gpu(tmp_path, monkeypatch, "onnxruntime-tensorrt", ["TensorrtExecutionProvider"])
    assert asked["providers"][0][1] == {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(tmp_path)}
    assert lines[0]["flags"]["provider_options"] == {"trt_engine_cache_enable": True}
    assert "sums" in lines[0]["flags"]["warning"]


@pytest.mark.parametrize("runtime", PROVIDERS)
def test_a_session_that_fell_back_to_the_cpu_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    lines, _ = on_simulated_gpu(tmp_path, monkeypatch, runtime, ["CPUExecutionProvider"])
    (failed,) = events(lines, "failed")
    assert "it would run on CPUExecutionProvider" in failed["reason"]


def test_outputs_come_back_from_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, _ = on_simulated_gpu(tmp_path, monkeypatch, "onnxruntime-cuda", ["CUDAExecutionProvider"], outputs=2, seed=3)
    values = [2 * value for value in expected_input(3, 0, "float32", 2)]
    assert events(lines, "outputs")[0]["outputs"] == [{"shape": [2], "type": "float32", "values": values}]


@pytest.mark.parametrize("runtime", PROVIDERS)
def test_engines_that_cannot_be_saved_are_told_without_their_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    lines, _ = on_simulated_gpu(tmp_path, monkeypatch, runtime, [PROVIDERS[runtime], "CPUExecutionProvider"], profiled=2)
    (line,) = events(lines, "executed")
    assert (line["graph"], line["inferences_us"]) == (None, [9, 9])
    assert "compiled nodes" in line["reason"]
    (engine,) = line["operators"]
    assert (engine["name"], engine["partition"], engine["samples_us"]) == ("engine", PROVIDERS[runtime], [5, 5])


@pytest.mark.parametrize("runtime", PROVIDERS)
def test_a_job_for_a_provider_that_is_not_in_the_build_is_refused(tmp_path: Path, runtime: str) -> None:
    if PROVIDERS[runtime] in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has the {PROVIDERS[runtime]}")
    lines, code, stderr = run([*COMMAND, job_for(tmp_path, runtime, b"")])
    assert (lines, code > 0, stderr.count("\n")) == ([], True, 1)
    assert f"has no {PROVIDERS[runtime]}" in stderr


@pytest.mark.parametrize(("run_ms", "runs"), [(0.1, 3), (0.9, 3), (1.0, 2), (70.0, 2)])
def test_a_model_whose_run_is_as_long_as_a_sample_is_warmed_up_by_two_runs_and_others_by_three(
    run_ms: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns, made = 0, 0

    def run() -> None:
        nonlocal now_ns, made
        now_ns, made = now_ns + round(run_ms * 1e6), made + 1

    monkeypatch.setattr(measuring, "clock_ns", lambda: now_ns)
    work = object.__new__(measuring.Work)
    work.job = cast(Job, {"sample_ms": 1.0, "warmup_ms": 0.05})
    assert work.warm_up(run) == round(run_ms * 1e6)
    assert made == runs


def test_profiles_of_a_runner_that_was_killed_are_removed_by_the_next_one(tmp_path: Path) -> None:
    old, new = tmp_path / "executed-old", tmp_path / "executed-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "profile.json").write_text("[]")
    os.utime(old, (0, 0))
    model = FORMATS["onnx"].write(Graph.of_layer(conv2d((1, 4, 4, 4), 4, 1)))
    lines, code, stderr = run([*COMMAND, job_for(tmp_path, "onnxruntime", model, profiled=1)])
    assert code == 0, stderr
    assert events(lines, "executed")[0]["operators"]
    assert (old.exists(), new.exists()) == (False, True)
