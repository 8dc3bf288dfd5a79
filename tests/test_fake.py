from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import events_of, only, runner_of, told, typed_job

from device_agents.agent import Options
from device_agents.errors import DeviceError, DeviceUnreachable, LinkLost, StoreFailed
from device_agents.fake import FakeAgent
from device_agents.local import LocalAgent
from profiler.devices.config import Device
from profiler.errors import RunnerError
from profiler.measure.opening import choose_runner
from profiler.protocol.events import Crashed, Done, Energy, Hello, Idle, Measurement, Outputs, Reference, Round, RunEvent
from profiler.protocol.settings import Target
from profiler.runners.python import PythonRunner
from profiler.runners.simulated import SimulatedRunner

RUNTIMES = '[runtimes]\nlitert = "2.3.0"\n'
MODELS = {"a": b"x" * 1000, "b": b"x" * 3000}


@dataclass
class Fake:
    """A simulated device with its runner."""

    agent: FakeAgent
    seen: list[RunEvent] = field(default_factory=list)
    """The events of the last job, as far as it got."""

    def __post_init__(self) -> None:
        self.runner = runner_of(self.agent)

    def play(self, schedule: Sequence[Sequence[str]], models: Mapping[str, bytes] = MODELS, **more: Any) -> list[RunEvent]:
        self.agent.store({f"{name}.json": data for name, data in models.items()})
        self.seen = []
        for event in events_of(self.runner, typed_job(models, schedule, **more)):
            self.seen.append(event)
        return self.seen


def opened(folder: Path, script: str = "") -> Fake:
    path = folder / "script.toml"
    path.write_text(RUNTIMES + script)
    return Fake(FakeAgent(f"fake:{path}", Options()))


def fault(measurement: int, kind: str, more: str = "") -> str:
    return f'[[fault]]\nmeasurement = {measurement}\nkind = "{kind}"\n{more}\n'


def latencies_us(found: Sequence[Measurement | Reference]) -> list[float]:
    return [sample / event.loops / 1e3 for event in found for sample in event.samples_ns]


# ------------------------------------------------------------------------------------------------------------------ behaviour


def test_a_job_is_answered_as_by_a_runner(tmp_path: Path) -> None:
    found = opened(tmp_path).play(["ba", "a"], reference="b", reference_every=2)
    measurements = ["begin b", "reference b", "begin b", "measurement b", "begin a", "measurement a"]
    again = ["begin b", "reference b", "begin a", "measurement a"]
    assert told(found) == ["hello", "round 0", *measurements, "round 1", *again, "done"]


def test_a_models_latency_follows_from_the_size_of_its_file(tmp_path: Path) -> None:
    fake = opened(tmp_path, "[latency]\nbase_us = 20\nus_per_kilobyte = 1.5")
    first, second = only(fake.play(["ab"]), Measurement)
    assert latencies_us([first]) == pytest.approx([21.5] * len(first.samples_ns), rel=1e-4)
    assert latencies_us([second]) == pytest.approx([24.5] * len(second.samples_ns), rel=1e-4)


def test_a_measurement_has_the_samples_that_the_job_asks_for(tmp_path: Path) -> None:
    found = opened(tmp_path).play(["a"], measurement_ms=10, sample_ms=1, reference="a", reference_ms=3, min_samples=2)
    (measurement,), (look,) = only(found, Measurement), only(found, Reference)
    assert [len(event.samples_ns) for event in (measurement, look)] == [10, 3]
    assert min(measurement.samples_ns) >= 1_000_000


def test_noise_is_only_added_and_the_same_for_a_seed(tmp_path: Path) -> None:
    noisy = "[latency]\nbase_us = 100\nus_per_kilobyte = 0\nnoise_percent = 2"
    first, second = (latencies_us(only(opened(tmp_path, noisy).play(["a"] * 9), Measurement)) for _ in range(2))
    assert first == second
    assert min(first) >= 100
    assert 101 < sum(first) / len(first) < 103
    (tmp_path / "other.toml").write_text("seed = 2\n" + RUNTIMES + noisy)
    other = Fake(FakeAgent(f"fake:{tmp_path}/other.toml"))
    assert latencies_us(only(other.play(["a"] * 9), Measurement)) != first


