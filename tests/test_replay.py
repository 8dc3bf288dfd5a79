from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner_conformance import CONDITIONS, a_job, checked, events, told

from device_agents.agent import Options
from device_agents.errors import DeviceError
from device_agents.replay import ReplayAgent

Line = dict[str, Any]
HEADER = {"event": "journal", "format": 4, "target": {"runtime": "fake", "threads": 1, "device": "local"}, "settings": {}}
HELLO = {
    "event": "hello",
    "protocol": 2,
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


def play(agent: ReplayAgent, schedule: Sequence[Sequence[str]], **more: Any) -> list[Line]:
    names = {name for names in schedule for name in names} | ({more["reference"]} if more.get("reference") else set())
    job = a_job(dict.fromkeys(sorted(names)), schedule, **more)
    folder = agent.store({f"{name}.json": b"{}" for name in names} | {"job.json": json.dumps(job).encode()})
    with agent.stream(["python3", f"{folder}/measure.py", f"{folder}/job.json"], silence_s=1) as stream:
        lines = [checked(line) for line in stream]
        assert (stream.returncode, stream.stderr) == (0, "")
    return lines


def samples(lines: Sequence[Line], event: str = "measurement") -> list[int]:
    return [line["samples_ns"][0] for line in events(lines, event)]


def test_a_job_is_answered_as_by_a_runner(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path, measurement("a", 10), measurement("b", 20)), Options())
    assert told(play(agent, ["ba"])) == ["hello", "round 0", "begin b", "measurement b", "begin a", "measurement a", "done"]


def test_measurements_come_in_the_order_they_were_recorded_and_then_again(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path, measurement("a", 10), measurement("b", 20), measurement("a", 11)), Options())
    assert samples(play(agent, ["a", "a", "a"])) == [10, 11, 10]


def test_the_next_job_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path, measurement("a", 10), measurement("a", 11)), Options())
    assert samples(play(agent, ["a"])) + samples(play(agent, ["a"])) == [10, 11]


def test_a_measurement_is_told_with_all_that_was_recorded_in_the_round_that_was_asked_for(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path, measurement("a", 10)), Options())
    (line,) = events(play(agent, [[], [], "a"]), "measurement")
    assert line == {
        "event": "measurement", "model": "a", "round": 2, "started_ns": 5, "loops": 2, "samples_ns": [10, 10], "switched": [1],
        "clock_khz": None, "core": None,
    }  # fmt: skip


def test_looks_at_the_reference_are_those_recorded(tmp_path: Path) -> None:
    lines = [measurement("a", 10), measurement("r", 5), measurement("r", 3, "reference"), measurement("r", 4, "reference")]
    found = play(ReplayAgent(recorded(tmp_path, *lines), Options()), ["aaa"], reference="r", reference_every=2)
    assert [line for line in told(found) if line.startswith(("measurement", "ref"))] == [
        "reference r", "measurement a", "measurement a", "reference r", "measurement a",
    ]  # fmt: skip
    assert samples(found, "reference") == [3, 4]


def test_a_reference_that_was_none_then_is_taken_from_its_measurements(tmp_path: Path) -> None:
    found = play(ReplayAgent(recorded(tmp_path, measurement("a", 10)), Options()), ["a"], reference="a")
    assert (samples(found, "reference"), samples(found)) == ([10], [10])


def test_a_model_that_failed_fails_for_the_same_reason_and_once(tmp_path: Path) -> None:
    failed = {"event": "failed", "model": "b", "round": 0, "reason": "no such operator", "crash": True}
    found = play(ReplayAgent(recorded(tmp_path, measurement("a", 10), failed), Options()), ["ab", "ba"])
    assert [line["reason"] for line in events(found, "failed")] == ["no such operator"]


def test_a_model_that_was_not_recorded_fails(tmp_path: Path) -> None:
    found = play(ReplayAgent(recorded(tmp_path, measurement("a", 10)), Options()), ["xa"])
    assert told(found) == ["hello", "round 0", "begin x", "failed x", "begin a", "measurement a", "done"]
    assert events(found, "failed")[0]["reason"] == "not in the recording"


def test_rounds_have_the_conditions_of_those_recorded(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path, a_round(0, 40), a_round(1, 60), measurement("a", 10)), Options())
    found = play(agent, ["a", "a", "a"])
    assert [line["temperature_c"] for line in events(found, "round")] == [40, 60, 40]
    assert found[-1]["temperature_c"] == 40


def test_conditions_that_were_not_recorded_are_null(tmp_path: Path) -> None:
    (found,) = events(play(ReplayAgent(recorded(tmp_path, measurement("a", 10)), Options()), ["a"]), "round")
    assert {name: found[name] for name in CONDITIONS} == dict.fromkeys(CONDITIONS)


