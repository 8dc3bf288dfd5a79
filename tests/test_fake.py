from __future__ import annotations

import json
import random
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner_conformance import a_job, checked, events, told

from device_agents.agent import Options
from device_agents.errors import CommandTimedOut, DeviceError, DeviceUnreachable, LinkLost, StoreFailed
from device_agents.fake import FakeAgent

Line = dict[str, Any]
RUNTIMES = '[runtimes]\nlitert = "2.3.0"\n'
MODELS = {"a": b"x" * 1000, "b": b"x" * 3000}


def opened(folder: Path, script: str = "") -> FakeAgent:
    path = folder / "script.toml"
    path.write_text(RUNTIMES + script)
    return FakeAgent(f"fake:{path}", Options())


@dataclass
class Played:
    lines: list[str]
    error: DeviceError | None
    returncode: int | None
    stderr: str

    @property
    def checked(self) -> list[Line]:
        return [checked(line) for line in self.lines]

    @property
    def told(self) -> list[str]:
        return told(self.checked)


def play(agent: FakeAgent, schedule: Sequence[Sequence[str]], models: Mapping[str, bytes] = MODELS, **more: Any) -> Played:
    """A job run as far as it gets."""
    job = a_job(models, schedule, **({"runtime": "litert"} | more))
    folder = agent.store({f"{name}.json": data for name, data in models.items()} | {f"{id(job)}.json": json.dumps(job).encode()})
    found = Played([], None, None, "")
    with agent.stream(["python3", f"{folder}/measure.py", f"{folder}/{id(job)}.json"], silence_s=3600) as stream:
        try:
            found.lines.extend(stream)
        except DeviceError as exc:
            found.error = exc
    found.returncode, found.stderr = stream.returncode, stream.stderr
    return found


def fault(measurement: int, kind: str, more: str = "") -> str:
    return f'[[fault]]\nmeasurement = {measurement}\nkind = "{kind}"\n{more}\n'


def latencies_us(lines: Sequence[Line]) -> list[float]:
    return [sample / line["loops"] / 1e3 for line in lines for sample in line["samples_ns"]]


# ------------------------------------------------------------------------------------------------------------------ behaviour


def test_a_job_is_answered_as_by_a_runner(tmp_path: Path) -> None:
    found = play(opened(tmp_path), ["ba", "a"], reference="b", reference_every=2)
    measurements = ["begin b", "reference b", "begin b", "measurement b", "begin a", "measurement a"]
    assert found.told == [
        "hello",
        "round 0",
        *measurements,
        "round 1",
        "begin b",
        "reference b",
        "begin a",
        "measurement a",
        "done",
    ]
    assert (found.returncode, found.stderr, found.error) == (0, "", None)


def test_a_models_latency_follows_from_the_size_of_its_file(tmp_path: Path) -> None:
    agent = opened(tmp_path, "[latency]\nbase_us = 20\nus_per_kilobyte = 1.5")
    found = events(play(agent, ["ab"]).checked, "measurement")
    assert latencies_us(found[:1]) == pytest.approx([21.5] * len(found[0]["samples_ns"]), rel=1e-4)
    assert latencies_us(found[1:]) == pytest.approx([24.5] * len(found[1]["samples_ns"]), rel=1e-4)


def test_a_measurement_has_the_samples_that_the_job_asks_for(tmp_path: Path) -> None:
    found = play(opened(tmp_path), ["a"], measurement_ms=10, sample_ms=1, reference="a", reference_ms=3, min_samples=2).checked
    (measurement,), (look,) = events(found, "measurement"), events(found, "reference")
    assert [len(line["samples_ns"]) for line in (measurement, look)] == [10, 3]
    assert min(measurement["samples_ns"]) >= 1_000_000


def test_noise_is_only_added_and_the_same_for_a_seed(tmp_path: Path) -> None:
    noisy = "[latency]\nbase_us = 100\nus_per_kilobyte = 0\nnoise_percent = 2"
    first, second = (latencies_us(events(play(opened(tmp_path, noisy), ["a"] * 9).checked, "measurement")) for _ in range(2))
    assert first == second
    assert min(first) >= 100
    assert 101 < sum(first) / len(first) < 103
    other = opened(tmp_path, noisy)
    (tmp_path / "script.toml").write_text("seed = 2\n" + RUNTIMES + noisy)
    assert latencies_us(events(play(FakeAgent(other.address, Options()), ["a"] * 9).checked, "measurement")) != first