def test_slow_spells_come_and_go_by_the_devices_own_clock(tmp_path: Path) -> None:
    fake = opened(tmp_path, "[slow]\nevery_s = 10\nfor_s = 5\npercent = 50\n[latency]\nbase_us = 100\nus_per_kilobyte = 0")
    found = latencies_us(only(fake.play(["a"] * 40, min_round_s=1), Measurement))
    assert {round(latency) for latency in found} == {100, 150}
    assert 0.4 < sum(latency > 120 for latency in found) / len(found) < 0.6


def test_rounds_last_as_long_as_they_shall_without_anybody_sleeping(tmp_path: Path) -> None:
    first, second = only(opened(tmp_path).play(["a", "a"], min_round_s=3600), Round)
    assert (second.clock_ns or 0) - (first.clock_ns or 0) == 3600 * 10**9


def test_a_build_of_hundreds_of_layers_is_a_matter_of_events(tmp_path: Path) -> None:
    models = {f"m{number}": random.Random(number).randbytes(number) for number in range(300)}
    found = opened(tmp_path).play([list(models)] * 6, models, measurement_ms=30, sample_ms=1, min_round_s=0.4)
    assert len(only(found, Measurement)) == 1800


def test_it_says_that_it_is_simulated(tmp_path: Path) -> None:
    (hello,) = only(opened(tmp_path, '[device]\ncpu = "Cortex-A55"\ncores = 8\nmachine = "aarch64"').play(["a"]), Hello)
    assert (hello.flags, hello.runner) == ({"simulated": True}, "simulated")
    assert (hello.device.cpu, hello.device.cores, hello.device.machine) == ("simulated Cortex-A55", 8, "aarch64")
    assert (hello.runtime, hello.version, hello.affinity) == ("litert", "2.3.0", tuple(range(8)))


def test_a_probe_names_the_runtimes_of_the_script(tmp_path: Path) -> None:
    probe = opened(tmp_path).runner.probe()
    assert {name: state.version for name, state in probe.runtimes.items()} == {"litert": "2.3.0"}
    assert (probe.device.cpu or "").startswith("simulated")


def test_no_command_can_be_run(tmp_path: Path) -> None:
    agent = opened(tmp_path).agent
    with pytest.raises(DeviceError, match="is simulated: `sh -c ls`"):
        agent.run(["sh", "-c", "ls"], timeout_s=1)
    with (
        pytest.raises(DeviceError, match=r"is simulated: `python3 runner\.pyz`"),
        agent.stream(["python3", "runner.pyz"], silence_s=1),
    ):
        pass
    with pytest.raises(DeviceError, match="is simulated"):
        agent.interpreter()


def test_its_own_runner_measures_unless_another_is_named(tmp_path: Path) -> None:
    agent = opened(tmp_path).agent
    device, target = Device("phone", agent.address), Target("phone", "litert", python="python3")
    assert isinstance(choose_runner(agent, device, target), SimulatedRunner)
    assert isinstance(choose_runner(agent, replace(device, runner="python"), target), PythonRunner)
    assert isinstance(choose_runner(agent, device, replace(target, runner="python")), PythonRunner)


def test_our_runner_in_python_cannot_run_there(tmp_path: Path) -> None:
    agent = opened(tmp_path).agent
    runner = choose_runner(agent, Device("phone", agent.address, runner="python"), Target("phone", "litert"))
    with pytest.raises(DeviceError, match="has no Python, only the simulated runner"):
        list(runner.run(typed_job(["a"], ["a"])))


def test_on_another_kind_of_device_it_is_refused() -> None:
    with pytest.raises(RunnerError, match=r"for devices such as fake:SCRIPT\.toml, not for local"):
        SimulatedRunner(LocalAgent(), Device("local", "local"), Target())