def test_it_says_that_it_is_a_recording_and_of_which_device(tmp_path: Path) -> None:
    hello = play(ReplayAgent(recorded(tmp_path, measurement("a", 10)), Options()), ["a"])[0]
    assert hello["flags"] == {"delegate": "none", "replayed": "table.journal.jsonl"}
    assert hello["device"] == HELLO["device"]


def test_a_probe_is_answered_from_the_hello(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, HELLO | {"runtime": "litert", "version": "2.3.0"})))
    with ReplayAgent(f"replay:{path}", Options()) as agent:
        result = agent.run([agent.interpreter(), "measure.py", "--probe", "/in-memory"], timeout_s=1).check()
    line = checked(result.stdout)
    assert (line["device"], line["runtimes"]) == (HELLO["device"], {"litert": {"version": "2.3.0"}})


def test_no_other_command_can_be_run(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path), Options())
    with pytest.raises(DeviceError, match="is a recording"):
        agent.run(["python3", "conditions.py"], timeout_s=1)
    with pytest.raises(DeviceError, match="is a recording"), agent.stream(["cat", "/etc/job.json"], silence_s=1):
        pass


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
    with pytest.raises(DeviceError, match=said):
        play(ReplayAgent(recorded(tmp_path, measurement("a", 10)), Options()), ["a"], **more)


@pytest.mark.parametrize(
    "job",
    [b"garbage", b"[]", b'{"format": 4}', b'{"format": 4}', b"[" * 100_000, json.dumps(a_job({}, ["a"])).encode()],
    ids=lambda job: repr(job[:20]),
)
def test_a_job_that_makes_no_sense_ends_the_runner(tmp_path: Path, job: bytes) -> None:
    agent = ReplayAgent(recorded(tmp_path), Options())
    folder = agent.store({"job.json": job})
    with agent.stream(["python3", "measure.py", f"{folder}/job.json"], silence_s=1) as stream:
        assert list(stream) == []
        assert (stream.returncode, stream.stderr != "") == (1, True)


def test_a_job_that_was_never_stored_ends_the_runner(tmp_path: Path) -> None:
    with ReplayAgent(recorded(tmp_path), Options()).stream(["m", "/in-memory/job.json"], silence_s=1) as stream:
        assert (list(stream), stream.returncode) == ([], 1)


def test_a_model_whose_file_was_never_stored_fails(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path, measurement("a", 10)), Options())
    folder = agent.store({"job.json": json.dumps(a_job({"a": None}, ["a"])).encode()})
    with agent.stream(["m", f"{folder}/job.json"], silence_s=1) as stream:
        assert "failed a" in told([checked(line) for line in stream])


def test_cleaning_empties_the_store(tmp_path: Path) -> None:
    agent = ReplayAgent(recorded(tmp_path), Options())
    agent.store({"x": b"12345"})
    assert (agent.clean(), agent.clean()) == (5, 0)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    address = recorded(tmp_path, measurement("a", 10))
    with (tmp_path / "table.journal.jsonl").open("a") as file:
        file.write('{"event":"measurement","model":"a","rou')
    assert samples(play(ReplayAgent(address, Options()), ["a", "a"])) == [10, 10]


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
    with pytest.raises(DeviceError, match="line 3 is damaged"):
        ReplayAgent(address, Options())


def test_a_file_that_is_no_journal_is_told_at_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"event":"hello"}\n')
    with pytest.raises(DeviceError, match="line 1"):
        ReplayAgent(f"replay:{tmp_path / 'j'}", Options())


def test_a_journal_without_measurements_cannot_be_replayed(tmp_path: Path) -> None:
    (tmp_path / "j").write_text(json.dumps(HEADER) + "\n")
    with pytest.raises(DeviceError, match="no measurement"):
        ReplayAgent(f"replay:{tmp_path / 'j'}", Options())


@pytest.mark.parametrize("address", ["replay", "replay:", "replay:/no/such/file"])
def test_without_a_journal_it_is_said_what_is_wanted(address: str) -> None:
    with pytest.raises(DeviceError, match="journal of a build"):
        ReplayAgent(address, Options())


@given(st.binary(max_size=200) | st.text().map(lambda text: (json.dumps(HEADER) + "\n" + text + "\n").encode()))
def test_any_bytes_give_a_recording_or_our_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "j")
        path.write_bytes(data)
        with pytest.raises(DeviceError) as caught:
            ReplayAgent(f"replay:{path}", Options())
    assert "\n" not in str(caught.value)