def test_slow_spells_come_and_go_by_the_devices_own_clock(tmp_path: Path) -> None:
    agent = opened(tmp_path, "[slow]\nevery_s = 10\nfor_s = 5\npercent = 50\n[latency]\nbase_us = 100\nus_per_kilobyte = 0")
    found = latencies_us(events(play(agent, ["a"] * 40, min_round_s=1).checked, "measurement"))
    assert {round(latency) for latency in found} == {100, 150}
    assert 0.4 < sum(latency > 120 for latency in found) / len(found) < 0.6


def test_rounds_last_as_long_as_they_shall_without_anybody_sleeping(tmp_path: Path) -> None:
    first, second = events(play(opened(tmp_path), ["a", "a"], min_round_s=3600).checked, "round")
    assert second["clock_ns"] - first["clock_ns"] == 3600 * 10**9


def test_a_build_of_hundreds_of_layers_is_a_matter_of_lines(tmp_path: Path) -> None:
    models = {f"m{number}": random.Random(number).randbytes(number) for number in range(300)}
    found = play(opened(tmp_path), [list(models)] * 6, models, measurement_ms=30, sample_ms=1, min_round_s=0.4)
    assert len(events([json.loads(line) for line in found.lines], "measurement")) == 1800


def test_it_says_that_it_is_simulated(tmp_path: Path) -> None:
    hello = play(opened(tmp_path, '[device]\ncpu = "Cortex-A55"\ncores = 8\nmachine = "aarch64"'), ["a"]).checked[0]
    assert hello["flags"] == {"simulated": True}
    assert (hello["device"]["cpu"], hello["device"]["cores"], hello["device"]["machine"]) == ("simulated Cortex-A55", 8, "aarch64")
    assert (hello["runtime"], hello["version"], hello["affinity"]) == ("litert", "2.3.0", list(range(8)))


def test_a_probe_names_the_runtimes_of_the_script(tmp_path: Path) -> None:
    with opened(tmp_path) as agent:
        result = agent.run([agent.interpreter(), "measure.py", "--probe", "/in-memory"], timeout_s=1).check()
    line = checked(result.stdout)
    assert line["runtimes"] == {"litert": {"version": "2.3.0"}}
    assert line["device"]["cpu"].startswith("simulated")


def test_no_other_command_can_be_run(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="is simulated"):
        opened(tmp_path).run(["sh", "-c", "ls"], timeout_s=1)


def test_a_runtime_that_it_has_not_ends_the_runner(tmp_path: Path) -> None:
    found = play(opened(tmp_path), ["a"], runtime="onnxruntime")
    assert (found.lines, found.returncode) == ([], 1)
    assert "onnxruntime" in found.stderr


def test_the_cores_asked_for_are_those_it_runs_on(tmp_path: Path) -> None:
    found = play(opened(tmp_path), ["a"], cpus=[1, 2]).checked
    assert (found[0]["affinity"], events(found, "measurement")[0]["core"]) == ([1, 2], 2)


def test_a_core_that_it_has_not_ends_the_runner(tmp_path: Path) -> None:
    found = play(opened(tmp_path, "[device]\ncores = 2"), ["a"], cpus=[2])
    assert (found.lines, found.returncode) == ([], 1)
    assert "core 2" in found.stderr


def test_clocks_are_told_where_the_script_has_any(tmp_path: Path) -> None:
    found = play(opened(tmp_path, "[device]\ncores = 2\nclock_khz = 1800000\ntemperature_c = 41.5"), ["a"]).checked
    (begun,), (measurement,) = events(found, "round"), events(found, "measurement")
    assert (begun["frequencies_khz"], begun["temperature_c"], measurement["clock_khz"]) == ([1800000] * 2, 41.5, [1800000] * 2)


def test_outputs_follow_from_the_file_alone(tmp_path: Path) -> None:
    first, second = (events(play(opened(tmp_path), ["ab"], outputs=4, reference="a").checked, "outputs") for _ in range(2))
    assert first == second
    assert first[0]["outputs"] != first[1]["outputs"]
    assert [len(line["outputs"][0]["values"]) for line in first] == [4, 4]


def test_energy_is_power_times_time(tmp_path: Path) -> None:
    agent = opened(tmp_path, "[energy]\nidle_w = 1\nbusy_w = 3")
    found = play(agent, ["a"], energy_ms=100, reference="a").checked
    assert told(found) == ["hello", "round 0", "idle 0", "begin a", "energy a", "done"]
    (idle,), (measurement,) = events(found, "idle"), events(found, "energy")
    assert (idle["duration_ns"], idle["energy_uj"]) == (100_000_000, 100_000)
    assert measurement["energy_uj"] == pytest.approx(3 * measurement["duration_ns"] / 1e3, abs=1)


def test_a_device_without_a_counter_ends_an_energy_job(tmp_path: Path) -> None:
    found = play(opened(tmp_path), ["a"], energy_ms=100)
    assert (found.lines, found.returncode) == ([], 1)
    assert "energy" in found.stderr


