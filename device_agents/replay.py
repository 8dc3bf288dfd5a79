"""A recorded journal as a device: `replay:TABLE.journal.jsonl` answers every job with what was measured then.

Useful to try what a table would be with other settings, and to look into a build on a machine without its device. It says in its
flags that it is a recording (`replayed`), and is opened by name only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from device_agents.agent import Options
from device_agents.answering import CONDITIONS, PROTOCOL, AnsweringAgent, Job, Refused
from device_agents.errors import DeviceError
from device_agents.support.strict_json import read_json

FORMATS = (4,)
"""Of the journal. In 2, lines lack what protocol 3 brought; null stands for it."""
HELLO: dict[str, Any] = {
    "protocol": PROTOCOL,
    "runner": "python",
    "build": None,
    "library_sha256": None,
    "affinity": None,
    "pid": 1,
    "energy_source": None,
}
"""What a recorded hello may lack."""
MEASUREMENT = ("started_ns", "loops", "samples_ns", "switched", "clock_khz", "core")
Line = dict[str, Any]


class ReplayAgent(AnsweringAgent):
    """Plays the measurements of each model in the order they were recorded, and again from the first when they run out."""

    what = "a recording"

    def __init__(self, address: str, options: Options | None = None) -> None:
        """`DeviceError`, with its line, if the journal is damaged or holds no measurement."""
        super().__init__(address, options)
        path = address.partition(":")[2]
        if not path:
            raise DeviceError("`replay:` needs the journal of a build, as in replay:TABLE.journal.jsonl")
        self._path = Path(path)
        self._read(_lines(self._path))
        self._played: dict[tuple[str, str], Iterator[int]] = {}
        self._rounds_played = count()
        self._now: Line = self._rounds[0] if self._rounds else {}
        """The recorded round whose conditions are told."""

    def _read(self, lines: Iterable[Line]) -> None:
        self._hellos: list[Line] = []
        self._rounds: list[Line] = []
        self._failed: dict[str, str] = {}
        self._measurements: dict[tuple[str, str], list[Line]] = {}
        self._target: Mapping[str, Any] = {}
        for line in lines:
            match line["event"]:
                case "journal":
                    self._target = line.get("target") or {}
                case "hello":
                    self._hellos.append(line)
                case "round":
                    self._rounds.append(line)
                case "failed":
                    self._failed.setdefault(line["model"], line["reason"])
                case "measurement" | "reference" as kind:
                    self._measurements.setdefault((kind, line["model"]), []).append(line)
        if not self._hellos:
            raise DeviceError(f"{self._path} holds no measurement that could be replayed; name the journal of another build")

    # ------------------------------------------------------------------------------------------------------------- answering

    def _hello(self, job: Job) -> Line:
        self._check(job)
        hello = HELLO | {name: value for name, value in self._hellos[0].items() if name not in ("event", "utc")}  # utc: the host's
        return hello | {"protocol": PROTOCOL, "flags": {**hello["flags"], "replayed": self._path.name}}

    def _check(self, job: Job) -> None:
        """`DeviceError` if the job asks for what was not recorded."""
        if job.outputs or job.energy_ms:
            wanted = "outputs" if job.outputs else "energy"
            raise DeviceError(f"{self.address} is a recording of latencies; {wanted} must be measured on the device itself")
        asked: dict[str, object] = {"runtime": job.runtime, "threads": job.threads}
        recorded = asked | {name: value for name, value in self._target.items() if name in asked}
        recorded["runtime"] = self._hellos[0]["runtime"]
        for name, value in recorded.items():
            if asked[name] != value:
                raise DeviceError(f"{self.address} was recorded with {name} {value}, not {asked[name]}; ask for {name} {value}")

    def _probe(self) -> Line:
        hello = self._hellos[0]
        facts = {name: (HELLO | hello)[name] for name in ("runner", "device", "energy_source")}
        runtimes = {hello["runtime"]: {"version": hello["version"]}}
        return {"protocol": PROTOCOL} | facts | {"runtimes": runtimes} | self._conditions()

    def _round(self, job: Job) -> Line:
        if self._rounds:
            self._now = self._rounds[next(self._rounds_played) % len(self._rounds)]
        return {"clock_ns": self._now.get("clock_ns", 1)} | self._conditions()

    def _conditions(self) -> Line:
        return {name: self._now.get(name) for name in CONDITIONS}

    def _idle(self, job: Job) -> Line:
        raise AssertionError  # `_check` lets no job pass that asks for energy

    def _look(self, kind: str, name: str, job: Job) -> Line:
        if name in self._failed:
            raise Refused(self._failed[name])
        # a model that was measured then and is the reference now
        found = next((at for at in ((kind, name), ("measurement", name)) if at in self._measurements), None)
        if found is None:
            raise Refused("not in the recording")
        place = next(self._played.setdefault(found, count()))
        measurements = self._measurements[found]
        return {field: measurements[place % len(measurements)].get(field) for field in MEASUREMENT}


# --------------------------------------------------------------------------------------------------------------------- reading


def _lines(path: Path) -> Iterator[Line]:
    """Every whole line of a journal, checked; a torn last one, left by a killed process, is dropped."""
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        raise DeviceError(f"{path} cannot be replayed: {exc.strerror}; name the journal of a build, TABLE.journal.jsonl") from exc
    except UnicodeDecodeError as exc:
        raise DeviceError(f"{path} cannot be replayed: it is not text; name the journal of a build, not its table") from exc
    for number, raw in enumerate(text.split("\n")[:-1], 1):
        line = _parse(raw)
        wrong = "it is not a line of JSON with an `event`" if line is None else _wrong(line, number)
        if line is None or wrong:
            raise DeviceError(f"{path}, line {number} is damaged: {wrong}; replay a copy that is whole")
        yield line


def _parse(raw: str) -> Line | None:
    try:
        line = read_json(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("event"), str) else None


def _wrong(line: Line, number: int) -> str | None:
    """What is wrong with a line, if it is one that would be replayed."""
    if (number == 1) != (line["event"] == "journal"):
        return "the first line, and no other, says that this is a journal"
    match line["event"]:
        case "journal":
            good = line.get("format") in FORMATS and isinstance(line.get("target", {}), dict)
            return None if good else f"this is no journal of format {' or '.join(map(str, FORMATS))}"
        case "hello":
            good = all(isinstance(line.get(name), dict) for name in ("device", "flags"))
            good = good and all(isinstance(line.get(name), str) for name in ("runtime", "version", "runner_sha256"))
            return None if good else "a hello needs device, flags, runtime, version and runner_sha256"
        case "failed":
            good = isinstance(line.get("model"), str) and isinstance(line.get("reason"), str)
            return None if good else "a failed model needs a model and a reason"
        case "measurement" | "reference":
            return (
                None
                if _is_measurement(line)
                else "a measurement needs a model, a round, loops, samples_ns, switched and started_ns"
            )
    return None


def _is_measurement(line: Line) -> bool:
    samples, switched, clock = line.get("samples_ns"), line.get("switched"), line.get("clock_khz")
    if not isinstance(samples, list) or not samples or not isinstance(switched, list):
        return False
    return (
        isinstance(line.get("model"), str)
        and all(_whole(line.get(name), 0) for name in ("round", "started_ns"))
        and _whole(line.get("loops"), 1)
        and all(_whole(sample, 1) for sample in samples)
        and all(_whole(place, 0) and place < len(samples) for place in switched)
        and (clock is None or isinstance(clock, list))
    )


def _whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least
