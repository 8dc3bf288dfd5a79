from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import events_of, only, runner_of, told, typed_job

from device_agents.agent import Options
from device_agents.errors import DeviceError
from device_agents.local import LocalAgent
from device_agents.replay import ReplayAgent
from profiler.devices.config import Device
from profiler.errors import RunnerError
from profiler.measure.opening import choose_runner
from profiler.protocol.events import (
    Conditions,
    DeviceFacts,
    Done,
    Failed,
    Hello,
    Measurement,
    Reference,
    Round,
    RunEvent,
    RuntimeState,
)
from profiler.protocol.journal import FORMAT
from profiler.protocol.settings import Target
from profiler.runners.replay import ReplayRunner
from profiler.runners.walk import conditions_of

Line = dict[str, Any]
HEADER = {"event": "journal", "format": FORMAT, "target": {"runtime": "fake", "threads": 1, "device": "local"}, "settings": {}}
HELLO = {
    "event": "hello",
    "protocol": 5,
    "device": {
        "system": "Linux", "kernel": "6.1", "machine": "aarch64", "cpu": "Board 9000", "cores": 4, "memory_bytes": 1 << 30,
        "governor": "performance", "python": "3.8.1",
    },
    "runtime": "fake", "version": "0", "library_sha256": "a" * 64, "flags": {"delegate": "none"}, "runner_sha256": "b" * 64,
    "affinity": [0, 1], "pid": 77,
}  # fmt: skip


def measurement(key: str, sample_ns: int, event: str = "measurement") -> Line:
    return {
        "event": event, "model": key, "round": 0, "started_ns": 5, "loops": 2, "samples_ns": [sample_ns, sample_ns],
        "switched": [1], "clock_khz": None,
    }  # fmt: skip


def a_round(number: int, temperature_c: float) -> Line:
    return {
        "event": "round", "round": number, "clock_ns": 1000 + number, "load_1min": 0.5, "frequencies_khz": [1000],
        "temperature_c": temperature_c, "throttled": 0,
    }  # fmt: skip


