"""Answering a job without a device: what a recording and a simulated device have in common.

Both keep files in memory and speak the runner's side of protocol 5 (on_device/PROTOCOL.md): they read a stored job and answer with
the lines that a runner would send. Neither runs anything, so every other command is an error.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from device_agents.agent import Attached, CommandResult, Options, named
from device_agents.errors import CommandTimedOut, DeviceError
from device_agents.support.strict_json import read_json

PROTOCOL = 5
FOLDER = "/in-memory"
CONDITIONS = ("load_1min", "frequencies_khz", "temperature_c", "throttled", "thermal_status")


class Refused(Exception):
    """A model that cannot be run; the text is the reason."""


class Hung(Exception):
    """Nothing more would be heard from the runner."""


class Ended(Exception):
    """The runner's process is over before its job is done: its exit code (negative: a signal), and its last words."""

    def __init__(self, returncode: int, said: str = "") -> None:
        super().__init__(said)
        self.returncode, self.said = returncode, said


@dataclass(frozen=True, slots=True)
class Job:
    """What a runner is told; the fields are those of the protocol."""

    runtime: str
    threads: int
    seed: int
    cpus: Sequence[int] | None
    measurement_ms: float
    warmup_ms: float
    sample_ms: float
    min_samples: int
    min_round_s: float
    reference: str | None
    reference_every: int
    reference_ms: float
    outputs: int
    energy_ms: float
    models: Mapping[str, str]
    """The file of each id."""
    schedule: Sequence[tuple[int, Sequence[str]]]

    @classmethod
    def read(cls, data: bytes) -> Job:
        """`Ended`, as a runner would, if it is no job of this protocol."""
        try:
            plain = read_json(data)
            if plain["format"] != PROTOCOL:
                raise Ended(1, f"this runner speaks job format {PROTOCOL}, not {plain['format']!r}")
            values = {name: plain[name] for name in cls.__dataclass_fields__}
            values["models"] = {model["id"]: model["file"] for model in plain["models"]}
            values["schedule"] = [(entry["round"], tuple(entry["models"])) for entry in plain["schedule"]]
            job = cls(**values)
            named = {name for _, names in job.schedule for name in names} | (
                {job.reference} if job.reference is not None else set()
            )
            if job.reference_every < 1:
                raise ValueError("reference_every must be at least 1")
        except (ValueError, KeyError, TypeError) as exc:
            raise Ended(1, f"{type(exc).__name__}: {exc} in the job") from exc
        if strange := sorted(named - job.models.keys(), key=str):
            raise Ended(1, f"{strange[0]!r} in the schedule or the reference of the job is none of its models")
        return job

    @property
    def kind(self) -> str:
        """What a measurement is called."""
        return "outputs" if self.outputs else "energy" if self.energy_ms else "measurement"

    def looks(self, names: Sequence[str], failed: Collection[str]) -> Iterator[tuple[str, str]]:
        """The measurements of a round, each with its kind, and the looks at the reference between them.

        `failed` may grow meanwhile: what is in it is left out and counts for no measurement.
        """
        measurements = 0
        for name in (name for name in names if name not in failed):
            if self._reference_is_due(measurements) and self.reference not in failed:
                yield "reference", str(self.reference)
            if name not in failed:  # it may have been the reference
                measurements += 1
                yield self.kind, name

    def _reference_is_due(self, measurements: int) -> bool:
        return self.kind == "measurement" and self.reference is not None and measurements % self.reference_every == 0


class AnswerStream:
    """The lines of a runner that is not there."""

    def __init__(self, lines: Iterator[str], address: str, silence_s: float) -> None:
        self._lines, self._address, self._silence_s = lines, address, silence_s
        self.returncode: int | None = None
        self.stderr = ""

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._lines
            self.returncode = 0
        except Ended as exc:
            self.returncode, self.stderr = exc.returncode, exc.said
        except Hung:
            # a test of what the host does then need not wait for it
            raise CommandTimedOut(f"the runner said nothing for {self._silence_s:g} s on {self._address}; it was killed") from None

    def tell(self, data: bytes) -> None:
        """Every line is made when it is asked for, so nothing waits for an acknowledgement."""


