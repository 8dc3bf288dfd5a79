"""What the host makes of crashes, broken links, heat and nonsense. The local runner is the real program with made-up models, the
device that goes away or heats up is the scripted one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sessions import a_session

from device_agents.agent import Agent
from device_agents.discovery import open_agent
from device_agents.errors import LinkLost
from device_agents.local import LocalAgent
from profiler.devices.conditioning import Cooling
from profiler.errors import RunnerError
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d
from profiler.measure.session import MAX_HEAT_STOPS, RECONNECT_S, Session
from profiler.protocol.events import Begin, Done, Energy, Failed, Hello, Idle, Measurement, Paused, Reference, Round, SessionEvent
from profiler.protocol.settings import TimingSettings
from profiler.runtimes import RUNTIMES

CONDITIONING = json.dumps({"latency_ns": 200_000}).encode()
CRASHING = json.dumps({"latency_ns": 1, "crash": True}).encode()
REFUSED = json.dumps({"error": "no such operator"}).encode()
HANGING = json.dumps({"latency_ns": 1, "hang": True}).encode()
SCRIPT = 'seed = 1\n[runtimes]\nlitert = "2.3.0"\n'


@pytest.fixture
def agent() -> Iterator[LocalAgent]:
    with LocalAgent() as agent:
        yield agent


def events(session: Session, models: Mapping[str, bytes], rounds: int = 2, **more: Any) -> list[SessionEvent]:
    return list(session.measure(models, [(number, sorted(models)) for number in range(rounds)], **more))


def measurements(found: list[SessionEvent]) -> list[tuple[str, int]]:
    return sorted((event.model, event.round) for event in found if isinstance(event, Measurement))


def failed(found: list[SessionEvent]) -> dict[str, str]:
    return {event.model: event.reason for event in found if isinstance(event, Failed)}


# ------------------------------------------------------------------------------------------------------------ models at fault


def test_every_model_is_measured_once_a_round(agent: Agent, quick: TimingSettings) -> None:
    found = events(a_session(agent, "fake", quick), {"a": CONDITIONING, "b": CONDITIONING})
    assert measurements(found) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_the_order_is_shuffled_by_the_stored_seed(agent: Agent, quick: TimingSettings) -> None:
    models = {name: json.dumps({"latency_ns": 1000 + number}).encode() for number, name in enumerate("abcdefgh")}

    def order(seed: int) -> list[str]:
        found = events(a_session(agent, "fake", replace(quick, seed=seed)), models, rounds=1)
        return [event.model for event in found if isinstance(event, Measurement)]

    assert order(1) == order(1) != order(2)


def test_a_model_the_runtime_refuses_fails_alone_and_once(agent: Agent, quick: TimingSettings) -> None:
    found = events(a_session(agent, "fake", quick), {"a": CONDITIONING, "bad": REFUSED})
    assert measurements(found) == [("a", 0), ("a", 1)]
    assert "no such operator" in failed(found)["bad"]


def test_a_model_that_takes_the_runner_down_costs_itself_only(agent: Agent, quick: TimingSettings) -> None:
    found = events(a_session(agent, "fake", quick), {"a": CONDITIONING, "b": CONDITIONING, "c": CRASHING})
    assert measurements(found) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert "SIGSEGV" in failed(found)["c"]
    assert sum(isinstance(event, Hello) for event in found) == 3  # the runner was started again after each of two crashes


def test_a_model_that_hangs_is_given_up(agent: Agent, quick: TimingSettings) -> None:
    found = events(a_session(agent, "fake", replace(quick, silence_s=1.0)), {"a": CONDITIONING, "h": HANGING}, rounds=1)
    assert measurements(found) == [("a", 0)]
    assert "for too long" in failed(found)["h"]


def test_the_reference_is_given_up_when_it_crashes(agent: Agent, quick: TimingSettings) -> None:
    found = events(a_session(agent, "fake", quick), {"a": CONDITIONING, "r": CRASHING}, rounds=1, reference="r")
    assert measurements(found) == [("a", 0)]


def test_an_interpreter_without_the_runtime_is_told_with_the_next_step(agent: Agent, quick: TimingSettings) -> None:
    with pytest.raises(RunnerError, match="--python"):
        events(a_session(agent, "tflite-runtime", quick), {"a": b""})


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_runtime_speaks_the_same_lines(agent: Agent, quick: TimingSettings, runtime: str) -> None:
    model = FORMATS[RUNTIMES[runtime].model_format].write(Graph.of_layer(conv2d((1, 16, 16, 8), 16, 3, activation="relu6")))
    found = events(a_session(agent, runtime, quick), {"conv": model}, rounds=1)
    assert [type(event) for event in found] == [Hello, Round, Begin, Measurement, Done]
    hello = found[0]
    assert isinstance(hello, Hello) and hello.runtime == runtime
    assert len(hello.library_sha256 or "") == 64


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_runtime_survives_a_file_that_is_no_model(agent: Agent, quick: TimingSettings, runtime: str) -> None:
    found = events(a_session(agent, runtime, quick), {"bad": b"garbage"}, rounds=1)
    assert [type(event) for event in found if isinstance(event, Measurement | Failed)] == [Failed]


def test_a_probe_names_the_device_and_its_runtimes(agent: Agent, quick: TimingSettings) -> None:
    found = a_session(agent, "onnxruntime", quick).probe()
    assert (found.device.cores or 0) >= 1
    assert found.runtimes["onnxruntime"].version
    assert "fake" not in found.runtimes


def test_a_runner_that_talks_nonsense_is_not_believed(agent: Agent, quick: TimingSettings) -> None:
    line = '{"event":"measurement","model":"a","round":0,"started_ns":1,"loops":1,"samples_ns":[0],"switched":[]}'
    liar = agent.store({"liar.py": f"print('runtime chatter')\nprint({line!r})\n".encode()})
    with pytest.raises(RunnerError):
        events(a_session(_Lying(f"{liar}/liar.py"), "fake", quick), {"a": CONDITIONING})


class _Lying(LocalAgent):
    """A device whose runner is another program."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def stream(self, argv: Any, *, silence_s: float) -> Any:
        return super().stream([argv[0], self._program], silence_s=silence_s)