def recorded(folder: Path, *lines: Mapping[str, Any], name: str = "table.journal.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, HELLO, *lines)))
    return f"replay:{path}"


class Recording:
    """A journal as a device, with its runner."""

    def __init__(self, address: str) -> None:
        self.agent = ReplayAgent(address, Options())
        self.runner = runner_of(self.agent)

    def play(self, schedule: Sequence[Sequence[str]], **more: Any) -> list[RunEvent]:
        names = {name for names in schedule for name in names} | ({more["reference"]} if more.get("reference") else set())
        self.agent.store({f"{name}.json": b"{}" for name in names})
        return list(events_of(self.runner, typed_job(sorted(names), schedule, **({"runtime": "fake"} | more))))


def samples(events: Sequence[RunEvent], kind: type[Measurement] | type[Reference] = Measurement) -> list[int]:
    return [event.samples_ns[0] for event in events if isinstance(event, kind)]


def test_a_job_is_answered_as_by_a_runner(tmp_path: Path) -> None:
    recording = Recording(recorded(tmp_path, measurement("a", 10), measurement("b", 20)))
    assert told(recording.play(["ba"])) == ["hello", "round 0", "begin b", "measurement b", "begin a", "measurement a", "done"]


def test_measurements_come_in_the_order_they_were_recorded_and_then_again(tmp_path: Path) -> None:
    recording = Recording(recorded(tmp_path, measurement("a", 10), measurement("b", 20), measurement("a", 11)))
    assert samples(recording.play(["a", "a", "a"])) == [10, 11, 10]


def test_the_next_job_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    recording = Recording(recorded(tmp_path, measurement("a", 10), measurement("a", 11)))
    assert samples(recording.play(["a"])) + samples(recording.play(["a"])) == [10, 11]


def test_a_measurement_is_told_with_all_that_was_recorded_in_the_round_that_was_asked_for(tmp_path: Path) -> None:
    recording = Recording(recorded(tmp_path, measurement("a", 10) | {"clock_khz": [1000, 900], "core": 3}))
    (found,) = only(recording.play([[], [], "a"]), Measurement)
    assert found == Measurement("a", 2, 2, (10, 10), (1,), 5, clock_khz=(1000, 900), core=3)


def test_looks_at_the_reference_are_those_recorded(tmp_path: Path) -> None:
    lines = [measurement("a", 10), measurement("r", 5), measurement("r", 3, "reference"), measurement("r", 4, "reference")]
    found = Recording(recorded(tmp_path, *lines)).play(["aaa"], reference="r", reference_every=2)
    assert [event for event in told(found) if event.startswith(("measurement", "ref"))] == [
        "reference r", "measurement a", "measurement a", "reference r", "measurement a",
    ]  # fmt: skip
    assert samples(found, Reference) == [3, 4]


def test_a_reference_that_was_none_then_is_taken_from_its_measurements(tmp_path: Path) -> None:
    found = Recording(recorded(tmp_path, measurement("a", 10))).play(["a"], reference="a")
    assert (samples(found, Reference), samples(found)) == ([10], [10])


def test_a_model_that_failed_fails_for_the_same_reason_and_once(tmp_path: Path) -> None:
    failed = {"event": "failed", "model": "b", "round": 0, "reason": "no such operator", "crash": True}
    found = Recording(recorded(tmp_path, measurement("a", 10), failed)).play(["ab", "ba"])
    assert only(found, Failed) == [Failed("b", 0, "no such operator")]


def test_a_model_that_was_not_recorded_fails(tmp_path: Path) -> None:
    found = Recording(recorded(tmp_path, measurement("a", 10))).play(["xa"])
    assert told(found) == ["hello", "round 0", "begin x", "failed x", "begin a", "measurement a", "done"]
    assert only(found, Failed)[0].reason == "not in the recording"


def test_rounds_have_the_conditions_of_those_recorded(tmp_path: Path) -> None:
    recording = Recording(recorded(tmp_path, a_round(0, 40), a_round(1, 60), measurement("a", 10)))
    found = recording.play(["a", "a", "a"])
    assert [event.temperature_c for event in only(found, Round)] == [40, 60, 40]
    assert only(found, Done)[0].temperature_c == 40


def test_conditions_that_were_not_recorded_are_null(tmp_path: Path) -> None:
    (found,) = only(Recording(recorded(tmp_path, measurement("a", 10))).play(["a"]), Round)
    assert conditions_of(found) == conditions_of(Conditions())


def test_it_says_that_it_is_a_recording_and_of_which_device(tmp_path: Path) -> None:
    (hello,) = only(Recording(recorded(tmp_path, measurement("a", 10))).play(["a"]), Hello)
    assert hello.flags == {"delegate": "none", "replayed": "table.journal.jsonl"}
    assert hello.device == DeviceFacts(**HELLO["device"])
    assert (hello.library_sha256, hello.affinity) == ("a" * 64, (0, 1))


def test_a_probe_is_answered_from_the_hello(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, HELLO | {"runtime": "litert", "version": "2.3.0"})))
    probe = Recording(f"replay:{path}").runner.probe()
    assert (probe.device, probe.runtimes) == (DeviceFacts(**HELLO["device"]), {"litert": RuntimeState("2.3.0")})


def test_no_command_can_be_run(tmp_path: Path) -> None:
    agent = Recording(recorded(tmp_path)).agent
    with pytest.raises(DeviceError, match=r"is a recording: `python3 conditions\.py`"):
        agent.run(["python3", "conditions.py"], timeout_s=1)
    with pytest.raises(DeviceError, match="is a recording: `cat"), agent.stream(["cat", "/etc/job.json"], silence_s=1):
        pass


def test_its_own_runner_measures_unless_another_is_named(tmp_path: Path) -> None:
    agent = Recording(recorded(tmp_path)).agent
    device, target = Device("phone", agent.address), Target("phone", "fake")
    assert isinstance(choose_runner(agent, device, target), ReplayRunner)
    with pytest.raises(RunnerError, match=r"fake:SCRIPT\.toml"):
        choose_runner(agent, device, Target("phone", "fake", runner="simulated"))


