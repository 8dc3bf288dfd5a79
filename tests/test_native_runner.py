"""The native runner: the facts that hold for every runner, real models beside the runtimes' own Python, and garbage."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_models import GRAPHS, IMAGE, make_input, python_outputs, run_models, told_outputs, write_models
from runner_conformance import CONDITIONING, RunnerConformance, a_job, behind, checked, events, model_of, run, started, written
from runner_conformance_executed import ExecutedConformance

from device_agents import native
from device_agents.support.cache import cache_folder

if shutil.which("cc") is None:
    pytest.skip("there is no C compiler; apt install gcc", allow_module_level=True)

LIBRARIES = {
    "onnxruntime": max(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*")),
    "litert": Path(str(ai_edge_litert.__file__)).parent / "libLiteRt.so",
}
STRICT = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
NAMES = [str(path) for path in native.sources()]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native.build("host", tmp_path_factory.mktemp("native") / "measure").path


@pytest.fixture(scope="session")
def checked_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built so that every access to memory and every undefined operation is looked at."""
    out = tmp_path_factory.mktemp("checked") / "measure"
    flags = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    done = subprocess.run(["cc", *STRICT, *flags, "-o", out, *NAMES, *native.LIBRARIES], capture_output=True, text=True)
    if "cannot find" in done.stderr and "asan" in done.stderr:
        pytest.skip("the compiler has no address sanitizer; apt install libasan8")
    assert done.returncode == 0, done.stderr
    return out


class TestNativeRunner(RunnerConformance, ExecutedConformance):
    @pytest.fixture
    def command(self, runner: Path) -> list[str]:
        return [str(runner)]

    @pytest.fixture
    def libraries(self) -> Mapping[str, Sequence[str]]:
        return {runtime: [str(path)] for runtime, path in LIBRARIES.items()}


# --------------------------------------------------------------------------------------------------------------- building


@pytest.mark.parametrize("compiler", ["gcc", "clang", "musl-gcc"])
def test_it_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed; apt install {'musl-tools' if 'musl' in compiler else compiler}")
    argv = [compiler, *STRICT, "-O1", "-o", str(tmp_path / "measure"), *NAMES, *native.LIBRARIES]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_built_it_is_told(runner: Path, tmp_path: Path) -> None:
    built = native.build("host", tmp_path / "again")
    hello = run([str(runner), written(tmp_path, {"a": CONDITIONING}, ["a"])])[0][0]
    assert hello["build"] == built.build
    assert hello["runner_sha256"] == built.sha256


def test_it_is_built_once_for_each_state_of_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.build("host", tmp_path / "first")
    (kept,) = (cache_folder() / "native").iterdir()
    kept.write_bytes(b"kept")
    assert native.build("host", tmp_path / "second").path.read_bytes() == b"kept"


def test_a_missing_compiler_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for target in ("host", "aarch64-linux"):
        with pytest.raises(native.CompilerMissing, match="apt install"):
            native.build(target, tmp_path / "measure")


def test_the_ndk_is_asked_for_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    with pytest.raises(native.CompilerMissing, match="--ndk"):
        native.build("android-arm64", tmp_path / "measure")
    with pytest.raises(native.CompilerMissing, match="is it the folder"):
        native.build("android-arm64", tmp_path / "measure", ndk=tmp_path)


def test_the_ndks_own_compiler_is_used_for_android(tmp_path: Path) -> None:
    clang = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin/clang"
    clang.parent.mkdir(parents=True)
    clang.touch()
    found = native.find_compiler("android-arm64", tmp_path)
    assert found.argv == (str(clang), "--target=aarch64-linux-android24")
    assert "-Wl,-z,max-page-size=16384" in found.flags


def test_an_unknown_target_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(native.UnknownTarget, match="android-arm64"):
        native.build("toaster", tmp_path / "measure")


# ------------------------------------------------------------------------------------------------------------ real models


