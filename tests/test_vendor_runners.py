"""Vendors' tools are stood in for by scripts that print what the real ones print (their output as users have posted it); the real
programs cannot be installed here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agents.agent import Agent
from device_agents.local import LocalAgent
from profiler.devices.config import Device
from profiler.errors import RunnerError
from profiler.measure.session import Session
from profiler.protocol.events import Failed, Hello, Measurement, Paused, SessionEvent
from profiler.protocol.lines import event_data, parse_line
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners.benchmark_model import BenchmarkModel
from profiler.runners.perf_test import PerfTest

WITH_MEDIAN = """\
INFO: Loaded model {model}
INFO: count=3 first=235158 curr=200386 min=199462 max=235158 avg=211669 std=16613 p5=199462 median=200386 p95=235158
INFO: count=25 first=187533 curr=140990 min=140071 max=195121 avg=145528 std=13583 p5=140545 median=141253 p95=187533
INFO: Inference timings in us: Init: 92318, First inference: 235158, Warmup (avg): 211669, Inference (avg): 145528
"""
WITHOUT_MEDIAN = """\
count=12 first=156677 curr=33205 min=32578 max=156677 avg=43268.1 std=34197

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=33228 curr=33130 min=32687 max=33239 avg=33071.8 std=129
"""
WARM_UP_ONLY = "count=12 first=156677 curr=33205 min=32578 max=156677 avg=43268.1 std=34197\n"
PERF_TEST = """\
Session creation time cost: 0.217932 s
Average inference time cost total: 98.961997 ms
Min Latency: 0.0958204 s
Max Latency: 0.101519 s
P50 Latency: 0.0995086 s
P90 Latency: 0.101519 s
"""


@pytest.fixture
def agent() -> Iterator[Agent]:
    with LocalAgent() as agent:
        yield agent


def device(folder: Path, name: str, printed: str, code: int = 0) -> Device:
    tool = folder / name
    log = folder / "calls"
    tool.write_text(f"#!/bin/sh\necho \"$@\" >> {log}\ncat <<'END'\n{printed}END\nexit {code}\n")
    return Device("phone", "local", tools={name: tool})


def measurements(agent: Agent, runner: Any, target: Target, quick: TimingSettings, **more: Any) -> list[SessionEvent]:
    session = Session(agent, runner, target, quick, **more)
    return list(session.measure({"a": b"model"}, [(0, ["a"]), (1, ["a"])]))


@pytest.mark.parametrize(("printed", "latency_ns"), [(WITH_MEDIAN, 141_253_000), (WITHOUT_MEDIAN, 33_071_800)])
def test_benchmark_model_is_read_by_its_timed_runs(
    agent: Agent, quick: TimingSettings, tmp_path: Path, printed: str, latency_ns: int
) -> None:
    target = Target("phone", "litert")
    runner = BenchmarkModel(agent, device(tmp_path, "benchmark_model", printed), target)
    found = measurements(agent, runner, target, quick)
    assert [event.samples_ns for event in found if isinstance(event, Measurement)] == [(latency_ns,)] * 2


def test_a_run_without_timed_runs_has_failed(agent: Agent, quick: TimingSettings, tmp_path: Path) -> None:
    target = Target("phone", "litert")
    runner = BenchmarkModel(agent, device(tmp_path, "benchmark_model", WARM_UP_ONLY), target)
    assert sum(isinstance(event, Failed) for event in measurements(agent, runner, target, quick)) == 1


def test_onnxruntimes_perf_test_is_read_by_its_median(agent: Agent, quick: TimingSettings, tmp_path: Path) -> None:
    target = Target("phone", "onnxruntime")
    runner = PerfTest(agent, device(tmp_path, "onnxruntime_perf_test", PERF_TEST), target)
    found = measurements(agent, runner, target, quick)
    assert [event.samples_ns for event in found if isinstance(event, Measurement)] == [(99_508_600,)] * 2


def test_a_tool_that_fails_fails_the_model_with_what_it_said(agent: Agent, quick: TimingSettings, tmp_path: Path) -> None:
    target = Target("phone", "onnxruntime")
    runner = PerfTest(agent, device(tmp_path, "onnxruntime_perf_test", "no such operator\n", code=3), target)
    (failed,) = [event for event in measurements(agent, runner, target, quick) if isinstance(event, Failed)]
    assert "no such operator" in failed.reason


def test_its_lines_are_those_of_a_runner_and_say_what_is_lost(agent: Agent, quick: TimingSettings, tmp_path: Path) -> None:

    target = Target("phone", "litert")
    runner = BenchmarkModel(agent, device(tmp_path, "benchmark_model", WITH_MEDIAN), target)
    found = measurements(agent, runner, target, quick)
    assert [parse_line(json.dumps(event_data(event))) for event in found if not isinstance(event, Paused)] == found
    assert isinstance(found[0], Hello) and "no raw samples" in found[0].flags["lost"]


def test_threads_and_cores_are_passed_on(agent: Agent, quick: TimingSettings, tmp_path: Path) -> None:
    target = Target("phone", "litert", threads=2)
    runner = BenchmarkModel(agent, device(tmp_path, "benchmark_model", WITH_MEDIAN), target)
    measurements(agent, runner, target, quick, cpus=(0,))
    assert "--num_threads=2" in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(("runner", "runtime"), [(BenchmarkModel, "onnxruntime"), (PerfTest, "litert")])
def test_a_tool_for_another_runtime_is_refused(agent: Agent, runner: Any, runtime: str) -> None:
    with pytest.raises(RunnerError, match="measures"):
        runner(agent, Device("phone", "local"), Target("phone", runtime))


def test_a_tool_that_is_not_named_says_where_to_name_it(agent: Agent) -> None:
    with pytest.raises(RunnerError, match=r"tools\.benchmark_model"):
        BenchmarkModel(agent, Device("phone", "local"), Target("phone", "litert"))