def test_a_runtime_that_it_has_not_is_refused(tmp_path: Path) -> None:
    fake = opened(tmp_path)
    with pytest.raises(RunnerError, match="has no runtime onnxruntime, only litert"):
        fake.play(["a"], runtime="onnxruntime")
    assert fake.seen == []


def test_the_cores_asked_for_are_those_it_runs_on(tmp_path: Path) -> None:
    found = opened(tmp_path).play(["a"], cpus=(1, 2))
    assert (only(found, Hello)[0].affinity, only(found, Measurement)[0].core) == ((1, 2), 2)


def test_a_core_that_it_has_not_is_refused(tmp_path: Path) -> None:
    fake = opened(tmp_path, "[device]\ncores = 2")
    with pytest.raises(RunnerError, match=r"core 2 .*there are 2"):
        fake.play(["a"], cpus=(2,))
    assert fake.seen == []


def test_a_reference_every_no_measurements_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="reference_every must be at least 1, not 0"):
        opened(tmp_path).play(["a"], reference="a", reference_every=0)


def test_clocks_are_told_where_the_script_has_any(tmp_path: Path) -> None:
    found = opened(tmp_path, "[device]\ncores = 2\nclock_khz = 1800000\ntemperature_c = 41.5").play(["a"])
    (begun,), (measurement,), (done,) = only(found, Round), only(found, Measurement), only(found, Done)
    assert (begun.frequencies_khz, begun.temperature_c, measurement.clock_khz) == ((1800000,) * 2, 41.5, (1800000,) * 2)
    assert done.temperature_c == 41.5


def test_outputs_follow_from_the_file_alone(tmp_path: Path) -> None:
    first, second = (only(opened(tmp_path).play(["ab"], outputs=4, reference="a"), Outputs) for _ in range(2))
    assert first == second
    assert first[0].outputs != first[1].outputs
    assert [len(event.outputs[0].values) for event in first] == [4, 4]


def test_energy_is_power_times_time(tmp_path: Path) -> None:
    found = opened(tmp_path, "[energy]\nidle_w = 1\nbusy_w = 3").play(["a"], energy_ms=100, reference="a")
    assert told(found) == ["hello", "round 0", "idle 0", "begin a", "energy a", "done"]
    (idle,), (measurement,) = only(found, Idle), only(found, Energy)
    assert (idle.duration_ns, idle.energy_uj) == (100_000_000, 100_000)
    assert measurement.energy_uj == pytest.approx(3 * measurement.duration_ns / 1e3, abs=1)


def test_a_device_without_a_counter_refuses_an_energy_job(tmp_path: Path) -> None:
    fake = opened(tmp_path)
    with pytest.raises(RunnerError, match="energy"):
        fake.play(["a"], energy_ms=100)
    assert fake.seen == []


@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        ({"latency_ns": 5000}, "measurement m"),
        ({"error": "no such operator"}, "failed m"),
        ({"latency_ns": 1, "nan": True}, "failed m"),
        ({}, "failed m"),
        ([], "failed m"),
        ({"latency_ns": 10**14}, "failed m"),
        ({"latency_ns": 1, "crash": True}, "crashed"),
        ({"latency_ns": 1, "hang": True}, "crashed"),
    ],
    ids=str,
)
def test_a_model_of_the_fake_runtime_behaves_as_it_says(tmp_path: Path, model: object, outcome: str) -> None:
    found = opened(tmp_path).play(["m"], {"m": json.dumps(model).encode()}, runtime="fake")
    assert [event for event in told(found) if event != "done"][-1] == outcome


def test_a_model_that_failed_is_left_out_from_then_on(tmp_path: Path) -> None:
    models = {"a": b'{"latency_ns": 5000}', "x": b'{"error": "no"}'}
    found = opened(tmp_path).play(["xa", "xa"], models, runtime="fake", reference="x", reference_every=1)
    told_of_models = [event for event in told(found) if " " in event and not event.startswith("round")]
    assert told_of_models == ["begin x", "failed x", "begin a", "measurement a", "begin a", "measurement a"]


