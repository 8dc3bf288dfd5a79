"""What every runner must do, as facts about its process: a test class for a runner inherits these and says how to start it.

device_agents/on_device/PROTOCOL.md is the contract. Only the fake runtime is used here, so that no model takes longer than it says.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import itertools
import json
import math
import os
import queue
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Line = dict[str, Any]
Check = Callable[[Any], bool]
PATIENCE_S = 60.0
"""How long a runner may say nothing here before the test gives it up; nothing waits for it to pass."""

CONDITIONING = {"latency_ns": 200_000}
REFUSED = {"error": "no such operator"}
CRASHING = {"latency_ns": 1, "crash": True}
HANGING = {"latency_ns": 1, "hang": True}
NOT_FINITE = {"latency_ns": 1, "nan": True}


MARK = b"INPUTS 1"
"""The end of a file with values of inputs."""


# --------------------------------------------------------------------------------------------------- what lines may look like


def whole(low: int = 0, high: int = 2**63) -> Check:
    return lambda value: type(value) is int and low <= value < high


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high and math.isfinite(value)


def exactly(*values: object) -> Check:
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def list_of(check: Check, least: int = 0, most: int = 1 << 30) -> Check:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(check, value))


def record(fields: Mapping[str, Check]) -> Check:
    return lambda value: (
        isinstance(value, dict) and value.keys() == fields.keys() and all(fields[key](value[key]) for key in fields)
    )


def text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def cores(value: Any) -> bool:
    return list_of(whole(0, 4096), least=1)(value) and bool(value == sorted(set(value)))


def flags(value: Any) -> bool:
    return isinstance(value, dict)


def output(value: Any) -> bool:
    fields = {"shape": list_of(whole()), "type": exactly(*TYPES), "values": list_of(number())}
    return record(fields)(value) and len(value["values"]) <= math.prod(value["shape"])


def base64_text(value: Any) -> bool:
    return isinstance(value, str) and bool(base64.b64decode(value, validate=True))


def found_runtimes(value: Any) -> bool:
    answers = ({"version": text}, {"missing": exactly(True)}, {"broken": text})
    return isinstance(value, dict) and all(
        name in RUNTIMES and any(record(fields)(answer) for fields in answers) for name, answer in value.items()
    )


RUNTIMES = ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "litert", "tflite-runtime")
WHOLE_TYPES = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
TYPES = ("float16", "bfloat16", "float32", "float64", *WHOLE_TYPES, "bool")
CONDITIONS = {
    "load_1min": optional(number(0)),
    "frequencies_khz": optional(list_of(whole(), least=1)),
    "temperature_c": optional(number(-300, 1000)),
    "throttled": optional(whole()),
    "thermal_status": optional(whole(0, 7)),
}
DEVICE = {
    "system": text,
    "kernel": text,
    "machine": text,
    "cpu": text,
    "cores": optional(whole(1)),
    "memory_bytes": optional(whole(1)),
    "governor": text,
    "python": optional(text),
}
MODEL = {"model": text, "round": whole()}
MEASUREMENT = {
    **MODEL,
    "started_ns": whole(1),
    "loops": whole(1),
    "samples_ns": list_of(whole(1), least=1),
    "switched": list_of(whole()),
    "clock_khz": optional(list_of(whole(), least=2, most=2)),
    "core": optional(whole(0, 4096)),
}
OPERATOR = {
    "name": text,
    "op": text,
    "partition": text,
    "index": whole(),
    "inputs": list_of(flags),
    "outputs": list_of(flags),
    "samples_us": list_of(whole()),
}
HELLO = {
    "protocol": exactly(8),
    "runner": exactly("python", "native"),
    "build": optional(text),
    "runtime": exactly("fake", *RUNTIMES),
    "version": text,
    "library_sha256": optional(digest),
    "flags": flags,
    "runner_sha256": digest,
    "affinity": optional(cores),
    "pid": whole(1),
    "energy_source": optional(text),
    "device": record(DEVICE),
}
EVENTS: dict[str, Mapping[str, Check]] = {
    "hello": HELLO,
    "busy": {"holder": lambda value: isinstance(value, str)},
    "round": {"round": whole(), "clock_ns": whole(1), **CONDITIONS},
    "begin": MODEL,
    "measurement": MEASUREMENT,
    "reference": MEASUREMENT,
    "not_finite": MODEL,
    "outputs": {**MODEL, "outputs": list_of(output)},
    "idle": {"round": whole(), "duration_ns": whole(1), "energy_uj": whole()},
    "energy": {**MODEL, "inferences": whole(1), "duration_ns": whole(1), "energy_uj": whole()},
    "executed": {
        **MODEL,
        "graph": optional(base64_text),
        "reason": optional(text),
        "inferences_us": list_of(whole()),
        "operators": list_of(record(OPERATOR)),
    },
    "failed": {**MODEL, "reason": text},
    "done": CONDITIONS,
    "probe": {
        "protocol": exactly(8),
        "runner": exactly("python", "native"),
        "device": record(DEVICE),
        "energy_source": optional(text),
        "runtimes": found_runtimes,
        **CONDITIONS,
    },
}


def _no_such_number(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def checked(raw: str) -> Line:
    """A line of the protocol, every field looked at."""
    line: Line = json.loads(raw, parse_constant=_no_such_number)
    fields = EVENTS[line["event"]]
    assert line.keys() == {"event", *fields}, f"fields of {raw!r}"
    for name, check in fields.items():
        assert check(line[name]), f"{name} of {raw!r}"
    if line["event"] in ("measurement", "reference"):
        assert line["switched"] == sorted({place for place in line["switched"] if place < len(line["samples_ns"])}), raw
    if line["event"] == "executed":
        assert all(len(item["samples_us"]) == len(line["inferences_us"]) for item in line["operators"]), raw
    return line


# ------------------------------------------------------------------------------------------------------------ running a runner


class Process:
    """A runner at work. Its standard input stays open until the end."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self.pid = self._process.pid
        self._raw: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._drains = [threading.Thread(target=drain, daemon=True) for drain in (self._drain_lines, self._drain_errors)]
        for thread in self._drains:
            thread.start()

    def _drain_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._raw.put(line)
        self._raw.put(None)

    def _drain_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def __iter__(self) -> Iterator[Line]:
        while (raw := self._raw.get(timeout=PATIENCE_S)) is not None:
            if raw.startswith("{"):
                yield checked(raw)

    def until(self, event: str, model: str | None = None) -> Line:
        """The next line of that kind."""
        return next(line for line in self if line["event"] == event and model in (None, line.get("model")))

    def tell(self, text: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may have ended after its last result, which it need not wait for
            self._process.stdin.write(text)
            self._process.stdin.flush()

    def says_within(self, patience_s: float) -> Line | None:
        """The next line; None if there is none by then."""
        try:
            raw = self._raw.get(timeout=patience_s)
        except queue.Empty:
            return None
        return None if raw is None else checked(raw)

    def close_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Its exit code; negative for a signal."""
        code = self._process.wait(timeout=PATIENCE_S)
        for thread in self._drains:
            thread.join()
        return code

    @property
    def stderr(self) -> str:
        return "".join(self._errors)

    def end(self) -> None:
        self._process.kill()
        self.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what it was told and never read is lost, as in `tell`
                pipe.close()


@contextmanager
def started(argv: Sequence[str]) -> Iterator[Process]:
    process = Process(argv)
    try:
        yield process
    finally:
        process.end()


def run(argv: Sequence[str]) -> tuple[list[Line], int, str]:
    """To the end: its lines, exit code, standard error."""
    with started(argv) as process:
        lines = list(process)
        return lines, process.wait(), process.stderr


def model_of(name: str, file: str, as_it_is: bool = False, copies: int = 1, finite: bool = True) -> dict[str, Any]:
    """A model as a job names it."""
    return {"id": name, "file": file, "as_it_is": as_it_is, "copies": copies, "finite": finite}


def a_job(scripts: Mapping[str, Any], rounds: Sequence[Sequence[str]], **more: Any) -> dict[str, Any]:
    """A job of milliseconds: models' scripts by id, and for each round the ids in the order of their measurements."""
    return {
        "format": 8,
        "runtime": "fake",
        "threads": 1,
        "seed": 1,
        "cpus": None,
        "root": "/",
        "libraries": [],
        "lease": None,
        "measurement_ms": 2.0,
        "warmup_ms": 0.0,
        "sample_ms": 0.5,
        "min_samples": 2,
        "min_round_s": 0.0,
        "silence_s": 30.0,
        "memory_bytes": 1 << 30,
        "max_open": 100,
        "max_open_pools": 4,
        "reference": None,
        "reference_every": 12,
        "reference_ms": 1.0,
        "acknowledged": False,
        "outputs": 0,
        "energy_ms": 0,
        "profiled": 0,
        "models": [model_of(name, f"{name}.json") for name in scripts],
        "schedule": [{"round": number, "models": list(names)} for number, names in enumerate(rounds)],
    } | more


def written(folder: Path, scripts: Mapping[str, Any], rounds: Sequence[Sequence[str]], **more: Any) -> str:
    """The path of a job file, with its models beside it."""
    for name, script in scripts.items():
        (folder / f"{name}.json").write_text(json.dumps(script))
    path = folder / "job.json"
    path.write_text(json.dumps(a_job(scripts, rounds, **more)))
    return str(path)


def behind(path: Path, values: Mapping[int, bytes]) -> None:
    """Put values of inputs, by their places, behind the model in this file."""
    entries = [struct.pack("<QQ", place, len(data)) for place, data in values.items()]
    end = struct.pack("<Q", len(values)) + MARK
    path.write_bytes(b"".join((path.read_bytes(), *values.values(), *entries, end)))


def files(root: Path, contents: Mapping[str, object]) -> str:
    """A tree of files as the kernel would show it; the root's path."""
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return str(root)


def events(lines: Sequence[Line], *names: str) -> list[Line]:
    return [line for line in lines if line["event"] in names]


def told(lines: Sequence[Line]) -> list[str]:
    """What happened, in order: 'hello', 'round 0', 'measurement a', …"""
    return [
        " ".join(str(part) for part in (line["event"], line.get("model", line.get("round"))) if part is not None) for line in lines
    ]


def mixed(seed: int, place: int, element: int) -> int:
    """The 64 random bits of one element of an input, one at a time and by arbitrary whole numbers."""
    z = (seed * 0x9E3779B97F4A7C15 + (place * 2**40 + element + 1) * 0xD1342543DE82EF95) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def expected_input(seed: int, place: int, kind: str, size: int) -> list[float]:
    bits = [mixed(seed, place, element) for element in range(size)]
    if kind == "bool":
        return [z >> 63 for z in bits]
    if kind in WHOLE_TYPES:
        return [z >> (63 if kind.endswith(("32", "64")) else 61) for z in bits]
    return [(z >> 40) / 2**23 - 1 for z in bits]


# ------------------------------------------------------------------------------------------------------------------- the facts


class RunnerConformance:
    @pytest.fixture
    def command(self) -> list[str]:
        """How to start the runner; the last part is the runner itself."""
        raise NotImplementedError

    def lines(
        self, command: list[str], folder: Path, scripts: Mapping[str, Any], rounds: Sequence[Sequence[str]], **more: Any
    ) -> list[Line]:
        """Those of a job that ends well."""
        lines, code, stderr = run([*command, written(folder, scripts, rounds, **more)])
        assert code == 0, stderr
        assert lines[0]["event"] == "hello"
        assert [line["event"] for line in lines].count("done") == 1
        assert lines[-1]["event"] == "done"
        return lines

    def refused(self, command: list[str], path: Path | str) -> str:
        """What it says about a job it does not begin."""
        lines, code, stderr = run([*command, str(path)])
        assert not events(lines, "round", "done")
        assert code > 0
        assert stderr.count("\n") == 1, stderr
        assert "Traceback" not in stderr
        return stderr

    # ------------------------------------------------------------------------------------------------------ lines and order

    def test_models_are_measured_in_the_order_of_the_schedule(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, dict.fromkeys("abc", CONDITIONING), ["cab", "b", "abc"])
        measurements = [f"{event} {name}" for name in "cab" for event in ("begin", "measurement")]
        assert told(found)[:8] == ["hello", "round 0", *measurements]
        assert [(line["round"], line["model"]) for line in events(found, "measurement")] == [
            *((0, name) for name in "cab"),
            (1, "b"),
            *((2, name) for name in "abc"),
        ]

    def test_rounds_bear_the_numbers_of_the_schedule(self, command: list[str], tmp_path: Path) -> None:
        schedule = [{"round": 7, "models": ["a"]}, {"round": 3, "models": []}]
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, [], schedule=schedule)
        assert told(found) == ["hello", "round 7", "begin a", "measurement a", "round 3", "done"]

    def test_it_says_what_it_is(self, command: list[str], tmp_path: Path) -> None:
        hello = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"])[0]
        assert hello["runner_sha256"] == hashlib.sha256(Path(command[-1]).read_bytes()).hexdigest()
        assert (hello["runtime"], hello["version"], hello["flags"]) == ("fake", "0", {"simulated": True})
        assert hello["library_sha256"] == hello["runner_sha256"]
        assert (hello["device"]["python"] is None) == (hello["runner"] == "native")
        assert (hello["device"]["kernel"], hello["device"]["machine"]) == (os.uname().release, os.uname().machine)

    def test_it_tells_its_process_id(self, command: list[str], tmp_path: Path) -> None:
        with started([*command, written(tmp_path, {"a": CONDITIONING}, ["a"])]) as process:
            assert process.until("hello")["pid"] == process.pid

    def test_ids_and_file_names_are_any_text(self, command: list[str], tmp_path: Path) -> None:
        name = 'ä "quoted" \\ \u2028 \U0001f600'
        (tmp_path / "a.json").write_text(json.dumps(CONDITIONING))
        found = self.lines(command, tmp_path, {}, [[name]], models=[model_of(name, "a.json")])
        assert [line["model"] for line in events(found, "measurement")] == [name]

    def test_it_writes_no_file(self, command: list[str], tmp_path: Path) -> None:
        self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"])
        assert {path.name for path in tmp_path.iterdir()} == {"a.json", "job.json"}

    # -------------------------------------------------------------------------------------------------------------- timing

    def test_a_sample_is_as_many_inferences_as_it_says(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, {"a": {"latency_ns": 20_000}}, ["a", "a"])
        for line in events(found, "measurement"):
            assert 1 <= line["loops"] <= 25  # half a millisecond of at least 20 µs each
            assert min(line["samples_ns"]) >= line["loops"] * 20_000

    def test_a_long_model_is_sampled_one_by_one(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, {"a": {"latency_ns": 1_000_000}}, ["a"])
        (line,) = events(found, "measurement")
        assert line["loops"] == 1
        assert min(line["samples_ns"]) >= 1_000_000

    def test_a_measurement_has_its_least_number_of_samples(self, command: list[str], tmp_path: Path) -> None:
        (line,) = events(self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], measurement_ms=0, min_samples=7), "measurement")
        assert len(line["samples_ns"]) == 7

    def test_a_measurement_lasts_as_long_as_it_shall(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, [["a", "a"]], measurement_ms=40)
        first, second = events(found, "measurement")
        assert second["started_ns"] - first["started_ns"] >= 40_000_000

    def test_a_measurement_warms_up_first(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], warmup_ms=50)
        assert events(found, "measurement")[0]["started_ns"] - events(found, "round")[0]["clock_ns"] >= 50_000_000

    def test_all_times_are_of_one_clock_that_only_rises(self, command: list[str], tmp_path: Path) -> None:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        found = self.lines(command, tmp_path, dict.fromkeys("ab", CONDITIONING), ["ab", "ab"])
        times = [line["clock_ns" if line["event"] == "round" else "started_ns"] for line in events(found, "round", "measurement")]
        found_between = [before, *times, time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)]
        assert found_between == sorted(found_between)

    def test_a_round_lasts_at_least_so_long(self, command: list[str], tmp_path: Path) -> None:
        rounds = events(self.lines(command, tmp_path, {"a": CONDITIONING}, ["a", "a", "a"], min_round_s=0.25), "round")
        for before, after in itertools.pairwise(rounds):
            assert after["clock_ns"] - before["clock_ns"] >= 250_000_000

    # ----------------------------------------------------------------------------------------------------------- reference

    def test_the_reference_is_looked_at_before_every_so_many_measurements(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(
            command, tmp_path, dict.fromkeys("abcder", CONDITIONING), ["abcde", "ab"], reference="r", reference_every=2
        )
        looks = [line for line in told(found) if line.startswith(("round", "reference", "measurement"))]
        first = [
            "round 0",
            "reference r",
            "measurement a",
            "measurement b",
            "reference r",
            "measurement c",
            "measurement d",
            "reference r",
            "measurement e",
        ]
        assert looks == [*first, "round 1", "reference r", "measurement a", "measurement b"]

    def test_a_look_at_the_reference_is_shorter_than_a_measurement(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], reference="a", measurement_ms=20, reference_ms=1)
        (look,), (measurement,) = events(found, "reference"), events(found, "measurement")
        assert len(look["samples_ns"]) < len(measurement["samples_ns"])

    def test_a_model_that_was_left_out_counts_for_no_look(self, command: list[str], tmp_path: Path) -> None:
        models = {**dict.fromkeys("abr", CONDITIONING), "x": REFUSED}
        found = self.lines(command, tmp_path, models, ["x", "xab"], reference="r", reference_every=2)
        assert told(found)[-6:] == ["reference r", "begin a", "measurement a", "begin b", "measurement b", "done"]

    def test_a_reference_that_fails_is_not_looked_at_again(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, {"a": CONDITIONING, "r": REFUSED}, ["ar", "a"], reference="r", reference_every=1)
        assert [line for line in told(found) if line.startswith(("failed", "reference", "measurement"))] == [
            "failed r",
            "measurement a",
            "measurement a",
        ]

    # ------------------------------------------------------------------------------------------------------ what goes wrong

    @pytest.mark.parametrize(("script", "reason"), [(REFUSED, "no such operator"), (NOT_FINITE, "finite")])
    def test_a_model_that_cannot_be_run_fails_alone_and_once(
        self, command: list[str], tmp_path: Path, script: Any, reason: str
    ) -> None:
        found = self.lines(command, tmp_path, {"a": CONDITIONING, "bad": script}, [["bad", "a"], ["a", "bad"]])
        assert [(line["model"], line["round"]) for line in events(found, "measurement")] == [("a", 0), ("a", 1)]
        (failed,) = events(found, "failed")
        assert (failed["model"], failed["round"]) == ("bad", 0)
        assert reason in failed["reason"]

    def test_a_model_that_need_not_be_finite_is_measured_and_told_of_once(self, command: list[str], tmp_path: Path) -> None:
        models = [model_of("a", "a.json", finite=False), model_of("b", "b.json", finite=False)]
        path = written(tmp_path, {"a": NOT_FINITE, "b": CONDITIONING}, ["ab", "ba"], models=models, max_open=1)
        lines, code, _ = run([*command, str(path)])
        first = ["round 0", "begin a", "not_finite a", "measurement a", "begin b", "measurement b"]
        second = ["round 1", "begin b", "measurement b", "begin a", "measurement a"]
        assert (code, told(lines)) == (0, ["hello", *first, *second, "done"])

    def test_outputs_that_are_not_finite_are_not_told_of_in_a_job_for_executed_graphs(
        self, command: list[str], tmp_path: Path
    ) -> None:
        path = written(tmp_path, {"a": NOT_FINITE}, ["a"], models=[model_of("a", "a.json", finite=False)], profiled=1)
        assert told(run([*command, str(path)])[0]) == ["hello", "round 0", "begin a", "executed a", "done"]

    @pytest.mark.parametrize("data", [b"", b"garbage", b"[]", b"\xff\x00\x80", b'{"latency_ns": "long"}', b"{}"])
    def test_a_file_that_is_no_model_fails_alone(self, command: list[str], tmp_path: Path, data: bytes) -> None:
        path = written(tmp_path, {"a": CONDITIONING, "bad": {}}, [["bad", "a"]])
        (tmp_path / "bad.json").write_bytes(data)
        lines, code, _ = run([*command, path])
        assert (code, told(events(lines, "failed", "measurement"))) == (0, ["failed bad", "measurement a"])

    def test_a_model_whose_file_is_not_there_fails_alone(self, command: list[str], tmp_path: Path) -> None:
        path = written(tmp_path, {"a": CONDITIONING, "bad": {}}, [["bad", "a"]])
        (tmp_path / "bad.json").unlink()
        lines, code, _ = run([*command, path])
        assert (code, told(events(lines, "failed", "measurement"))) == (0, ["failed bad", "measurement a"])

    def test_a_model_that_crashes_has_been_named_before(self, command: list[str], tmp_path: Path) -> None:
        lines, code, _ = run([*command, written(tmp_path, {"a": CONDITIONING, "c": CRASHING}, ["aca"])])
        assert told(lines)[-1] == "begin c"
        assert code == -signal.SIGSEGV

    def test_a_model_that_hangs_ends_the_runner(self, command: list[str], tmp_path: Path) -> None:
        lines, code, _ = run([*command, written(tmp_path, {"a": CONDITIONING, "h": HANGING}, ["aha"], silence_s=1.0)])
        assert told(lines)[-1] == "begin h"
        assert code == -signal.SIGALRM

    def test_a_slow_job_of_quick_models_is_not_taken_for_one_that_hangs(self, command: list[str], tmp_path: Path) -> None:
        self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"] * 4, silence_s=0.8, min_round_s=0.3, measurement_ms=50)

    def test_it_ends_when_its_host_is_gone(self, command: list[str], tmp_path: Path) -> None:
        with started([*command, written(tmp_path, {"a": CONDITIONING}, ["a"] * 20_000)]) as process:
            process.until("measurement")
            process.until("measurement")
            process.close_input()
            assert process.wait() == 1
            assert "the host is gone" in process.stderr
            assert not events(list(process), "done")

    def test_what_comes_in_at_its_input_is_of_no_matter(self, command: list[str], tmp_path: Path) -> None:
        with started([*command, written(tmp_path, {"a": CONDITIONING}, ["a"] * 20)]) as process:
            process.tell("hello?\n")
            process.until("done")
            assert process.wait() == 0

    def test_a_result_that_is_not_acknowledged_holds_the_next_one_up(self, command: list[str], tmp_path: Path) -> None:
        with started([*command, written(tmp_path, {"a": CONDITIONING, "b": CONDITIONING}, ["ab"], acknowledged=True)]) as process:
            process.until("measurement", "a")
            process.until("begin", "b")
            assert process.says_within(1.0) is None
            process.tell(".")
            process.until("measurement", "b")

    @pytest.mark.timeout(60)  # it would wait for 5 s after each of them
    def test_results_that_are_acknowledged_hold_nothing_up(self, command: list[str], tmp_path: Path) -> None:
        models = {"a": CONDITIONING, "r": CONDITIONING, "bad": REFUSED}
        job = written(tmp_path, models, [["a", "bad", "a"]] * 10, reference="r", reference_every=1, acknowledged=True)
        with started([*command, job]) as process:
            for line in process:
                if line["event"] in ("measurement", "reference", "failed"):
                    process.tell(".")
            assert process.wait() == 0

    def test_one_who_never_acknowledges_is_not_waited_for_for_ever(self, command: list[str], tmp_path: Path) -> None:
        job = written(tmp_path, {"a": CONDITIONING}, ["aa"], acknowledged=True, silence_s=2.0)
        lines, code, _ = run([*command, job])
        assert (code, len(events(lines, "measurement"))) == (0, 2)

    def test_a_host_that_goes_without_acknowledging_loses_one_result(self, command: list[str], tmp_path: Path) -> None:
        with started([*command, written(tmp_path, {"a": CONDITIONING}, ["a"] * 100, acknowledged=True)]) as process:
            process.until("measurement")
            time.sleep(0.5)  # a hundred measurements, were they made
            process.close_input()
            assert process.wait() == 1
            assert not events(list(process), "measurement")

    def test_a_result_that_is_not_acknowledged_costs_the_next_model_none_of_its_time(
        self, command: list[str], tmp_path: Path
    ) -> None:
        with started([*command, written(tmp_path, {"a": CONDITIONING}, ["aa"], acknowledged=True, silence_s=0.5)]) as process:
            process.until("measurement")
            process.until("begin")
            time.sleep(1.0)  # twice as long as a model may keep it
            process.tell(".")
            process.until("done")
            assert process.wait() == 0

    # --------------------------------------------------------------------------------------------------------------- bounds

    @pytest.mark.parametrize(
        ("bound", "opened_again"), [({"max_open": 1}, True), ({"memory_bytes": 1}, True), ({"max_open": 2}, False), ({}, False)]
    )
    def test_models_stay_open_within_the_bounds(
        self, command: list[str], tmp_path: Path, bound: dict[str, int], opened_again: bool
    ) -> None:
        path = written(tmp_path, dict.fromkeys("ab", CONDITIONING), ["ab", "ab"], min_round_s=0.6, **bound)
        with started([*command, path]) as process:
            process.until("measurement", "b")
            (tmp_path / "a.json").write_text(json.dumps(REFUSED))
            assert told(events(list(process), "measurement", "failed")) == [
                "failed a" if opened_again else "measurement a",
                "measurement b",
            ]

    def test_the_least_recently_used_model_is_closed_first(self, command: list[str], tmp_path: Path) -> None:
        path = written(tmp_path, dict.fromkeys("abc", CONDITIONING), ["abac", "ab"], min_round_s=0.6, max_open=2)
        with started([*command, path]) as process:
            process.until("measurement", "c")
            for name in "ab":
                (tmp_path / f"{name}.json").write_text(json.dumps(REFUSED))
            assert told(events(list(process), "measurement", "failed")) == ["measurement a", "failed b"]

    # ---------------------------------------------------------------------------------------------------------------- lease

    def test_a_lease_that_is_held_by_another_is_told(self, command: list[str], tmp_path: Path) -> None:
        lease = tmp_path / "lease"
        with lease.open("w") as file:
            file.write("somebody else\n")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
            lines, code, stderr = run([*command, written(tmp_path, {"a": CONDITIONING}, ["a"], lease=str(lease))])
        assert lines == [{"event": "busy", "holder": "somebody else"}]
        assert code == 1
        assert stderr.count("\n") == 1

    def test_a_lease_is_held_as_long_as_the_runner_lives(self, command: list[str], tmp_path: Path) -> None:
        path = written(tmp_path, {"a": CONDITIONING}, ["a"] * 20_000, lease=str(tmp_path / "lease"))
        with started([*command, path]) as process:
            process.until("measurement")
            (line,), code, _ = run([*command, path])
            assert (line["event"], code) == ("busy", 1)
            assert str(process.pid) in line["holder"]
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], lease=str(tmp_path / "lease"))

    def test_a_long_holder_of_before_leaves_nothing_of_its_name(self, command: list[str], tmp_path: Path) -> None:
        lease = tmp_path / "lease"
        lease.write_text("x" * 5000)
        self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], lease=str(lease))
        assert "x" * 100 not in lease.read_text()

    def test_a_lease_that_cannot_be_opened_ends_it(self, command: list[str], tmp_path: Path) -> None:
        path = written(tmp_path, {"a": CONDITIONING}, ["a"], lease=str(tmp_path / "no" / "lease"))
        assert "lease" in self.refused(command, path)

    # ------------------------------------------------------------------------------------------------------------------ cores

    def test_it_stays_on_the_cores_it_is_given(self, command: list[str], tmp_path: Path) -> None:
        core = max(os.sched_getaffinity(0))
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], cpus=[core])
        assert found[0]["affinity"] == [core]
        assert events(found, "measurement")[0]["core"] == core

    def test_without_cores_it_stays_where_it_was_put(self, command: list[str], tmp_path: Path) -> None:
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"])
        assert found[0]["affinity"] == sorted(os.sched_getaffinity(0))
        assert events(found, "measurement")[0]["core"] in found[0]["affinity"]

    @pytest.mark.parametrize("with_another", [False, True])
    def test_a_core_that_is_not_there_ends_it(self, command: list[str], tmp_path: Path, with_another: bool) -> None:
        cpus = [*([min(os.sched_getaffinity(0))] if with_another else []), 1000]
        assert "1000" in self.refused(command, written(tmp_path, {"a": CONDITIONING}, ["a"], cpus=cpus))

    # ------------------------------------------------------------------------------------------------------------- conditions

    def test_conditions_are_read_where_the_kernel_shows_them(self, command: list[str], tmp_path: Path) -> None:
        cpu = "sys/devices/system/cpu"
        root = files(
            tmp_path / "root",
            {
                **{f"{cpu}/cpu{core}/cpufreq/scaling_cur_freq": 1_000_000 + core for core in (0, 1, 2, 10)},
                **{f"{cpu}/cpu{core}/cpufreq/scaling_governor": "schedutil" for core in (0, 1)},
                f"{cpu}/cpu10/cpufreq/scaling_governor": "performance",
                f"{cpu}/cpufreq/boost": 1,
                f"{cpu}/cpu0/thermal_throttle/core_throttle_count": 3,
                f"{cpu}/cpu1/thermal_throttle/core_throttle_count": 4,
                f"{cpu}/cpu0/thermal_throttle/package_throttle_count": 100,
                "sys/class/thermal/thermal_zone0/temp": 47250,
                "sys/class/thermal/thermal_zone1/temp": -5000,
                "sys/class/thermal/thermal_zone2/temp": "not a number",
                "proc/loadavg": "1.25 0.50 0.25 1/100 12345",
                "proc/meminfo": "MemTotal:        2048 kB\nMemFree:         1024 kB",
                "proc/cpuinfo": "processor\t: 0\nProcessor\t: AArch64\nHardware\t: Board 9000\n\nprocessor\t: 1",
            },
        )
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=root)
        assert {name: found[1][name] for name in CONDITIONS} == {
            "load_1min": 1.25,
            "frequencies_khz": [1_000_000, 1_000_001, 1_000_002, 1_000_010],
            "temperature_c": 47.25,
            "throttled": 7,
            "thermal_status": None,
        }
        assert found[0]["device"]["governor"] == "performance+schedutil"
        assert found[0]["device"]["memory_bytes"] == 2048 * 1024
        assert found[0]["device"]["cpu"] == "Board 9000"
        assert events(found, "measurement")[0]["clock_khz"] == [1_000_010, 1_000_010]

    def test_what_cannot_be_read_is_null(self, command: list[str], tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=str(tmp_path / "root"))
        assert {name: found[-1][name] for name in CONDITIONS} == dict.fromkeys(CONDITIONS)
        assert found[0]["device"]["governor"] == "not readable"
        assert found[0]["device"]["memory_bytes"] is None
        assert found[0]["energy_source"] is None
        assert events(found, "measurement")[0]["clock_khz"] is None

    def test_conditions_are_read_anew_each_round(self, command: list[str], tmp_path: Path) -> None:
        root = files(tmp_path / "root", {"sys/class/thermal/thermal_zone0/temp": 40000})
        path = written(tmp_path, {"a": CONDITIONING}, ["a", "a"], root=root, min_round_s=0.6)
        with started([*command, path]) as process:
            assert process.until("round")["temperature_c"] == 40
            files(tmp_path / "root", {"sys/class/thermal/thermal_zone0/temp": 61500})
            assert process.until("round")["temperature_c"] == 61.5

    @pytest.mark.parametrize(
        ("said", "status"),
        [("Thermal Status: 3", 3), ("no service", None), ("Thermal Status: 77", None), ("Thermal Status:", None)],
    )
    def test_android_is_asked_for_its_thermal_status(
        self, command: list[str], tmp_path: Path, said: str, status: int | None
    ) -> None:
        script = f'#!/bin/sh\n[ "$*" = thermalservice ] && printf "IsStatusOverride: false\\nThermalEventListeners:\\n{said}\\n"'
        root = files(tmp_path / "root", {"system/bin/dumpsys": script})
        (tmp_path / "root/system/bin/dumpsys").chmod(0o755)
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=root)
        assert events(found, "round")[0]["thermal_status"] == status

    # -------------------------------------------------------------------------------------------------------- inputs, outputs

    @pytest.mark.parametrize("kind", ["float32", "float64", "int8", "uint8", "int32", "int64", "bool"])
    @pytest.mark.parametrize("seed", [0, 1, 2**40 + 12345])
    def test_inputs_are_those_of_the_formula(self, command: list[str], tmp_path: Path, kind: str, seed: int) -> None:
        inputs = [{"shape": [1, 3, 2], "type": kind}, {"shape": [], "type": "float32"}, {"shape": [70], "type": kind}]
        found = self.lines(command, tmp_path, {"a": {**CONDITIONING, "inputs": inputs}}, ["a"], outputs=1000, seed=seed)
        (line,) = events(found, "outputs")
        assert line["outputs"] == [
            {"shape": [1, 3, 2], "type": kind, "values": expected_input(seed, 0, kind, 6)},
            {"shape": [], "type": "float32", "values": expected_input(seed, 1, "float32", 1)},
            {"shape": [70], "type": kind, "values": expected_input(seed, 2, kind, 70)},
        ]

    def test_values_behind_a_model_are_those_of_its_inputs(self, command: list[str], tmp_path: Path) -> None:
        inputs = [{"shape": [2, 2], "type": "float32"}, {"shape": [3], "type": "int64"}, {"shape": [2], "type": "bool"}]
        path = written(tmp_path, {"a": {**CONDITIONING, "inputs": inputs}}, ["a"], outputs=10)
        behind(tmp_path / "a.json", {2: b"\1\0", 0: struct.pack("<4f", 1.5, -2, 0.25, 0)})
        lines, code, _ = run([*command, path])
        (line,) = events(lines, "outputs")
        values = [output["values"] for output in line["outputs"]]
        assert (code, values) == (0, [[1.5, -2, 0.25, 0], expected_input(1, 1, "int64", 3), [1, 0]])

    @pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\0" * 9])
    def test_values_of_another_size_than_their_input_fail_the_model(self, command: list[str], tmp_path: Path, data: bytes) -> None:
        scripts = {"a": CONDITIONING, "bad": {**CONDITIONING, "inputs": [{"shape": [2], "type": "float32"}]}}
        path = written(tmp_path, scripts, [["bad", "a"]])
        behind(tmp_path / "bad.json", {0: data})
        lines, code, _ = run([*command, path])
        assert (code, told(events(lines, "failed", "measurement"))) == (0, ["failed bad", "measurement a"])

    @pytest.mark.parametrize("numbers", [(1,), (2**63,), (0, 2**40, 1), (0, 1, 0, 2**64 - 1, 2)])
    def test_values_that_do_not_fit_into_the_file_fail_the_model(
        self, command: list[str], tmp_path: Path, numbers: tuple[int, ...]
    ) -> None:
        path = written(tmp_path, {"a": CONDITIONING, "bad": {}}, [["bad", "a"]])
        (tmp_path / "bad.json").write_bytes(struct.pack(f"<{len(numbers)}Q", *numbers) + MARK)
        lines, code, _ = run([*command, path])
        assert (code, told(events(lines, "failed", "measurement"))) == (0, ["failed bad", "measurement a"])

    def test_only_so_many_values_of_each_output_are_told(self, command: list[str], tmp_path: Path) -> None:
        inputs = [{"shape": [2, 5], "type": "float32"}, {"shape": [2], "type": "float32"}, {"shape": [0], "type": "float32"}]
        found = self.lines(command, tmp_path, {"a": {**CONDITIONING, "inputs": inputs}}, ["a"], outputs=3)
        assert [len(told["values"]) for told in events(found, "outputs")[0]["outputs"]] == [3, 2, 0]

    def test_a_job_for_outputs_measures_nothing(self, command: list[str], tmp_path: Path) -> None:
        models = {"a": CONDITIONING, "b": CONDITIONING, "bad": REFUSED}
        found = self.lines(command, tmp_path, models, [["a", "bad", "b"]], outputs=4, reference="a", reference_every=1)
        each = ["begin a", "outputs a", "begin bad", "failed bad", "begin b", "outputs b"]
        assert told(found) == ["hello", "round 0", *each, "done"]

    # ----------------------------------------------------------------------------------------------------------------- energy

    def test_an_energy_job_without_a_source_ends_with_a_message(self, command: list[str], tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        path = written(tmp_path, {"a": CONDITIONING}, ["a"], root=str(tmp_path / "root"), energy_ms=10)
        assert "energy" in self.refused(command, path)

    def test_each_round_of_an_energy_job_begins_with_an_idle_watch(self, command: list[str], tmp_path: Path) -> None:
        root = files(tmp_path / "root", rapl(0, "package-0", 5, 1000))
        models = {"a": CONDITIONING, "bad": REFUSED}
        found = self.lines(command, tmp_path, models, [["a", "bad"], ["bad", "a"]], root=root, energy_ms=10, reference="a")
        one = ["idle 0", "begin a", "energy a", "begin bad", "failed bad"]
        assert told(found) == ["hello", "round 0", *one, "round 1", "idle 1", "begin a", "energy a", "done"]
        assert found[0]["energy_source"] == "rapl"

    def test_an_energy_measurement_lasts_as_long_as_it_shall(self, command: list[str], tmp_path: Path) -> None:
        root = files(tmp_path / "root", rapl(0, "package-0", 5, 1000))
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=root, energy_ms=40)
        (idle,), (measurement,) = events(found, "idle"), events(found, "energy")
        assert min(idle["duration_ns"], measurement["duration_ns"]) >= 40_000_000
        assert measurement["duration_ns"] >= measurement["inferences"] * CONDITIONING["latency_ns"]
        assert (idle["energy_uj"], measurement["energy_uj"]) == (0, 0)

    def test_packages_are_summed_and_their_counters_may_wrap(self, command: list[str], tmp_path: Path) -> None:
        counters = {
            **rapl(0, "package-0", 999_000, 1_000_000),
            **rapl(1, "package-1", 10, 1_000_000),
            **rapl(2, "psys", 77, 1_000_000),
            "sys/class/powercap/intel-rapl:0:0/name": "core",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": 1,
            "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": 1_000_000,
        }
        root = files(tmp_path / "root", counters)
        path = written(tmp_path, {"a": CONDITIONING}, ["a"], root=root, energy_ms=1000)
        with started([*command, path]) as process:
            process.until("round")
            time.sleep(0.4)  # well inside the idle watch
            for name, value in (("0", 500), ("1", 30), ("2", 99), ("0:0", 99)):
                counter = tmp_path / "root" / f"sys/class/powercap/intel-rapl:{name}/energy_uj"
                counter.with_name("new").write_text(f"{value}\n")
                counter.with_name("new").replace(counter)
            assert process.until("idle")["energy_uj"] == 1000 + 500 + 20
            assert process.until("energy")["energy_uj"] == 0

    def test_counters_that_may_not_be_read_are_no_source(self, command: list[str], tmp_path: Path) -> None:
        root = Path(files(tmp_path / "root", rapl(0, "package-0", 5, 1000)))
        counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"
        counter.unlink()
        counter.mkdir()  # what cannot be read even as root
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=str(root))
        assert found[0]["energy_source"] is None

    @pytest.mark.parametrize(
        ("rails", "source", "microwatts"),
        [
            ({"1-0040": [("VDD_IN", 5000, 2000), ("VDD_CPU", 5000, 900)]}, "ina3221: VDD_IN", 10_000_000),
            ({"1-0040": [("CPU", 5000, 100), ("NC", 5000, 9000)], "1-0041": [("GPU", 1000, 300)]}, "ina3221: CPU, GPU", 800_000),
        ],
    )
    def test_rails_of_a_board_are_integrated(
        self, command: list[str], tmp_path: Path, rails: dict[str, list[tuple[str, int, int]]], source: str, microwatts: int
    ) -> None:
        root = files(tmp_path / "root", hwmon_rails(rails))
        self._expect_power(self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=root, energy_ms=60), source, microwatts)

    def test_rails_of_an_older_board_are_integrated(self, command: list[str], tmp_path: Path) -> None:
        chip = "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1"
        rails = {"rail_name_0": "POM_5V_IN", "in_power0_input": 3000, "rail_name_1": "POM_5V_CPU", "in_power1_input": 500}
        root = files(tmp_path / "root", {f"{chip}/{name}": value for name, value in rails.items()})
        found = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=root, energy_ms=60)
        self._expect_power(found, "ina3221: POM_5V_IN", 3_000_000)

    def test_power_that_changes_is_followed(self, command: list[str], tmp_path: Path) -> None:
        root = files(tmp_path / "root", hwmon_rails({"1-0040": [("VDD_IN", 1000, 1000)]}))
        path = written(tmp_path, {"a": CONDITIONING}, ["a"], root=root, energy_ms=1000)
        with started([*command, path]) as process:
            process.until("round")
            time.sleep(0.3)
            current = tmp_path / "root/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input"
            current.with_name("new").write_text("2000\n")
            current.with_name("new").replace(current)
            idle, measurement = process.until("idle"), process.until("energy")
        assert idle["duration_ns"] / 1000 < idle["energy_uj"] < 2 * idle["duration_ns"] / 1000  # some of it at 1 W, the rest at 2 W
        assert measurement["energy_uj"] == pytest.approx(2 * measurement["duration_ns"] / 1000, rel=0.01)

    def test_counters_of_the_processor_come_before_rails_of_the_board(self, command: list[str], tmp_path: Path) -> None:
        root = files(tmp_path / "root", rapl(0, "package-0", 5, 1000) | hwmon_rails({"1-0040": [("VDD_IN", 5000, 1000)]}))
        assert self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"], root=root)[0]["energy_source"] == "rapl"

    @staticmethod
    def _expect_power(found: Sequence[Line], source: str, microwatts: int) -> None:
        assert found[0]["energy_source"] == source
        for line in events(found, "idle", "energy"):
            assert line["energy_uj"] == pytest.approx(microwatts * line["duration_ns"] / 1e9, rel=0.01)

    # ------------------------------------------------------------------------------------------------------------ bad jobs

    @pytest.mark.parametrize("field", sorted(a_job({}, []).keys() - {"libraries"}))  # those are the native runner's own
    def test_a_job_with_a_field_missing_or_senseless_is_refused(self, command: list[str], tmp_path: Path, field: str) -> None:
        job = a_job({"a": CONDITIONING}, ["a"])
        senseless = tmp_path / "senseless.json"
        senseless.write_text(json.dumps(job | {field: {"x": 1}}))
        assert field in self.refused(command, senseless)
        del job[field]
        missing = tmp_path / "missing.json"
        missing.write_text(json.dumps(job))
        assert field in self.refused(command, missing)

    @pytest.mark.parametrize(
        "more",
        [
            {"format": 2},
            {"runtime": "magic"},
            {"threads": 0},
            {"threads": True},
            {"seed": -1},
            {"seed": 1.5},
            {"cpus": []},
            {"cpus": [-1]},
            {"cpus": ["0"]},
            {"measurement_ms": -1},
            {"silence_s": 0},
            {"reference_every": 0},
            {"min_samples": 0},
            {"max_open": 0},
            {"reference": "nobody"},
            {"outputs": 1, "energy_ms": 1},
            {"outputs": 1, "profiled": 1},
            {"energy_ms": 1, "profiled": 1},
            {"profiled": -1},
            {"models": [{"id": "a", "as_it_is": False, "copies": 1, "finite": True}]},
            {"models": [{"id": 7, "file": "a.json", "as_it_is": False, "copies": 1, "finite": True}]},
            {"models": [{"id": "a", "file": "a.json", "copies": 1, "finite": True}]},
            {"models": [{"id": "a", "file": "a.json", "as_it_is": 0, "copies": 1, "finite": True}]},
            {"models": [{"id": "a", "file": "a.json", "as_it_is": False, "finite": True}]},
            {"models": [{"id": "a", "file": "a.json", "as_it_is": False, "copies": 0, "finite": True}]},
            {"models": [{"id": "a", "file": "a.json", "as_it_is": False, "copies": 1}]},
            {"models": [{"id": "a", "file": "a.json", "as_it_is": False, "copies": 1, "finite": 1}]},
            {"models": ["a"]},
            {"schedule": [{"round": 0, "models": ["nobody"]}]},
            {"schedule": [{"round": -1, "models": ["a"]}]},
            {"schedule": [{"round": 0}]},
            {"schedule": ["a"]},
        ],
        ids=json.dumps,
    )
    def test_a_job_that_makes_no_sense_is_refused(self, command: list[str], tmp_path: Path, more: dict[str, Any]) -> None:
        self.refused(command, written(tmp_path, {"a": CONDITIONING}, ["a"], **more))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"garbage",
            b"[]",
            b"7",
            b"null",
            b'{"format": 8',
            b"{}",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b'{"format": 8} x',
            b'{"a": NaN}',
        ],
        ids=lambda data: repr(data[:14]),
    )
    def test_a_file_that_is_no_job_is_refused(self, command: list[str], tmp_path: Path, data: bytes) -> None:
        (tmp_path / "job.json").write_bytes(data)
        self.refused(command, tmp_path / "job.json")

    def test_a_job_that_was_cut_short_is_refused(self, command: list[str], tmp_path: Path) -> None:
        path = Path(written(tmp_path, {"a": CONDITIONING}, ["a"]))
        job = path.read_bytes()
        for length in range(1, len(job), 97):
            path.write_bytes(job[:length])
            self.refused(command, path)

    def test_a_job_that_is_not_there_is_refused(self, command: list[str], tmp_path: Path) -> None:
        assert "nothing.json" in self.refused(command, tmp_path / "nothing.json")

    def test_without_a_job_it_says_how_it_is_used(self, command: list[str]) -> None:
        lines, code, stderr = run(command)
        assert (lines, code > 0, "--probe" in stderr) == ([], True, True)

    # ----------------------------------------------------------------------------------------------------------------- probe

    def test_a_probe_is_one_line(self, command: list[str], tmp_path: Path) -> None:
        (line,), code, _ = run([*command, "--probe", str(tmp_path)])
        assert (line["event"], code) == ("probe", 0)

    def test_a_runtime_that_cannot_run_the_model_does_not_work(self, command: list[str], tmp_path: Path) -> None:
        for name in ("probe.onnx", "probe.tflite"):
            (tmp_path / name).write_bytes(b"garbage")
        (line,), _, _ = run([*command, "--probe", str(tmp_path)])
        assert not [name for name, answer in line["runtimes"].items() if "version" in answer]


def rapl(package: int, name: str, energy_uj: int, range_uj: int) -> dict[str, object]:
    folder = f"sys/class/powercap/intel-rapl:{package}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": energy_uj, f"{folder}/max_energy_range_uj": range_uj}


def hwmon_rails(chips: Mapping[str, Sequence[tuple[str, int, int]]]) -> dict[str, object]:
    """Chips by address, each with its rails from 1 on: name, mV, mA; and channel 7, the sum of the shunts, which is no rail."""
    found: dict[str, object] = {}
    for address, rails in chips.items():
        folder = f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon3"
        for channel, (name, millivolts, milliamperes) in [*enumerate(rails, 1), (7, ("sum of shunt voltages", 1, 100_000))]:
            found[f"{folder}/in{channel}_label"] = name
            found[f"{folder}/in{channel}_input"] = millivolts
            found[f"{folder}/curr{channel}_input"] = milliamperes
    return found