def test_each_result_is_acknowledged_once_whoever_measures_has_dealt_with_it(quick: TimingSettings) -> None:
    results = 0
    with _Noting() as agent:
        for event in a_session(agent, "fake", quick).measure(
            {"a": CONDITIONING, "bad": REFUSED, "r": CONDITIONING}, [(0, ["a", "bad"])], "r"
        ):
            assert agent.told == b"." * results, f"before {event}"
            results += isinstance(event, Measurement | Reference | Failed)
        assert agent.told == b"." * results == b"..."


class _Noting(LocalAgent):
    """Keeps what its runner is told."""

    told = b""

    @contextmanager
    def stream(self, argv: Any, *, silence_s: float) -> Any:
        with super().stream(argv, silence_s=silence_s) as stream:
            tell = stream.tell

            def noted(data: bytes) -> None:
                self.told += data
                tell(data)

            stream.tell = noted  # type: ignore[method-assign]
            yield stream


# ----------------------------------------------------------------------------------------------------------- devices at fault


def scripted(folder: Path, faults: str, quick: TimingSettings, **more: Any) -> Session:
    path = folder / "script.toml"
    path.write_text(SCRIPT + faults)
    return a_session(open_agent(f"fake:{path}"), "litert", quick, **more)


MODELS = {name: name.encode() * 1000 for name in "abc"}
ALL = [(name, number) for name in "abc" for number in range(2)]


def test_a_broken_link_costs_the_measurement_it_broke_in_only(tmp_path: Path, quick: TimingSettings) -> None:
    slept: list[float] = []
    session = scripted(tmp_path, '[[fault]]\nmeasurement = 3\nkind = "link_lost"\nreconnects = 2\n', quick, sleep=slept.append)
    found = events(session, MODELS)
    assert measurements(found) == ALL
    assert slept == [1.0, 2.0, 4.0]
    assert sum(isinstance(event, Paused) for event in found) == 1