@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        ({"latency_ns": 5000}, "measurement m"),
        ({"error": "no such operator"}, "failed m"),
        ({"latency_ns": 1, "nan": True}, "failed m"),
        ({}, "failed m"),
        ([], "failed m"),
        ({"latency_ns": 1, "crash": True}, "begin m"),
        ({"latency_ns": 1, "hang": True}, "begin m"),
    ],
    ids=str,
)
def test_a_model_of_the_fake_runtime_behaves_as_it_says(tmp_path: Path, model: object, outcome: str) -> None:
    found = play(opened(tmp_path), ["m"], {"m": json.dumps(model).encode()}, runtime="fake")
    assert [line for line in found.told if line != "done"][-1] == outcome


# --------------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("kind", "more", "number"),
    [("crash", "", signal.SIGSEGV), ("crash", 'signal = "SIGBUS"', signal.SIGBUS), ("out_of_memory", "", signal.SIGKILL)],
)
def test_a_crash_ends_the_stream_by_its_signal(tmp_path: Path, kind: str, more: str, number: int) -> None:
    found = play(opened(tmp_path, fault(2, kind, more)), ["ab"])
    assert (found.told[-1], found.returncode) == ("begin b", -number)


def test_a_fault_comes_once_in_a_session(tmp_path: Path) -> None:
    agent = opened(tmp_path, fault(2, "crash"))
    assert play(agent, ["ab"]).returncode == -signal.SIGSEGV
    assert [play(agent, ["ab"]).returncode for _ in range(3)] == [0, 0, 0]


def test_looks_at_the_reference_are_no_measurements_to_count(tmp_path: Path) -> None:
    found = play(opened(tmp_path, fault(2, "crash")), ["ab"], reference="a", reference_every=1)
    assert found.told[-4:] == ["measurement a", "begin a", "reference a", "begin b"]


def test_a_device_that_hangs_is_given_up_at_once(tmp_path: Path) -> None:
    agent = opened(tmp_path, fault(1, "hang"))
    found = play(agent, ["ab"])
    assert isinstance(found.error, CommandTimedOut)
    assert "said nothing for 3600 s" in str(found.error)
    assert play(agent, ["ab"]).told[-1] == "done"


def test_a_lost_link_stays_lost_until_reconnected(tmp_path: Path) -> None:
    agent = opened(tmp_path, fault(2, "link_lost", "reconnects = 2"))
    assert isinstance(play(agent, ["ab"]).error, LinkLost)
    with pytest.raises(LinkLost):
        agent.store({"x": b""})
    for _ in range(2):
        with pytest.raises(DeviceUnreachable):
            agent.reconnect()
    agent.reconnect()
    assert play(agent, ["ab"]).told[-1] == "done"


def test_a_lost_link_loses_no_file(tmp_path: Path) -> None:
    agent = opened(tmp_path, fault(1, "link_lost"))
    play(agent, ["a"])
    agent.reconnect()
    assert agent.clean() > 4000


def test_a_device_that_starts_anew_has_lost_its_files(tmp_path: Path) -> None:
    agent = opened(tmp_path, fault(1, "reboot"))
    assert isinstance(play(agent, ["a"]).error, LinkLost)
    agent.reconnect()
    assert agent.clean() == 0


def test_garbage_comes_in_place_of_a_measurement(tmp_path: Path) -> None:
    found = play(opened(tmp_path, fault(1, "garbage")), ["ab"])
    with pytest.raises(AssertionError):
        checked(found.lines[3])
    assert told([checked(line) for line in found.lines[4:]]) == ["begin b", "measurement b", "done"]


def test_garbage_may_be_any_text(tmp_path: Path) -> None:
    found = play(opened(tmp_path, fault(1, "garbage", 'line = \'{"event":"vis\'')), ["a"])
    assert found.lines[3] == '{"event":"vis\n'


def test_a_hot_device_says_so_for_so_many_rounds(tmp_path: Path) -> None:
    found = play(opened(tmp_path, fault(2, "hot", "rounds = 2")), ["a", "a", "a", "a", "a"])
    assert [line["thermal_status"] for line in events(found.checked, "round")] == [0, 0, 2, 2, 0]


def test_a_short_push_is_noticed_and_repeated(tmp_path: Path) -> None:
    agent = opened(tmp_path, '[[fault]]\npush = 2\nkind = "short_push"\nattempts = 2')
    counts = []
    for name in ("x", "y", "z", "z"):
        agent.store({name: b"1"})
        counts.append(agent.pushes)
    assert counts == [1, 4, 5, 5]


