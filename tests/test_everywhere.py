"""One set of facts for every way of measuring: each agent with each runner, a recording and a simulated device.

The devices at the other end are OpenSSH's server, a simulated phone behind Google's adb server and one reached straight, all on
this machine; the runners are the real ones with the fake runtime.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from adb_program import adb, adb_environment, connect
from adbd import Adbd
from runner_conformance import checked
from sessions import a_session
from sshd import Sshd

from device_agents.agent import Options
from device_agents.discovery import open_agent
from profiler.measure.loop import MeasurementRun, Model
from profiler.measure.session import Session
from profiler.progress import Silent
from profiler.protocol.events import (
    Begin,
    Done,
    Failed,
    Hello,
    Measurement,
    Outputs,
    Paused,
    Reference,
    Round,
    RunnerEvent,
    SessionEvent,
)
from profiler.protocol.journal import Journal
from profiler.protocol.lines import event_data, parse_line
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners import program

MODELS = {name: json.dumps({"latency_ns": 100_000 + number}).encode() for number, name in enumerate("abcd")}
CRASHING = json.dumps({"latency_ns": 1, "crash": True}).encode()
RUNNERS = ("python", "native")
PLACES = ("local", "ssh", "adb server", "adb direct")
SCRIPT = 'seed = 1\n[runtimes]\nlitert = "2.3.0"\n'


def needs(program: str, package: str) -> None:
    if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
        pytest.skip(f"needs {program}; on Debian: apt install {package}")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[str, Options]]]:
    """The address and options of each place; its server is started when it is first asked for."""
    with ExitStack() as stack:
        found: dict[str, tuple[str, Options]] = {"local": ("local", Options())}

        def place(name: str) -> tuple[str, Options]:
            if name not in found:
                found[name] = _started(name, tmp_path_factory.mktemp("place"), stack)
            return found[name]

        yield place


def _started(name: str, folder: Path, stack: ExitStack) -> tuple[str, Options]:
    if name == "ssh":
        needs("sshd", "openssh-server")
        server = stack.enter_context(Sshd(folder / "sshd"))
        return "ssh:board", Options(ssh_config=str(server.point_at(server.port)))
    phone = stack.enter_context(Adbd())
    if name == "adb server":
        needs("adb", "adb")
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        variables = stack.enter_context(adb_environment(folder / "home"))
        for variable, value in variables.items():
            if variable != "PATH":
                patch.setenv(variable, value)
        adb(variables, "start-server")
        connect(variables, f"{phone.host}:{phone.port}")
    return f"adb:{phone.host}:{phone.port}", Options(folder=str(folder))


@pytest.fixture(params=[(place, runner) for place in PLACES for runner in RUNNERS], ids=" ".join)
def session(
    request: pytest.FixtureRequest, places: Callable[[str], tuple[str, Options]], quick: TimingSettings
) -> Iterator[Session]:
    place, runner = request.param
    with open_agent(*places(place)) as agent:
        yield a_session(agent, "fake", quick, runner)


def events(session: Session, models: Mapping[str, bytes] = MODELS, rounds: int = 2, **more: Any) -> list[SessionEvent]:
    return list(session.measure(models, [(number, sorted(models)) for number in range(rounds)], **more))


def measurements(found: list[SessionEvent]) -> list[tuple[str, int]]:
    return sorted((event.model, event.round) for event in found if isinstance(event, Measurement))


def test_every_model_is_measured_once_a_round(session: Session) -> None:
    assert measurements(events(session)) == [(name, number) for name in "abcd" for number in range(2)]


@pytest.fixture
def raw_lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runner's lines as they arrive at the host."""
    found: list[str] = []

    def noted(line: str) -> RunnerEvent | None:
        found.append(line)
        return parse_line(line)

    monkeypatch.setattr(program, "parse_line", noted)
    return found


def test_every_line_is_one_of_the_protocol(session: Session, raw_lines: list[str]) -> None:
    events(session, reference="a")
    assert {checked(line)["event"] for line in raw_lines} >= {"hello", "round", "begin", "measurement", "reference", "done"}


def test_models_take_as_long_as_they_say(session: Session) -> None:
    for event in events(session):
        if isinstance(event, Measurement):
            assert min(event.samples_ns) >= 100_000 * event.loops


def test_a_model_that_takes_the_runner_down_costs_itself_only(session: Session) -> None:
    found = events(session, MODELS | {"x": CRASHING})
    assert measurements(found) == [(name, number) for name in "abcd" for number in range(2)]
    (failed,) = [event for event in found if isinstance(event, Failed)]
    assert (failed.model, "SIGSEGV" in failed.reason) == ("x", True)


def test_a_probe_says_what_the_device_is(session: Session, raw_lines: list[str]) -> None:
    assert session.probe().device.machine
    assert "probe" in {checked(line)["event"] for line in raw_lines if line.startswith("{")}


def test_outputs_come_from_everywhere(session: Session) -> None:
    model = json.dumps({"latency_ns": 1, "inputs": [{"shape": [2, 2], "type": "float32"}]}).encode()
    (found,) = [event for event in session.outputs({"a": model}, 3) if isinstance(event, Outputs)]
    assert len(found.outputs[0].values) == 3


# ---------------------------------------------------------------------------------------------- devices that do not exist


@contextmanager
def recorded(folder: Path, quick: TimingSettings) -> Iterator[Session]:
    """A session on the recording of a session on this machine."""
    path = folder / "table.journal.jsonl"
    with open_agent("local") as agent, Journal(path, Target("local", "fake"), quick, resume=False) as journal:
        run = MeasurementRun(a_session(agent, "fake", quick), Silent(), journal)
        run.add(Model(name, file) for name, file in MODELS.items())
        for event in run.session.measure(MODELS, [(0, list(MODELS)), (1, list(MODELS))], reference="a"):
            run._take_up(event)
    with open_agent(f"replay:{path}") as agent:
        yield a_session(agent, "fake", quick)


@contextmanager
def scripted(folder: Path, quick: TimingSettings) -> Iterator[Session]:
    (folder / "script.toml").write_text(SCRIPT)
    with open_agent(f"fake:{folder}/script.toml") as agent:
        yield a_session(agent, "fake", quick)


@pytest.mark.parametrize("kind", [recorded, scripted], ids=["replay", "fake"])
def test_a_device_that_does_not_exist_speaks_like_one_that_does(kind: Any, tmp_path: Path, quick: TimingSettings) -> None:
    with kind(tmp_path, quick) as session:
        found = events(session, reference="a")
    assert {Hello, Round, Begin, Measurement, Reference, Done} == {*map(type, found)}
    assert [parse_line(json.dumps(event_data(event))) for event in found if not isinstance(event, Paused)] == found
    assert measurements(found) == [(name, number) for name in "abcd" for number in range(2)]
    assert isinstance(found[0], Hello) and {"simulated", "replayed"} & found[0].flags.keys()
