"""What the native runner tells of the graph that a runtime executes, of models that stay as they are, and of copies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from executed_models import between_delegates, loop, normalised
from graphs import mobilenet_v1
from native_models import make_input, run_models, write_models
from onnx import TensorProto, helper
from packed_runner import packed_runner
from runner_conformance import CONDITIONING, CRASHING, REFUSED, Line, checked, events, model_of, run, started, told, written
from runner_conformance_executed import graph_of
from test_native_runner import LIBRARIES, STUB, checked_runner, compiled, runner

from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import fully_connected
from profiler.protocol.events import Executed
from profiler.protocol.lines import parse_line

__all__ = ["checked_runner", "runner"]

OPERATORS: list[dict[str, Any]] = [
    {"name": "a", "op": "Conv", "partition": "P", "index": 3, "inputs": [{"float": [1, 2]}], "outputs": [{}], "us": 5},
    {"name": 'b "', "op": "Add", "partition": "Q", "index": 1, "inputs": [], "outputs": [{"float": []}], "us": 0},
    {"name": "a", "op": "Conv", "partition": "P", "index": 4, "inputs": [], "outputs": [], "us": 7},
]
SCRIPT = {"latency_ns": 1000, "operators": OPERATORS}


def executed(
    runner: Path, models: dict[str, Path], runtime: str, libraries: Sequence[Path] | None = None, /, **more: Any
) -> dict[str, Line]:
    """What is told of each model, by its id."""
    paths = [str(path) for path in libraries or [LIBRARIES[runtime]]]
    lines = [checked(line) for line in run_models([str(runner)], models, runtime, paths, **{"profiled": 3} | more)]
    assert not events(lines, "failed", "measurement")
    return {line["model"]: line for line in events(lines, "executed")}


def names(line: Line) -> list[tuple[str, str]]:
    return [(item["name"], item["op"]) for item in line["operators"]]


# ------------------------------------------------------------------------------------------------------- the fake runtime


def fake(runner: Path, folder: Path, script: Any, **more: Any) -> list[Line]:
    lines, code, stderr = run([str(runner), written(folder, {"a": script}, ["a"], **{"profiled": 2} | more)])
    assert code == 0, stderr
    return lines


def test_the_fake_runtime_executes_what_its_script_says(checked_runner: Path, tmp_path: Path) -> None:
    (line,) = events(fake(checked_runner, tmp_path, SCRIPT), "executed")
    assert (line["graph"], line["reason"], line["inferences_us"]) == (None, None, [12, 12])
    assert line["operators"] == [
        {key: value for key, value in item.items() if key != "us"} | {"samples_us": [item["us"]] * 2} for item in OPERATORS
    ]


def test_an_operator_that_runs_twice_in_an_inference_is_one_with_the_sum(runner: Path, tmp_path: Path) -> None:
    (line,) = events(fake(runner, tmp_path, SCRIPT | {"operators": [*OPERATORS, OPERATORS[0]]}), "executed")
    assert [item["samples_us"] for item in line["operators"]] == [[10, 10], [0, 0], [7, 7]]
    assert line["inferences_us"] == [17, 17]


@pytest.mark.parametrize("missing", OPERATORS[0])
def test_a_script_whose_operator_lacks_a_field_fails(runner: Path, tmp_path: Path, missing: str) -> None:
    script = SCRIPT | {"operators": [{key: value for key, value in OPERATORS[0].items() if key != missing}]}
    assert told(fake(runner, tmp_path, script))[-2:] == ["failed a", "done"]


def test_a_model_that_crashes_under_the_profiler_has_been_named_before(runner: Path, tmp_path: Path) -> None:
    lines, code, _ = run([str(runner), written(tmp_path, {"c": CRASHING}, ["c"], profiled=1)])
    assert (told(lines)[-1], code < 0) == ("begin c", True)


def test_the_host_reads_what_is_told(runner: Path, tmp_path: Path) -> None:
    line = next(line for line in fake(runner, tmp_path, SCRIPT) if line["event"] == "executed")
    event = parse_line(json.dumps(line))
    assert isinstance(event, Executed)
    assert [item.samples_us for item in event.operators] == [(5, 5), (0, 0), (7, 7)]


# ------------------------------------------------------------------------------------------------------- the Python runner


@pytest.mark.parametrize("as_it_is", [False, True])
@pytest.mark.parametrize("runtime", LIBRARIES)
def test_both_runners_tell_the_same_of_the_same_models(runner: Path, tmp_path: Path, runtime: str, as_it_is: bool) -> None:
    paths = write_models(tmp_path, runtime)
    more = {"loop": loop(), "normalised": normalised()} if runtime == "onnxruntime" else {"between delegates": between_delegates()}
    for name, data in more.items():
        (tmp_path / name).write_bytes(data)
        paths[name] = tmp_path / name
    models = [model_of(name, str(path), as_it_is) for name, path in paths.items()]
    job = {"models": models, "profiled": 2, "seed": 7}
    programs = [[str(runner)], [sys.executable, packed_runner()]]
    ours, theirs = (
        {line["model"]: line for line in map(checked, run_models(argv, paths, runtime, [str(LIBRARIES[runtime])], **job))
         if line["event"] == "executed"}
        for argv in programs
    )  # fmt: skip
    assert ours.keys() == theirs.keys() == paths.keys()
    for name in paths:
        assert _untimed(ours[name]) == _untimed(theirs[name])


def _untimed(line: Line) -> dict[str, Any]:
    """What is told of a model but for times. A runtime's order of initializers is of no matter."""
    operators = [{key: value for key, value in item.items() if key != "samples_us"} for item in line["operators"]]
    nodes = line["graph"] and [node.SerializeToString() for node in graph_of(line).node]
    return {"nodes": nodes, "reason": line["reason"], "operators": operators, "inferences": len(line["inferences_us"])}


