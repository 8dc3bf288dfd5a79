"""The runner is the real program in a process of its own; only the models it runs are made up, by its fake runtime."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from device_agents import RUNNER
from device_agents.local import LocalAgent
from profiler.errors import RunnerError
from profiler.graph import Graph
from profiler.layers import conv2d
from profiler.model_file import FORMATS
from profiler.session import Session
from profiler.settings import RUNTIME_FORMATS, Target, TimingSettings

STEADY = json.dumps({"latency_ns": 200_000}).encode()
CRASHING = json.dumps({"latency_ns": 1, "crash": True}).encode()
REFUSED = json.dumps({"error": "no such operator"}).encode()
HANGING = json.dumps({"latency_ns": 1, "hang": True}).encode()


@pytest.fixture
def agent() -> Iterator[LocalAgent]:
    with LocalAgent() as agent:
        yield agent


def lines(agent: LocalAgent, quick: TimingSettings, models: dict[str, bytes], rounds: int = 2, **more: Any) -> list[dict[str, Any]]:
    session = Session(agent, Target(runtime="fake"), quick)
    return list(session.measure(models, [(number, sorted(models)) for number in range(rounds)], **more))


def visits(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return sorted((line["model"], line["round"]) for line in found if line["event"] == "visit")


def test_every_model_is_visited_once_a_round(agent: LocalAgent, quick: TimingSettings) -> None:
    found = lines(agent, quick, {"a": STEADY, "b": STEADY})
    assert visits(found) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_a_sample_of_a_short_model_is_many_inferences(agent: LocalAgent, quick: TimingSettings) -> None:
    found = lines(agent, quick, {"a": json.dumps({"latency_ns": 2000}).encode()})
    for line in found:
        if line["event"] == "visit":
            assert line["loops"] > 1
            assert min(line["samples_ns"]) >= line["loops"] * 2000  # the fake never takes less than it says


def test_the_order_is_shuffled_by_the_stored_seed(agent: LocalAgent, quick: TimingSettings) -> None:
    models = {name: json.dumps({"latency_ns": 1000 + number}).encode() for number, name in enumerate("abcdefgh")}

    def order(seed: int) -> list[str]:
        found = lines(agent, replace(quick, seed=seed), models, rounds=1)
        return [line["model"] for line in found if line["event"] == "visit"]

    assert order(1) == order(1) != order(2)


def test_a_model_the_runtime_refuses_fails_alone_and_once(agent: LocalAgent, quick: TimingSettings) -> None:
    found = lines(agent, quick, {"a": STEADY, "bad": REFUSED})
    assert visits(found) == [("a", 0), ("a", 1)]
    failed = [line for line in found if line["event"] == "failed"]
    assert [line["model"] for line in failed] == ["bad"]
    assert "no such operator" in failed[0]["reason"]


def test_a_model_that_takes_the_runner_down_costs_itself_only(agent: LocalAgent, quick: TimingSettings) -> None:
    found = lines(agent, quick, {"a": STEADY, "b": STEADY, "c": CRASHING})
    assert visits(found) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [(line["model"], line["crash"]) for line in found if line["event"] == "failed"] == [("c", True)]
    assert sum(line["event"] == "hello" for line in found) == 3  # the runner was started again after each of two crashes


def test_a_model_that_hangs_is_given_up(agent: LocalAgent, quick: TimingSettings) -> None:
    found = lines(agent, replace(quick, silence_s=5.0), {"a": STEADY, "h": HANGING}, rounds=1)
    assert visits(found) == [("a", 0)]
    assert [line["model"] for line in found if line["event"] == "failed"] == ["h"]


def test_the_reference_is_visited_between_the_others(agent: LocalAgent, quick: TimingSettings) -> None:
    found = lines(agent, replace(quick, reference_every=1), {"a": STEADY, "b": STEADY, "r": STEADY}, rounds=1, reference="r")
    order = [line["event"] for line in found if line["event"] in ("visit", "reference")]
    assert order == ["reference", "visit"] * 3
    assert {line["model"] for line in found if line["event"] == "reference"} == {"r"}


def test_a_look_at_the_reference_is_shorter_than_a_visit(agent: LocalAgent, quick: TimingSettings) -> None:
    found = lines(agent, replace(quick, visit_ms=20.0, reference_ms=1.0), {"a": STEADY}, rounds=1, reference="a")
    samples = {line["event"]: len(line["samples_ns"]) for line in found if "samples_ns" in line}
    assert samples["reference"] < samples["visit"]


def test_samples_that_were_disturbed_are_told(agent: LocalAgent, quick: TimingSettings) -> None:
    for line in lines(agent, quick, {"a": STEADY}):
        if line["event"] == "visit":
            assert all(0 <= place < len(line["samples_ns"]) for place in line["switched"])


def test_an_interpreter_without_the_runtime_is_told_with_the_next_step(agent: LocalAgent, quick: TimingSettings) -> None:
    session = Session(agent, Target(runtime="tflite-runtime"), quick)
    with pytest.raises(RunnerError, match="--python"):
        list(session.measure({"a": b""}, [(0, ["a"])]))


def test_the_runner_ends_when_its_host_is_gone(agent: LocalAgent, quick: TimingSettings) -> None:
    session = Session(agent, Target(runtime="fake"), quick)
    folder = agent.store({"a.json": STEADY})
    job = session._job({"a": "a.json"}, [(number, ["a"]) for number in range(10**6)], None)
    agent.store({"job.json": json.dumps(job).encode()})
    process = subprocess.Popen(
        [sys.executable, str(RUNNER), f"{folder}/job.json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    time.sleep(0.3)
    assert process.poll() is None
    _, stderr = process.communicate(b"", timeout=20)
    assert b"the host is gone" in stderr


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_runtime_speaks_the_same_lines(agent: LocalAgent, quick: TimingSettings, runtime: str) -> None:
    model = FORMATS[RUNTIME_FORMATS[runtime]].write(Graph.of_layer(conv2d((1, 16, 16, 8), 16, 3, activation="relu6")))
    session = Session(agent, Target(runtime=runtime), quick)
    found = list(session.measure({"conv": model}, [(0, ["conv"])]))
    assert [line["event"] for line in found] == ["hello", "round", "begin", "visit", "done"]
    assert found[0]["runtime"] == runtime
    assert len(found[0]["library_sha256"]) == 64


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_runtime_survives_a_file_that_is_no_model(agent: LocalAgent, quick: TimingSettings, runtime: str) -> None:
    found = list(Session(agent, Target(runtime=runtime), quick).measure({"bad": b"garbage"}, [(0, ["bad"])]))
    assert [line["event"] for line in found if line["event"] in ("visit", "failed")] == ["failed"]


def test_a_probe_names_the_device_and_its_runtimes(agent: LocalAgent, quick: TimingSettings) -> None:
    found = Session(agent, Target(), quick).probe()
    assert found["device"]["cores"] >= 1
    assert "version" in found["runtimes"]["onnxruntime"]
    assert "fake" not in found["runtimes"]


@pytest.mark.parametrize(
    "line",
    [
        '{"event":"visit","model":"a","round":0,"started_ns":1,"loops":1,"samples_ns":[0],"switched":[]}',
        '{"event":"visit","model":"a","round":0,"started_ns":1,"loops":1,"samples_ns":[],"switched":[]}',
        '{"event":"visit","model":"a","round":0,"started_ns":1,"loops":0,"samples_ns":[5],"switched":[]}',
        '{"event":"visit","model":"a","round":0,"started_ns":1,"loops":1,"samples_ns":[1.5],"switched":[]}',
        '{"event":"visit","model":"a","round":0,"started_ns":1,"loops":1,"samples_ns":[5],"switched":[1]}',
        '{"event":"visit","model":"a","round":0,"started_ns":1,"loops":1,"samples_ns":[5],"switched":[],"clock_khz":["x"]}',
        '{"event":"reference","model":"a","round":0,"started_ns":1,"loops":1,"samples_ns":[0],"switched":[]}',
        '{"event":"visit","model":7,"round":0,"started_ns":1,"loops":1,"samples_ns":[5],"switched":[]}',
        '{"event":"hello","protocol":99}',
    ],
)
def test_what_a_device_says_is_checked_before_it_is_believed(agent: LocalAgent, quick: TimingSettings, line: str) -> None:
    liar = agent.store({"liar.py": f"print('runtime chatter')\nprint({line!r})\n".encode()})
    session = Session(_Lying(f"{liar}/liar.py"), Target(runtime="fake"), quick)
    with pytest.raises(RunnerError):
        list(session.measure({"a": STEADY}, [(0, ["a"])]))


class _Lying(LocalAgent):
    """A device whose runner is another program."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def stream(self, argv: Any, *, silence_s: float) -> Any:
        return super().stream([argv[0], self._program], silence_s=silence_s)
