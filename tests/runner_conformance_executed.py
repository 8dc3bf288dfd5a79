"""What every runner must tell of what a runtime executes, and how it opens models: a test class for a runner inherits these too.

device_agents/on_device/PROTOCOL.md is the contract, "The job" and "The executed graph". Real runtimes are used here.
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from executed_models import between_delegates, convolutions, loop, normalised, sums
from runner_conformance import CONDITIONING, REFUSED, Line, events, model_of, run, started, told, written

RUNTIMES = {"onnxruntime": convolutions, "litert": between_delegates}
ROW: Mapping[str, Any] = {"float": [1, 8]}
OPERATORS = [
    {"name": "conv", "op": "Conv", "partition": "cpu", "index": 3, "inputs": [ROW, {"float": []}], "outputs": [], "us": 30},
    {"name": "sum", "op": "Add", "partition": "cpu", "index": 7, "inputs": [], "outputs": [ROW], "us": 12},
]
EXECUTING = {**CONDITIONING, "operators": OPERATORS}


class ExecutedConformance:
    @pytest.fixture
    def command(self) -> list[str]:
        """How to start the runner."""
        raise NotImplementedError

    @pytest.fixture
    def libraries(self) -> Mapping[str, Sequence[str]]:
        """The shared libraries of each runtime, for a runner that has to be told of them."""
        return {}

    @pytest.fixture
    def executed(self, command: list[str], libraries: Mapping[str, Sequence[str]], tmp_path: Path) -> Any:
        """A function that has one model profiled, and returns its line."""

        def profile(runtime: str, model: bytes, as_it_is: bool = False, profiled: int = 4, **more: Any) -> Line:
            (tmp_path / "model").write_bytes(model)
            more = {"libraries": list(libraries.get(runtime, [])), "models": [model_of("a", "model", as_it_is)]} | more
            lines, code, stderr = run([*command, written(tmp_path, {}, ["a"], runtime=runtime, profiled=profiled, **more)])
            assert code == 0, stderr
            assert told(lines)[:3] == ["hello", "round 0", "begin a"]
            assert len(lines) == 5
            return lines[3]

        return profile

    # ----------------------------------------------------------------------------------------------------- the fake runtime

    def test_operators_of_a_script_are_told_for_each_inference(self, executed: Any) -> None:
        line = executed("fake", json.dumps(EXECUTING).encode(), profiled=3)
        expected = [
            {name: value for name, value in operator.items() if name != "us"} | {"samples_us": [operator["us"]] * 3}
            for operator in OPERATORS
        ]
        assert (line["operators"], line["inferences_us"]) == (expected, [42, 42, 42])
        assert (line["graph"], line["reason"]) == (None, None)

    def test_a_script_without_operators_says_that_it_has_none(self, executed: Any) -> None:
        line = executed("fake", json.dumps(CONDITIONING).encode())
        assert (line["operators"], line["graph"]) == ([], None)
        assert "operators" in line["reason"]

    def test_a_job_for_executed_graphs_measures_nothing(self, command: list[str], tmp_path: Path) -> None:
        models = {"a": EXECUTING, "b": EXECUTING, "bad": REFUSED}
        lines, code, _ = run(
            [*command, written(tmp_path, models, [["a", "bad", "b"]], profiled=2, reference="a", reference_every=1)]
        )
        each = ["begin a", "executed a", "begin bad", "failed bad", "begin b", "executed b"]
        assert (code, told(lines)) == (0, ["hello", "round 0", *each, "done"])

    def test_a_model_is_run_to_warm_up_and_then_as_often_as_is_asked(self, command: list[str], tmp_path: Path) -> None:
        models = {"a": {**EXECUTING, "latency_ns": 50_000_000}, "b": EXECUTING}
        schedule = [{"round": number, "models": [name]} for number, name in enumerate("ab")]
        lines, _, _ = run([*command, written(tmp_path, models, [], schedule=schedule, profiled=5)])
        first, second = (line["clock_ns"] for line in events(lines, "round"))
        assert second - first >= (3 + 5) * 50_000_000

    # ---------------------------------------------------------------------------------------------------------- any runtime

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("threads", [1, 2])
    def test_operators_together_take_no_longer_than_the_inference(self, executed: Any, runtime: str, threads: int) -> None:
        line = executed(runtime, RUNTIMES[runtime](), profiled=5, threads=threads)
        assert line["reason"] is None
        assert len(line["inferences_us"]) == 5
        assert len(line["operators"]) > 2
        for place, inference_us in enumerate(line["inferences_us"]):
            assert 0 < sum(operator["samples_us"][place] for operator in line["operators"]) <= inference_us

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("sound", [True, False])
    def test_nothing_is_left_beside_the_job(
        self, command: list[str], libraries: Mapping[str, Sequence[str]], tmp_path: Path, runtime: str, sound: bool
    ) -> None:
        (tmp_path / "model").write_bytes(RUNTIMES[runtime]() if sound else b"garbage")
        more = {"runtime": runtime, "libraries": list(libraries.get(runtime, [])), "models": [model_of("a", "model")]}
        lines, code, _ = run([*command, written(tmp_path, {}, ["a"], profiled=2, **more)])
        assert (code, told(lines)[3]) == (0, "executed a" if sound else "failed a")
        assert {path.name for path in tmp_path.iterdir()} == {"model", "job.json"}

    # --------------------------------------------------------------------------------------------------------- ONNX Runtime

    def test_the_graph_is_the_one_whose_operators_are_told(self, executed: Any) -> None:
        line = executed("onnxruntime", convolutions())
        nodes = [(node.name, node.op_type) for node in graph_of(line).node]
        assert sorted(nodes) == sorted((operator["name"], operator["op"]) for operator in line["operators"])
        assert {operator["partition"] for operator in line["operators"]} == {"CPUExecutionProvider"}

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="ONNX Runtime blocks channels on this processor in other ways")
    def test_convolutions_are_executed_on_blocked_channels(self, executed: Any) -> None:
        line = executed("onnxruntime", convolutions())
        assert [node.domain for node in graph_of(line).node if node.op_type == "Conv"] == ["com.microsoft.nchwc"] * 2
        assert [operator["op"] for operator in line["operators"]] == ["ReorderInput", "Conv", "Conv", "ReorderOutput"]

    def test_the_graph_comes_without_its_large_weights(self, executed: Any) -> None:
        line = executed("onnxruntime", convolutions())
        weights = {tuple(tensor.dims): tensor for tensor in graph_of(line).initializer}
        assert weights[32, 32, 3, 3].data_location == onnx.TensorProto.EXTERNAL
        assert onnx.numpy_helper.to_array(weights[(32,)]).size == 32
        assert len(base64.b64decode(line["graph"])) < 4 * 32 * 32

    def test_types_and_shapes_of_what_an_operator_reads_and_writes_are_told(self, executed: Any) -> None:
        (second,) = (
            operator
            for operator in executed("onnxruntime", convolutions())["operators"]
            if {"float": [32, 32, 3, 3]} in operator["inputs"]
        )
        assert second["inputs"] == [{"float": [1, 32, 24, 24]}, {"float": [32, 32, 3, 3]}, {"float": [32]}]
        assert second["outputs"] == [{"float": [1, 32, 24, 24]}]

    def test_what_runs_inside_of_a_loop_is_part_of_the_loop(self, executed: Any) -> None:
        assert [operator["name"] for operator in executed("onnxruntime", loop())["operators"]] == ["first", "turning", "last"]

    @pytest.mark.parametrize("as_it_is", [False, True])
    def test_a_model_is_optimised_unless_it_must_stay_as_it_is(self, executed: Any, as_it_is: bool) -> None:
        line = executed("onnxruntime", normalised(), as_it_is=as_it_is)
        named = [operator["op"] for operator in line["operators"]]
        assert named == ["Conv", "BatchNormalization"] if as_it_is else "BatchNormalization" not in named

    # --------------------------------------------------------------------------------------------------------------- LiteRT

    def test_delegates_are_told_apart_from_each_other_and_from_the_interpreter(self, executed: Any) -> None:
        line = executed("litert", between_delegates())
        assert [(operator["partition"], operator["index"]) for operator in line["operators"]] == [
            ("delegate 0", 0), ("delegate 0", 1), ("interpreter", 2), ("delegate 1", 0), ("delegate 1", 1),
        ]  # fmt: skip
        assert line["operators"][2]["op"] == "LOCAL_RESPONSE_NORMALIZATION"
        assert [operator["name"] for operator in line["operators"]] == [operator["op"] for operator in line["operators"]]
        assert line["graph"] is None

    def test_none_of_the_operators_of_a_long_network_is_lost(self, executed: Any) -> None:
        """LiteRT makes its profiler's buffer for 2048 events."""
        line = executed("litert", sums(3000), profiled=2)
        assert line["reason"] is None
        assert [operator["index"] for operator in line["operators"]] == list(range(3000))

    # --------------------------------------------------------------------------------------------------------------- copies

    @pytest.mark.parametrize(
        ("copies", "bound", "opened_again"),
        [
            (2, {"max_open": 3}, False),
            (2, {"max_open": 2}, True),
            (5, {"max_open": 3}, True),
            (2, {"memory_bytes": 300}, True),
            (1, {"memory_bytes": 300}, False),
        ],
    )
    def test_copies_count_as_models_that_are_open(
        self, command: list[str], tmp_path: Path, copies: int, bound: dict[str, int], opened_again: bool
    ) -> None:
        models = [model_of("a", "a.json", copies=copies), model_of("b", "b.json")]
        script = {**CONDITIONING, "padding": "x" * 10}
        assert 6 * len(json.dumps(script)) <= 300 < 9 * len(json.dumps(script))
        path = written(tmp_path, dict.fromkeys("ab", script), ["ab", "a"], min_round_s=0.6, models=models, **bound)
        with started([*command, path]) as process:
            process.until("measurement", "b")
            (tmp_path / "a.json").write_text(json.dumps(REFUSED))
            assert told(events(list(process), "measurement", "failed")) == ["failed a" if opened_again else "measurement a"]


def graph_of(line: Line) -> onnx.GraphProto:
    return onnx.load_model_from_string(base64.b64decode(line["graph"], validate=True)).graph