def test_a_model_whose_file_was_never_stored_fails(tmp_path: Path) -> None:
    fake = opened(tmp_path)
    found = list(events_of(fake.runner, typed_job(["a"], ["a"])))
    assert told(found) == ["hello", "round 0", "begin a", "failed a", "done"]


# --------------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("crash", "", "the runner was killed by SIGSEGV"),
        ("crash", 'signal = "SIGBUS"', "the runner was killed by SIGBUS"),
        ("out_of_memory", "", "the runner was killed by SIGKILL, most likely because the device ran out of memory"),
    ],
)
def test_a_crash_says_which_signal_ended_the_runner(tmp_path: Path, kind: str, more: str, reason: str) -> None:
    found = opened(tmp_path, fault(2, kind, more)).play(["ab"])
    assert (told(found)[-2], found[-1]) == ("begin b", Crashed(reason))


def test_a_model_that_hangs_is_ended_as_by_the_runners_own_alarm(tmp_path: Path) -> None:
    found = opened(tmp_path).play(["m"], {"m": b'{"hang": true}'}, runtime="fake")
    assert found[-1] == Crashed("one model kept the runner for too long; it was killed")


def test_a_fault_comes_once_in_a_session(tmp_path: Path) -> None:
    fake = opened(tmp_path, fault(2, "crash"))
    assert [told(fake.play(["ab"]))[-1] for _ in range(4)] == ["crashed", "done", "done", "done"]


def test_looks_at_the_reference_are_no_measurements_to_count(tmp_path: Path) -> None:
    found = opened(tmp_path, fault(2, "crash")).play(["ab"], reference="a", reference_every=1)
    assert told(found)[-5:] == ["measurement a", "begin a", "reference a", "begin b", "crashed"]


def test_a_device_that_hangs_is_given_up_at_once(tmp_path: Path) -> None:
    fake = opened(tmp_path, fault(1, "hang"))
    (crashed,) = only(fake.play(["ab"], silence_s=2400), Crashed)
    assert crashed.reason == f"the runner said nothing for 3605 s on {fake.agent.address}; it was killed"
    assert told(fake.play(["ab"]))[-1] == "done"


def test_a_lost_link_stays_lost_until_reconnected(tmp_path: Path) -> None:
    fake = opened(tmp_path, fault(2, "link_lost", "reconnects = 2"))
    with pytest.raises(LinkLost):
        fake.play(["ab"])
    assert told(fake.seen)[-1] == "begin b"
    for use in (fake.agent.clean, fake.runner.probe, lambda: fake.agent.store({"x": b""}), lambda: fake.play(["ab"])):
        with pytest.raises(LinkLost):
            use()
    for _ in range(2):
        with pytest.raises(DeviceUnreachable):
            fake.agent.reconnect()
    fake.agent.reconnect()
    assert told(fake.play(["ab"]))[-1] == "done"


def test_a_lost_link_loses_no_file(tmp_path: Path) -> None:
    fake = opened(tmp_path, fault(1, "link_lost"))
    with pytest.raises(LinkLost):
        fake.play(["a"])
    fake.agent.reconnect()
    assert fake.agent.clean() == 4000


def test_a_device_that_starts_anew_has_lost_its_files(tmp_path: Path) -> None:
    fake = opened(tmp_path, fault(1, "reboot"))
    with pytest.raises(LinkLost):
        fake.play(["a"])
    fake.agent.reconnect()
    assert fake.agent.clean() == 0


def test_garbage_in_place_of_a_measurement_is_refused(tmp_path: Path) -> None:
    fake = opened(tmp_path, fault(1, "garbage"))
    with pytest.raises(RunnerError, match="invalid 'measurement' line"):
        fake.play(["ab"])
    assert told(fake.seen) == ["hello", "round 0", "begin a"]


def test_garbage_that_is_no_line_of_the_protocol_is_skipped(tmp_path: Path) -> None:
    found = opened(tmp_path, fault(1, "garbage", 'line = \'{"event":"vis\'')).play(["ab"])
    assert told(found) == ["hello", "round 0", "begin a", "begin b", "measurement b", "done"]