def test_on_another_kind_of_device_it_is_refused() -> None:
    with pytest.raises(RunnerError, match="for devices such as replay:JOURNAL, not for local"):
        ReplayRunner(LocalAgent(), Device("local", "local"), Target())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"runtime": "litert"}, "recorded with runtime fake, not litert"),
        ({"threads": 2}, "recorded with threads 1, not 2"),
        ({"outputs": 4}, "outputs must be measured on the device itself"),
        ({"energy_ms": 100}, "energy must be measured on the device itself"),
    ],
    ids=str,
)
def test_what_was_not_recorded_cannot_be_asked_for(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(RunnerError, match=said):
        Recording(recorded(tmp_path, measurement("a", 10))).play(["a"], **more)


def test_a_runtime_that_the_hello_does_not_name_is_that_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, HELLO | {"runtime": None})))
    with pytest.raises(RunnerError, match="recorded with runtime fake, not litert"):
        Recording(f"replay:{path}").play(["a"], runtime="litert")


def test_a_model_whose_file_was_never_stored_fails(tmp_path: Path) -> None:
    recording = Recording(recorded(tmp_path, measurement("a", 10)))
    assert "failed a" in told(events_of(recording.runner, typed_job(["a"], ["a"], runtime="fake")))


def test_cleaning_empties_the_store(tmp_path: Path) -> None:
    agent = Recording(recorded(tmp_path)).agent
    agent.store({"x": b"12345"})
    assert (agent.clean(), agent.clean()) == (5, 0)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    address = recorded(tmp_path, measurement("a", 10))
    with (tmp_path / "table.journal.jsonl").open("a") as file:
        file.write('{"event":"measurement","model":"a","rou')
    assert samples(Recording(address).play(["a", "a"])) == [10, 10]


@pytest.mark.parametrize(
    "damage",
    [
        "garbage",
        "[]",
        "[" * 100_000,
        '{"event":"measurement"}',
        '{"event":"failed","model":"a"}',
        '{"event":"hello","device":{}}',
        json.dumps(HEADER),
        json.dumps(measurement("a", 0)),
        json.dumps(measurement("a", 1) | {"switched": [9]}),
        json.dumps(measurement("a", 1) | {"loops": True}),
    ],
    ids=lambda damage: damage[:40],
)
def test_damage_is_told_with_its_line(tmp_path: Path, damage: str) -> None:
    address = recorded(tmp_path)
    with (tmp_path / "table.journal.jsonl").open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(RunnerError, match=r"line 3 is damaged.*; replay the journal of a build, whole"):
        Recording(address)


def test_a_file_that_is_no_journal_is_told_with_the_format_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"event":"hello"}\n')
    with pytest.raises(RunnerError, match=f"not a journal of format {FORMAT}"):
        Recording(f"replay:{tmp_path / 'j'}")


def test_a_journal_without_measurements_cannot_be_replayed(tmp_path: Path) -> None:
    (tmp_path / "j").write_text(json.dumps(HEADER) + "\n")
    with pytest.raises(RunnerError, match="no measurement"):
        Recording(f"replay:{tmp_path / 'j'}")


@pytest.mark.parametrize("address", ["replay", "replay:", "replay:/no/such/file"])
def test_without_a_journal_it_is_said_what_is_wanted(address: str) -> None:
    with pytest.raises((DeviceError, RunnerError), match="journal of a build"):
        Recording(address)


@given(st.binary(max_size=200) | st.text().map(lambda text: (json.dumps(HEADER) + "\n" + text + "\n").encode()))
def test_any_bytes_give_a_recording_or_our_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "j")
        path.write_bytes(data)
        with pytest.raises(RunnerError) as caught:
            Recording(f"replay:{path}")
    assert "\n" not in str(caught.value)