def test_a_device_that_does_not_come_back_is_given_up_after_half_a_minute(tmp_path: Path, quick: TimingSettings) -> None:
    slept: list[float] = []
    session = scripted(tmp_path, '[[fault]]\nmeasurement = 3\nkind = "link_lost"\nreconnects = 99\n', quick, sleep=slept.append)
    seen: list[SessionEvent] = []
    with pytest.raises(LinkLost, match="did not come back within 31 s"):
        for event in session.measure(MODELS, [(0, list(MODELS)), (1, list(MODELS))]):
            seen.append(event)
    assert tuple(slept) == RECONNECT_S
    assert len(measurements(seen)) == 2


def test_a_model_whose_link_breaks_again_and_again_is_taken_for_the_reason(tmp_path: Path, quick: TimingSettings) -> None:
    faults = "".join(f'[[fault]]\nmeasurement = {number}\nkind = "reboot"\n' for number in (1, 2, 3))
    session = scripted(tmp_path, faults, quick, sleep=lambda _: None)
    found = events(session, MODELS)
    (culprit,) = failed(found)
    assert measurements(found) == [(name, number) for name, number in ALL if name != culprit]


def test_a_rebooted_device_gets_its_files_again(tmp_path: Path, quick: TimingSettings) -> None:
    session = scripted(tmp_path, '[[fault]]\nmeasurement = 2\nkind = "reboot"\n', quick, sleep=lambda _: None)
    assert measurements(events(session, MODELS)) == ALL


def test_a_device_without_memory_is_told_so(tmp_path: Path, quick: TimingSettings) -> None:
    faults = "".join(f'[[fault]]\nmeasurement = {number}\nkind = "out_of_memory"\n' for number in (1, 2))
    found = events(scripted(tmp_path, faults, quick), MODELS)
    assert "ran out of memory" in next(iter(failed(found).values()))


def test_a_short_push_is_repeated(tmp_path: Path, quick: TimingSettings) -> None:
    session = scripted(tmp_path, '[[fault]]\npush = 1\nkind = "short_push"\n', quick)
    assert measurements(events(session, MODELS)) == ALL


def test_a_hot_device_is_left_to_cool_and_then_measured(tmp_path: Path, quick: TimingSettings) -> None:
    waited: list[str] = []
    session = scripted(
        tmp_path,
        '[[fault]]\nmeasurement = 1\nkind = "hot"\nrounds = 1\n',
        quick,
        cool=lambda: waited.append("x"),
        cooling=Cooling(),
    )
    found = events(session, MODELS)
    assert measurements(found) == ALL
    assert len(waited) == 2  # at the start, and after the round that said it is hot
    assert sum(isinstance(event, Paused) for event in found) == 1


def test_a_runner_that_reads_heat_where_the_device_has_cooled_down_does_not_keep_it_waiting_for_ever(
    tmp_path: Path, quick: TimingSettings
) -> None:
    waited: list[str] = []
    session = scripted(
        tmp_path,
        '[[fault]]\nmeasurement = 1\nkind = "hot"\nrounds = 1000\n',
        quick,
        cool=lambda: waited.append("x"),
        cooling=Cooling(),
    )
    found = events(session, MODELS)
    assert measurements(found) == ALL
    assert len(waited) == MAX_HEAT_STOPS
    assert "not heeded any more" in [event.reason for event in found if isinstance(event, Paused)][-1]


def test_a_line_that_makes_no_sense_ends_the_run(tmp_path: Path, quick: TimingSettings) -> None:
    with pytest.raises(RunnerError):
        events(scripted(tmp_path, '[[fault]]\nmeasurement = 2\nkind = "garbage"\n', quick), MODELS)


def test_energy_comes_in_lines_of_its_own(tmp_path: Path, quick: TimingSettings) -> None:
    session = scripted(tmp_path, "[energy]\nidle_w = 1.0\nbusy_w = 3.0\n", quick)
    found = list(session.energy(MODELS, [(0, list(MODELS))], 100.0))
    assert sorted(event.model for event in found if isinstance(event, Energy)) == ["a", "b", "c"]
    assert any(isinstance(event, Idle) for event in found)