@pytest.mark.parametrize("runtime", LIBRARIES)
@pytest.mark.parametrize("threads", [1, 2])
def test_its_outputs_are_those_of_python_bit_for_bit(runner: Path, tmp_path: Path, runtime: str, threads: int) -> None:
    models = write_models(tmp_path, runtime)
    lines = run_models([str(runner)], models, runtime, [str(LIBRARIES[runtime])], outputs=10**6, threads=threads, seed=5)
    found = {line["model"]: told_outputs(line) for line in events([checked(line) for line in lines], "outputs")}
    assert found.keys() == GRAPHS.keys()
    for name, path in models.items():
        for ours, theirs in zip(found[name], python_outputs(runtime, path, 5), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_litert_runs_a_model_with_the_values_behind_it(runner: Path, tmp_path: Path) -> None:
    models = write_models(tmp_path, "litert", ["sum"])
    behind(models["sum"], {1: np.full(IMAGE, 2, np.float32).tobytes()})
    lines = run_models([str(runner)], models, "litert", [str(LIBRARIES["litert"])], outputs=10**6, seed=5)
    ((found,),) = [told_outputs(line) for line in events([checked(line) for line in lines], "outputs")]
    np.testing.assert_array_equal(found, make_input(5, 0, IMAGE, "float32") + 2)


def test_onnxruntime_leaves_nothing_in_the_users_home(runner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    models = write_models(tmp_path, "onnxruntime")
    assert run_models([str(runner)], models, "onnxruntime", [str(LIBRARIES["onnxruntime"])])
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("runtime", LIBRARIES)
def test_real_models_are_measured(runner: Path, tmp_path: Path, runtime: str) -> None:
    lines = run_models([str(runner)], write_models(tmp_path, runtime), runtime, [str(LIBRARIES[runtime])])
    found = [checked(line) for line in lines]
    assert [line["model"] for line in events(found, "measurement")] == list(GRAPHS)
    assert found[0]["library_sha256"] is not None


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_litert_works_with_as_many_threads_as_it_is_told(runner: Path, tmp_path: Path, threads: int) -> None:
    """XNNPACK's pool is the calling thread and the rest; a number that was not understood would leave one."""
    (path,) = write_models(tmp_path, "litert", ["conv"]).values()
    job = a_job({}, [["a"]] * 3, runtime="litert", libraries=[str(LIBRARIES["litert"])], threads=threads, min_round_s=5.0)
    (tmp_path / "job.json").write_text(json.dumps(job | {"models": [model_of("a", str(path))]}))
    with started([str(runner), str(tmp_path / "job.json")]) as process:
        process.until("measurement")
        assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) == threads


@pytest.mark.parametrize("runtime", LIBRARIES)
def test_a_file_that_is_no_model_of_the_runtime_fails_alone(runner: Path, tmp_path: Path, runtime: str) -> None:
    models = write_models(tmp_path, runtime, ["dense", "conv"])
    models["dense"].write_bytes(b"garbage")
    found = [checked(line) for line in run_models([str(runner)], models, runtime, [str(LIBRARIES[runtime])])]
    assert [(line["event"], line["model"]) for line in events(found, "failed", "measurement")] == [
        ("failed", "dense"),
        ("measurement", "conv"),
    ]


def test_a_model_of_open_shape_fails_with_the_reason(runner: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "open", [values[0]], [values[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "open.onnx").write_bytes(model.SerializeToString())
    lines = run_models([str(runner)], {"open": tmp_path / "open.onnx"}, "onnxruntime", [str(LIBRARIES["onnxruntime"])])
    (failed,) = events([checked(line) for line in lines], "failed")
    assert "dynamic shape" in failed["reason"]


def test_a_model_of_text_fails_with_the_next_step(runner: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.STRING, [3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "text", [values[0]], [values[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "text.onnx").write_bytes(model.SerializeToString())
    lines = run_models([str(runner)], {"text": tmp_path / "text.onnx"}, "onnxruntime", [str(LIBRARIES["onnxruntime"])])
    (failed,) = events([checked(line) for line in lines], "failed")
    assert failed["reason"].endswith("; give the part of the network that works on numbers alone")


# -------------------------------------------------------------------------------------------------------------- libraries


@pytest.mark.parametrize(("runtime", "symbol"), [("onnxruntime", "OrtGetApiBase"), ("litert", "LiteRtCreateEnvironment")])
def test_a_library_of_another_kind_is_told(runner: Path, tmp_path: Path, runtime: str, symbol: str) -> None:
    job = written(tmp_path, {}, [], runtime=runtime, libraries=["libm.so.6"])
    lines, code, stderr = run([str(runner), job])
    assert (lines, code) == ([], 1)
    assert "libm.so.6" in stderr and symbol in stderr


def test_a_library_that_cannot_be_opened_is_told(runner: Path, tmp_path: Path) -> None:
    lines, code, stderr = run([str(runner), written(tmp_path, {}, [], runtime="litert", libraries=["/no/such.so"])])
    assert (lines, code) == ([], 1)
    assert "/no/such.so" in stderr


def test_a_probe_tells_each_runtime_that_works_and_why_another_does_not(runner: Path, tmp_path: Path) -> None:
    for runtime in LIBRARIES:
        (path,) = write_models(tmp_path, runtime, ["dense"]).values()
        path.rename(tmp_path / f"probe{path.suffix}")
    (tmp_path / "libtensorflowlite_c.so").write_bytes(b"garbage")
    paths = [*LIBRARIES.values(), tmp_path / "libtensorflowlite_c.so"]
    (line,), code, _ = run([str(runner), "--probe", str(tmp_path), "--libraries", *map(str, paths)])
    assert code == 0
    assert line["runtimes"]["onnxruntime"] == {"version": onnxruntime.__version__}
    assert "version" in line["runtimes"]["litert"]
    assert "libtensorflowlite_c.so" in line["runtimes"]["tflite-runtime"]["broken"]


def test_a_runtime_that_crashes_the_probe_is_told_as_broken(runner: Path, tmp_path: Path) -> None:
    library = compiled(tmp_path, "libonnxruntime.so", "#include <stdlib.h>\nvoid *OrtGetApiBase(void) { abort(); }")
    (line,), code, _ = run([str(runner), "--probe", str(tmp_path), "--libraries", str(library)])
    assert code == 0
    assert line["runtimes"] == {
        "onnxruntime": {"broken": "trying onnxruntime ended by signal 6"},
        "litert": {"missing": True},
        "tflite-runtime": {"missing": True},
    }


def compiled(folder: Path, name: str, source: str) -> Path:
    (folder / "library.c").write_text(source)
    argv = ["cc", "-shared", "-fPIC", "-o", str(folder / name), str(folder / "library.c")]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / name


STUB = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef struct { int threads; float input[4], output[4]; } Interpreter;
typedef struct { int is_output; Interpreter *of; } Tensor;
static Tensor tensors[2];
const char *TfLiteVersion(void) { return "stub"; }
void *TfLiteModelCreateFromFile(const char *path) { return strstr(path, "bad") ? NULL : malloc(1); }
void TfLiteModelDelete(void *model) { free(model); }
void *TfLiteInterpreterOptionsCreate(void) { return calloc(1, sizeof(int)); }
void TfLiteInterpreterOptionsDelete(void *options) { free(options); }
void TfLiteInterpreterOptionsSetNumThreads(int *options, int32_t threads) { *options = threads; }
void *TfLiteInterpreterCreate(const void *model, const int *options) {
    Interpreter *made = calloc(1, sizeof *made);
    (void)model;
    made->threads = *options;
    return made;
}
void TfLiteInterpreterDelete(void *interpreter) { free(interpreter); }
int TfLiteInterpreterAllocateTensors(Interpreter *interpreter) {
    tensors[0] = (Tensor){0, interpreter};
    tensors[1] = (Tensor){1, interpreter};
    return 0;
}
int TfLiteInterpreterInvoke(Interpreter *interpreter) {
    for (int i = 0; i < 4; i++) interpreter->output[i] = interpreter->input[i] + interpreter->threads;
    return 0;
}
int32_t TfLiteInterpreterGetInputTensorCount(const void *interpreter) { (void)interpreter; return 1; }
int32_t TfLiteInterpreterGetOutputTensorCount(const void *interpreter) { (void)interpreter; return 1; }
void *TfLiteInterpreterGetInputTensor(void *interpreter, int32_t i) { (void)interpreter; return &tensors[i]; }
void *TfLiteInterpreterGetOutputTensor(void *interpreter, int32_t i) { (void)interpreter; return &tensors[1 + i]; }
int TfLiteTensorType(const void *tensor) { (void)tensor; return 1; }
int32_t TfLiteTensorNumDims(const void *tensor) { (void)tensor; return 2; }
int32_t TfLiteTensorDim(const void *tensor, int32_t i) { (void)tensor; return 2 + 0 * i; }
size_t TfLiteTensorByteSize(const void *tensor) { (void)tensor; return 16; }
void *TfLiteTensorData(Tensor *tensor) { return tensor->is_output ? tensor->of->output : tensor->of->input; }
"""


@pytest.mark.parametrize("runtime", ["tflite-runtime", "litert"])
def test_a_stub_of_the_classic_library_is_driven_by_its_c_functions(runner: Path, tmp_path: Path, runtime: str) -> None:
    """No package here carries the real libtensorflowlite_c.so: this shows the order and meaning of the calls, not more."""
    library = compiled(tmp_path, "libstub.so", STUB)
    models = {name: tmp_path / f"{name}.tflite" for name in ("good", "bad")}
    for path in models.values():
        path.touch()
    found = [checked(line) for line in run_models([str(runner)], models, runtime, [str(library)], outputs=9, threads=3, seed=1)]
    assert found[0]["version"] == "stub"
    (line,) = events(found, "outputs")
    from native_models import make_input

    np.testing.assert_array_equal(told_outputs(line)[0], make_input(1, 0, (2, 2), "float32") + np.float32(3))
    assert [line["model"] for line in events(found, "failed")] == ["bad"]


# ---------------------------------------------------------------------------------------------------------------- garbage


def test_no_memory_is_misused_in_a_job(checked_runner: Path, tmp_path: Path) -> None:
    models: dict[str, Any] = {
        **dict.fromkeys("abcd", CONDITIONING),
        "x": {"error": "no"},
        "n": {"latency_ns": 1, "nan": True},
        "i": {"latency_ns": 1, "inputs": [{"shape": [2, 3], "type": "int8"}, {"shape": [], "type": "float64"}]},
    }
    path = written(tmp_path, models, ["abxncdi", "dicab"], reference="a", reference_every=2, max_open=2, lease=str(tmp_path / "l"))
    lines, code, stderr = run([str(checked_runner), path])
    assert (code, lines[-1]["event"]) == (0, "done"), stderr


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300) | st.text(alphabet='{}[]",:0123456789.eE+-\\u tfn"ul', max_size=200).map(str.encode))
def test_garbage_is_refused_and_never_crashes(checked_runner: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "job.json").write_bytes(data)
    refused(checked_runner, tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "file", "round", "models"]), inner),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(sorted(a_job({}, []))), value=VALUES)
def test_any_value_of_any_field_is_accepted_or_refused_and_never_crashes(
    checked_runner: Path, tmp_path: Path, field: str, value: Any
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(a_job({}, []) | {"root": str(tmp_path), field: value}))
    lease = {"lease": field == "lease" and isinstance(value, str)}
    if not lease["lease"]:  # any text may be a lease's path, and would be made where the test runs
        refused(checked_runner, tmp_path, may_run=True)


def refused(runner: Path, folder: Path, may_run: bool = False) -> None:
    done = subprocess.run([str(runner), str(folder / "job.json")], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode in ((0, 1) if may_run else (1,)), done.stderr
    assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr
    assert done.returncode == 0 or done.stderr.count(b"\n") == 1