class AnsweringAgent(ABC):
    """An agent but for what its device answers, which a kind of device says in six methods."""

    shared = True
    has_conditions = False
    address_forms: tuple[str, ...] = ()
    what: str
    """What this is instead of a device, for errors."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        self.address, self.options = address, options or Options()
        self._files: dict[str, bytes] = {}

    @abstractmethod
    def _hello(self, job: Job) -> Mapping[str, Any]:
        """`Ended` if a runner would not get so far."""

    @abstractmethod
    def _probe(self) -> Mapping[str, Any]: ...

    @abstractmethod
    def _round(self, job: Job) -> Mapping[str, Any]:
        """A round begins: `clock_ns` and the conditions."""

    @abstractmethod
    def _conditions(self) -> Mapping[str, Any]: ...

    @abstractmethod
    def _idle(self, job: Job) -> Mapping[str, Any]: ...

    @abstractmethod
    def _look(self, kind: str, name: str, job: Job) -> Mapping[str, Any] | str:
        """The fields of a `measurement`, `reference`, `outputs` or `energy` line, or a whole line that makes no sense.

        `Refused`, `Hung`, `Ended` or `LinkLost` for what may become of it.
        """

    def _reach(self) -> None:  # noqa: B027  most are always within reach
        """`LinkLost` while the connection is broken."""

    @classmethod
    def attached(cls) -> Sequence[Attached]:
        """None: these are opened by name only."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._files.clear()

    def reconnect(self) -> None:  # noqa: B027
        """There is no connection that could break."""

    def interpreter(self) -> str:
        self._reach()
        return "python3"

    def store(self, files: Mapping[str, bytes]) -> str:
        self._reach()
        self._files = {**files, **self._files}
        return FOLDER

    def clean(self) -> int:
        self._reach()
        size = sum(map(len, self._files.values()))
        self._files.clear()
        return size

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        self._reach()
        if "--probe" not in argv:
            raise self._nothing_runs(argv)
        return CommandResult(tuple(argv), 0, line("probe", self._probe()), "")

    @contextmanager
    def stream(self, argv: Sequence[str], *, silence_s: float) -> Iterator[AnswerStream]:
        self._reach()
        folder, _, name = (argv[-1] if argv else "").rpartition("/")
        if folder != FOLDER or not name.endswith(".json"):
            raise self._nothing_runs(argv)
        yield AnswerStream(self._answer(name), self.address, silence_s)

    def _nothing_runs(self, argv: Sequence[str]) -> DeviceError:
        return DeviceError(f"{self.address} is {self.what}: `{named(argv)}` cannot be run there, only the runner's jobs")

    def _answer(self, name: str) -> Iterator[str]:
        """Every line of a job; each is made when it is asked for, as if time had gone by."""
        job = Job.read(self._stored(name))
        yield line("hello", self._hello(job))
        failed: set[str] = set()
        for number, names in job.schedule:
            yield line("round", self._round(job), round=number)
            if job.energy_ms:
                yield line("idle", self._idle(job), round=number)
            for kind, model in job.looks(names, failed):
                yield line("begin", model=model, round=number)
                said, works = self._measured(kind, model, number, job)
                if not works:
                    failed.add(model)
                yield said
        yield line("done", self._conditions())

    def _stored(self, name: str) -> bytes:
        if name not in self._files:
            raise Ended(1, f"FileNotFoundError: {FOLDER}/{name}")
        return self._files[name]

    def _measured(self, kind: str, model: str, number: int, job: Job) -> tuple[str, bool]:
        """What becomes of one measurement, in a line, and whether the model works."""
        try:
            if job.models.get(model) not in self._files:
                raise Refused(f"FileNotFoundError: {FOLDER}/{job.models.get(model)}")
            seen = self._look(kind, model, job)
        except Refused as exc:
            return line("failed", model=model, round=number, reason=str(exc)), False
        return (seen, True) if isinstance(seen, str) else (line(kind, seen, model=model, round=number), True)


def line(event: str, fields: Mapping[str, Any] | None = None, **more: Any) -> str:
    return json.dumps({**(fields or {}), **more, "event": event}, separators=(",", ":")) + "\n"