def test_a_push_that_is_always_short_fails_and_stores_nothing(tmp_path: Path) -> None:
    agent = opened(tmp_path, '[[fault]]\npush = 1\nkind = "short_push"\nattempts = 3')
    with pytest.raises(StoreFailed, match="3 attempts"):
        agent.store({"x": b"1"})
    assert agent.clean() == 0


# --------------------------------------------------------------------------------------------------------------------- script


@pytest.mark.parametrize(
    ("script", "line", "said"),
    [
        ("[latencey]\nbase_us = 1", 3, "did you mean 'latency'"),
        ("[latency]\nbase_us = 1\nus_per_kilobytes = 2", 5, "did you mean 'us_per_kilobyte'"),
        ("[latency]\nbase_us = '20'", 4, "base_us must be a number, got '20'"),
        ("[latency]\nbase_us = -1", 4, "base_us must be at least"),
        ("[latency]\nbase_us = nan", 4, "base_us must be at least"),
        ("[latency]\nbase_us = true", 4, "base_us must be a number"),
        ("[device]\ncores = 0", 4, "cores must be at least 1"),
        ("[device]\ncores = 1.5", 4, "cores must be a whole number"),
        (fault(1, "crash") + fault(1, "crsh"), 9, "did you mean 'crash'"),
        (fault(1, "hang", "signal = 'SIGSEGV'"), 6, "a hang has no 'signal', only measurement"),
        (fault(1, "crash", "signal = 'SIGSEV'"), 6, "did you mean 'SIGSEGV'"),
        ("[[fault]]\nkind = 'crash'", 4, "needs the number of its measurement"),
        ("[[fault]]\nkind = 'short_push'\nmeasurement = 2", 5, "a short_push has no 'measurement', only push and attempts"),
        ("[fault]\nmeasurement = 2", 3, r"fault must be written as \[\[fault\]\]"),
        ("[latency\nbase_us = 1", 3, "is not TOML"),
        ("[slow]\nevery_s = 1e400", 4, "every_s must be at least"),
    ],
)
def test_a_script_that_makes_no_sense_is_told_with_its_line(tmp_path: Path, script: str, line: int, said: str) -> None:
    with pytest.raises(DeviceError, match=said) as caught:
        opened(tmp_path, script)
    assert f"line {line}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inline_tables_and_lists_are_scripts_too(tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text('runtimes = {litert = "2.3.0"}\nfault = [{measurement = 2, kind = "crash"}]\n')
    assert play(FakeAgent(f"fake:{path}", Options()), ["ab"]).told[-1] == "begin b"
    path.write_text('runtimes = {litert = "2.3.0"}\nfault = [{measurement = 2, kind = "crsh"}]\n')
    with pytest.raises(DeviceError, match="line 2: there is no fault 'crsh'"):
        FakeAgent(f"fake:{path}", Options())


def test_a_device_needs_a_runtime(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("seed = 3")
    with pytest.raises(DeviceError, match="has no runtime"):
        FakeAgent(f"fake:{tmp_path / 's'}", Options())


@pytest.mark.parametrize("address", ["fake", "fake:", "fake:/no/such/file"])
def test_without_a_script_it_is_said_how_to_write_one(address: str) -> None:
    with pytest.raises(DeviceError, match=r"\[runtimes\].*base_us"):
        FakeAgent(address, Options())


def test_the_script_in_the_documentation_is_one(tmp_path: Path) -> None:
    import device_agents.fake_script as documented

    assert documented.__doc__ is not None
    text = "\n".join(line[4:] for line in documented.__doc__.splitlines() if line.startswith("    "))
    (tmp_path / "s").write_text(text)
    hello = play(FakeAgent(f"fake:{tmp_path / 's'}", Options()), ["a"]).checked[0]
    assert hello["device"]["cpu"] == "simulated Cortex-A55"


TOML = st.one_of(
    st.integers(-5, 5).map(str), st.floats().map(str), st.booleans().map(lambda flag: str(flag).lower()),
    st.sampled_from(["'crash'", "'hot'", "[]", "{}", "[1]", "1979-05-27"]),
)  # fmt: skip
NAMES = st.sampled_from(
    ["seed", "cores", "kind", "measurement", "base_us", "every_s", "line", "x", "[[fault]]", "[device]", "[slow]"]
)
ENTRIES = st.tuples(NAMES, TOML).map(lambda entry: entry[0] if entry[0].startswith("[") else " = ".join(entry))


@given(st.binary(max_size=100) | st.lists(ENTRIES, max_size=6).map(lambda lines: (RUNTIMES + "\n".join(lines)).encode()))
def test_any_script_gives_a_device_or_our_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s")
        path.write_bytes(data)
        try:
            FakeAgent(f"fake:{path}", Options())
        except DeviceError as exc:
            assert "\n" not in str(exc)