# ----------------------------------------------------------------------------------------------------------- ONNX Runtime


def test_onnxruntime_executes_what_its_own_python_package_profiles(runner: Path, tmp_path: Path) -> None:
    for name, path in write_models(tmp_path, "onnxruntime").items():
        found = executed(runner, {name: path}, "onnxruntime")[name]
        assert [(item["name"], item["op"], item["index"]) for item in found["operators"]] == _profiled_by_python(path, tmp_path)


def _profiled_by_python(path: Path, folder: Path) -> list[tuple[str, str, int]]:
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
    inputs = {value.name: make_input(1, 0, value.shape, kinds[value.type]) for value in session.get_inputs()}
    session.run(None, inputs)
    found = [event for event in json.loads(Path(session.end_profiling()).read_text()) if event["cat"] == "Node"]
    kernels = [event for event in found if event["name"].endswith("_kernel_time")]
    return [
        (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], int(event["args"]["node_index"]))
        for event in kernels
    ]


def test_operators_inside_control_flow_are_part_of_it(checked_runner: Path, tmp_path: Path) -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        nodes = [helper.make_node(op, ["a"], [f"{name} inner"], name=f"{name} inner")]
        nodes.append(helper.make_node("Mul", [f"{name} inner", "a"], [name], name=name))
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])])

    nodes = [
        helper.make_node("Sigmoid", ["x"], ["a"], name="before"),
        helper.make_node("ReduceSum", ["a"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"], name="greater"),
        helper.make_node("If", ["positive"], ["b"], name="if", then_branch=branch("yes", "Exp"), else_branch=branch("no", "Tanh")),
        helper.make_node("Softmax", ["b"], ["y"], name="after"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy")
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    _save(tmp_path / "a.onnx", helper.make_graph(nodes, "branching", [x], [y], [zero]))
    line = executed(checked_runner, {"a": tmp_path / "a.onnx"}, "onnxruntime")["a"]
    assert [item["name"] for item in line["operators"]] == ["before", "sum", "greater", "if", "after"]


def _save(path: Path, graph: onnx.GraphProto, **metadata: str) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())


def test_a_graph_that_is_too_large_is_left_out_with_a_reason(runner: Path, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy")
    _save(tmp_path / "a.onnx", helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]), note="x" * (8 << 20))
    line = executed(runner, {"a": tmp_path / "a.onnx"}, "onnxruntime")["a"]
    assert line["graph"] is None
    assert "bytes" in line["reason"]
    assert [item["op"] for item in line["operators"]] == ["Relu"]


UNSAVABLE = r"""
#include <dlfcn.h>
#include <string.h>
typedef void *(*Function)();
typedef struct { Function *(*get_api)(unsigned); const char *(*get_version)(void); } Base;
static Function table[400];
static const Base *real(void) { return ((const Base *(*)(void))dlsym(dlopen(REAL, RTLD_NOW), "OrtGetApiBase"))(); }
static void *refuse() { return table[0](1, "no such graph can be saved"); }
static Function *get_api(unsigned version) {
    memcpy(table, real()->get_api(version), 150 * sizeof *table);
    table[11] = refuse;
    return table;
}
static const char *get_version(void) { return real()->get_version(); }
const Base *OrtGetApiBase(void) { static Base base = {get_api, get_version}; return &base; }
"""


def test_a_model_that_cannot_be_saved_is_executed_without_its_graph(runner: Path, tmp_path: Path) -> None:
    library = compiled(tmp_path, "libonnxruntime.so", UNSAVABLE.replace("REAL", json.dumps(str(LIBRARIES["onnxruntime"]))))
    line = executed(runner, write_models(tmp_path, "onnxruntime", ["dense"]), "onnxruntime", [library])["dense"]
    assert (line["graph"], line["reason"]) == (None, "no such graph can be saved")
    assert names(line) == [("layer", "Gemm")]


# ----------------------------------------------------------------------------------------------------------------- LiteRT


def test_no_memory_is_misused_while_litert_is_profiled(checked_runner: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(between_delegates())
    line = executed(checked_runner, {"a": tmp_path / "a.tflite"}, "litert")["a"]
    assert (line["reason"], len(line["operators"])) == (None, 5)


def test_litert_tells_every_inference_of_a_network(runner: Path, tmp_path: Path) -> None:
    (line,) = executed(runner, write_models(tmp_path, "litert", ["network"]), "litert", profiled=20).values()
    assert len(line["inferences_us"]) == 20
    assert [item["index"] for item in line["operators"]] == list(range(len(mobilenet_v1(pairs=13).nodes)))
    sums = np.sum([item["samples_us"] for item in line["operators"]], axis=0)
    assert all(0 < mine <= whole for mine, whole in zip(sums, line["inferences_us"], strict=True))


@pytest.mark.parametrize("lacks", ["LiteRtStartProfiler", "LiteRtGetProfilerEvents"])
def test_a_litert_without_a_profiler_is_told(runner: Path, tmp_path: Path, lacks: str) -> None:
    library = tmp_path / "libLiteRt.so"
    library.write_bytes(LIBRARIES["litert"].read_bytes().replace(f"\0{lacks}\0".encode(), f"\0{lacks[:-1]}X\0".encode()))
    line = executed(runner, write_models(tmp_path, "litert", ["dense"]), "litert", [library])["dense"]
    assert (line["operators"], line["inferences_us"]) == ([], [])
    assert "no profiler" in line["reason"]


OTHER_EVENTS = r"""
#include <string.h>
int LiteRtGetProfilerEvents(void *profiler, int count, char *events) {
    (void)profiler;
    memset(events, 0, (size_t)count * SIZE);
    return 0;
}
"""


@pytest.mark.parametrize("size", [96, 112])
def test_a_litert_whose_events_are_of_another_size_is_told(checked_runner: Path, tmp_path: Path, size: int) -> None:
    """A library whose other functions are those of the real one, which it is linked to."""
    (tmp_path / "library.c").write_text(OTHER_EVENTS)
    library, real = tmp_path / "libother.so", LIBRARIES["litert"]
    linked: list[str | Path] = [f"-Wl,--no-as-needed,-rpath,{real.parent}", real]
    subprocess.run(["cc", "-shared", "-fPIC", f"-DSIZE={size}", "-o", library, tmp_path / "library.c", *linked], check=True)
    line = executed(checked_runner, write_models(tmp_path, "litert", ["dense"]), "litert", [library])["dense"]
    assert (line["operators"], line["inferences_us"]) == ([], [])
    assert "another size" in line["reason"]


@pytest.mark.parametrize("runtime", ["tflite-runtime", "litert"])
def test_the_classic_library_tells_nothing_and_says_so(runner: Path, tmp_path: Path, runtime: str) -> None:
    library = compiled(tmp_path, "libstub.so", STUB)
    (tmp_path / "good.tflite").touch()
    line = executed(runner, {"good": tmp_path / "good.tflite"}, runtime, [library])["good"]
    assert (line["operators"], line["graph"]) == ([], None)
    assert "tells" in line["reason"]


# ----------------------------------------------------------------------------------------------------------------- copies


def test_inferences_run_on_the_copies_in_turn(runner: Path, tmp_path: Path) -> None:
    run_one = "int TfLiteInterpreterInvoke(Interpreter *interpreter) {"
    library = compiled(
        tmp_path, "libstub.so", "#include <stdio.h>\n" + STUB.replace(run_one, run_one + _NOTE % str(tmp_path / "runs"))
    )
    (tmp_path / "good.tflite").touch()
    models = [model_of("good", "good.tflite", copies=3)]
    run_models([str(runner)], {"good": tmp_path / "good.tflite"}, "tflite-runtime", [str(library)], models=models)
    runs = (tmp_path / "runs").read_text().split()
    first = runs[:3]  # each is run once when it is opened
    assert len(set(first)) == 3
    assert len(runs) > 30
    assert runs == [first[place % 3] for place in range(len(runs))]


_NOTE = 'FILE *runs = fopen("%s", "a"); fprintf(runs, "%%p ", (void *)interpreter); fclose(runs);'


def test_each_copy_has_weights_of_its_own(runner: Path, tmp_path: Path) -> None:
    graph = Graph.of_layer(fully_connected((1, 1024), 1024))
    (tmp_path / "a.onnx").write_bytes(FORMATS["onnx"].write(graph))
    assert _memory_bytes(runner, tmp_path, 20) - _memory_bytes(runner, tmp_path, 1) > 19 * 4 * 1024**2


def _memory_bytes(runner: Path, folder: Path, copies: int) -> int:
    """How much the runner has in memory after one measurement of a.onnx."""
    more = {
        "runtime": "onnxruntime",
        "libraries": [str(LIBRARIES["onnxruntime"])],
        "models": [model_of("a", "a.onnx", copies=copies)],
    }
    with started([str(runner), written(folder, {}, ["a", "a"], min_round_s=5.0, **more)]) as process:
        process.until("measurement")
        status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_outputs_are_those_of_one_copy(runner: Path, tmp_path: Path) -> None:
    script = CONDITIONING | {"inputs": [{"shape": [2], "type": "int8"}]}
    models = [model_of("a", "a.json", copies=3)]
    lines, code, _ = run([str(runner), written(tmp_path, {"a": script}, ["a"], outputs=9, models=models)])
    assert code == 0
    assert [len(line["outputs"]) for line in events(lines, "outputs")] == [1]


def test_no_memory_is_misused_with_copies(checked_runner: Path, tmp_path: Path) -> None:
    scripts = dict.fromkeys("abc", CONDITIONING) | {"x": REFUSED}
    models = [model_of(name, f"{name}.json", copies=2) for name in scripts]
    lines, code, stderr = run([str(checked_runner), written(tmp_path, scripts, ["abxc", "cab"], max_open=3, models=models)])
    assert (code, lines[-1]["event"]) == (0, "done"), stderr