def test_garbage_may_be_a_line_of_the_protocol(tmp_path: Path) -> None:
    found = opened(tmp_path, fault(1, "garbage", 'line = \'{"event":"begin","model":"z","round":7}\'')).play(["a"])
    assert told(found) == ["hello", "round 0", "begin a", "begin z", "done"]


def test_a_hot_device_says_so_for_so_many_rounds(tmp_path: Path) -> None:
    found = opened(tmp_path, fault(2, "hot", "rounds = 2")).play(["a", "a", "a", "a", "a"])
    assert [event.thermal_status for event in only(found, Round)] == [0, 0, 2, 2, 0]


def test_a_short_push_is_noticed_and_repeated(tmp_path: Path) -> None:
    agent = opened(tmp_path, '[[fault]]\npush = 2\nkind = "short_push"\nattempts = 2').agent
    counts = []
    for name in ("x", "y", "z", "z"):
        agent.store({name: b"1"})
        counts.append(agent.pushes)
    assert counts == [1, 4, 5, 5]


def test_a_push_that_is_always_short_fails_and_stores_nothing(tmp_path: Path) -> None:
    agent = opened(tmp_path, '[[fault]]\npush = 1\nkind = "short_push"\nattempts = 3').agent
    with pytest.raises(StoreFailed, match="3 attempts"):
        agent.store({"x": b"1"})
    assert agent.clean() == 0


# --------------------------------------------------------------------------------------------------------------------- script


@pytest.mark.parametrize(
    ("script", "line", "said"),
    [
        ("[latencey]\nbase_us = 1", 3, "did you mean 'latency'"),
        ("[latency]\nbase_us = 1\nus_per_kilobytes = 2", 5, "did you mean 'us_per_kilobyte'"),
        ("[latency]\nbase_us = '20'", 4, "base_us must be a number of at least 0.001, not '20'"),
        ("[latency]\nbase_us = -1", 4, "base_us must be a number of at least 0.001, not -1"),
        ("[latency]\nbase_us = nan", 4, "base_us must be a number of at least 0.001, not nan"),
        ("[latency]\nbase_us = true", 4, "base_us must be a number of at least 0.001, not True"),
        ("[device]\ncores = 0", 4, "cores must be a whole number from 1 to 4096, not 0"),
        ("[device]\ncores = 1.5", 4, "cores must be a whole number from 1 to 4096, not 1.5"),
        (fault(1, "crash") + fault(1, "crsh"), 9, "did you mean 'crash'"),
        (fault(1, "hang", "signal = 'SIGSEGV'"), 6, "a hang has no 'signal', only measurement"),
        (fault(1, "crash", "signal = 'SIGSEV'"), 6, "did you mean 'SIGSEGV'"),
        ("[[fault]]\nkind = 'crash'", 4, "needs the number of its measurement"),
        ("[[fault]]\nkind = 'short_push'\nmeasurement = 2", 5, "a short_push has no 'measurement', only push and attempts"),
        ("[fault]\nmeasurement = 2", 3, r"a fault must be written as \[\[fault\]\]"),
        ("[latency\nbase_us = 1", 3, "is not TOML"),
        ("[slow]\nevery_s = 1e400", 4, "every_s must be a number of at least 0.001, not inf"),
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
    assert told(Fake(FakeAgent(f"fake:{path}", Options())).play(["ab"]))[-2:] == ["begin b", "crashed"]
    path.write_text('runtimes = {litert = "2.3.0"}\nfault = [{measurement = 2, kind = "crsh"}]\n')
    with pytest.raises(DeviceError, match=r"line 2: .*there is no kind 'crsh'; did you mean 'crash'"):
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
    (hello,) = only(Fake(FakeAgent(f"fake:{tmp_path / 's'}", Options())).play(["a"]), Hello)
    assert hello.device.cpu == "simulated Cortex-A55"


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
