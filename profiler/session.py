"""Drives the runner on a device: pushes models, starts it, reads its lines, starts it again after a crash.

A model that takes the runner down costs itself only: the runner is restarted without what it has already measured, and after the
second crash without the culprit.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_agents import RUNNER, Agent
from device_agents.errors import CommandTimedOut
from profiler.errors import RunnerError
from profiler.settings import Target, TimingSettings

MAX_CRASHES = 2
PROTOCOL = 2

Schedule = Sequence[tuple[int, Sequence[str]]]
"""Rounds in order: the round's number and the models visited in it."""


@dataclass(frozen=True, slots=True)
class Session:
    """One device, one runtime, one set of timing settings."""

    agent: Agent
    target: Target
    settings: TimingSettings

    def probe(self) -> dict[str, Any]:
        """What the device is and which runtimes it has, as its runner tells."""
        name, runner = _runner()
        folder = self.agent.store({name: runner})
        result = self.agent.run([self._python, f"{folder}/{name}", "--probe"], timeout_s=self.settings.silence_s).check()
        for line in result.stdout.splitlines():
            message = _parse(line)
            if message is not None and message["event"] == "probe":
                return message
        raise RunnerError(f"the runner on {self.agent.address} did not answer; is {self._python} a Python interpreter?")

    def measure(self, models: Mapping[str, bytes], schedule: Schedule, reference: str | None = None) -> Iterator[dict[str, Any]]:
        """Visit `models` (file contents by id) as scheduled; the runner's lines as they come.

        A crash comes as a `failed` line with `crash` true. `RunnerError` if the runner cannot start at all.
        """
        suffix = self.target.model_format
        files = {name: f"{hashlib.sha256(data).hexdigest()}.{suffix}" for name, data in models.items()}
        self.agent.store({files[name]: data for name, data in models.items()})
        left = [(number, list(names)) for number, names in schedule]
        crashes: dict[str, int] = {}
        while any(names for _, names in left):
            ended = False
            current: str | None = None
            for message in self._run(files, left, reference):
                current = _current(message, current)
                if message["event"] in ("visit", "failed"):
                    _strike(left, message["model"], message["round"] if message["event"] == "visit" else None)
                ended = message["event"] == "done"
                if message["event"] != "crashed":
                    yield message
                elif current is None:
                    raise RunnerError(message["reason"])
            if ended:
                return
            assert current is not None
            crashes[current] = crashes.get(current, 0) + 1
            if current == reference:
                reference = None
            if crashes[current] >= MAX_CRASHES:
                _strike(left, current, None)
                yield {"event": "failed", "model": current, "round": 0, "reason": "it takes the runner down", "crash": True}

    @property
    def _python(self) -> str:
        return self.target.python or self.agent.interpreter()

    def _run(self, files: Mapping[str, str], left: Schedule, reference: str | None) -> Iterator[dict[str, Any]]:
        """One life of the runner: its lines, and a last one of ours, `crashed`, if it did not end well."""
        wanted = {name for _, names in left for name in names} | ({reference} if reference else set())
        job = json.dumps(self._job({name: files[name] for name in wanted}, left, reference)).encode()
        name = f"{hashlib.sha256(job).hexdigest()[:16]}.json"
        program, runner = _runner()
        folder = self.agent.store({program: runner, name: job})
        command = [self._python, f"{folder}/{program}", f"{folder}/{name}"]
        with self.agent.stream(command, silence_s=self.settings.silence_s) as stream:
            ended = False
            try:
                for message in filter(None, map(_parse, stream)):
                    ended = message["event"] == "done"
                    yield message
            except CommandTimedOut as exc:
                yield {"event": "crashed", "reason": str(exc)}
                return
            if not ended:
                yield {"event": "crashed", "reason": _how_it_ended(self._python, stream.returncode, stream.stderr)}

    def _job(self, files: Mapping[str, str], left: Schedule, reference: str | None) -> dict[str, Any]:
        settings = self.settings
        return {
            "format": PROTOCOL,
            "runtime": self.target.runtime,
            "threads": self.target.threads,
            "seed": settings.seed,
            "visit_ms": settings.visit_ms,
            "warmup_ms": settings.warmup_ms,
            "sample_ms": settings.sample_ms,
            "min_samples": settings.min_samples,
            "min_round_s": settings.min_round_s,
            "memory_bytes": settings.memory_bytes,
            "max_open": settings.max_open,
            "max_open_pools": settings.max_open_pools,
            "reference_ms": settings.reference_ms,
            "reference": reference,
            "reference_every": settings.reference_every,
            "models": [{"id": name, "file": file} for name, file in sorted(files.items())],
            "schedule": [{"round": number, "models": list(names)} for number, names in left if names],
        }


def _runner() -> tuple[str, bytes]:
    """The runner under a name that says its content."""
    data = RUNNER.read_bytes()
    return f"measure-{hashlib.sha256(data).hexdigest()[:16]}.py", data


def _parse(line: str) -> dict[str, Any] | None:
    """A line of the protocol, checked; None for a runtime's chatter. `RunnerError` for a line of ours that makes no sense."""
    if not line.startswith("{"):
        return None
    try:
        message = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        return None
    if message["event"] == "hello" and message.get("protocol") != PROTOCOL:
        raise RunnerError(f"the runner speaks protocol {message.get('protocol')!r}, this host {PROTOCOL}")
    if message["event"] in ("begin", "visit", "reference", "failed") and not (
        isinstance(message.get("model"), str) and isinstance(message.get("round"), int)
    ):
        raise RunnerError(f"the runner sent a {message['event']!r} line without model and round: {line[:120]!r}")
    if message["event"] in ("visit", "reference") and not _plausible(message):
        raise RunnerError(f"the runner sent samples that cannot be: {line[:120]!r}")
    return message


def _plausible(message: Mapping[str, Any]) -> bool:
    loops, samples, switched = message.get("loops"), message.get("samples_ns"), message.get("switched")
    if not isinstance(samples, list) or not samples or not isinstance(switched, list):
        return False
    whole = all(type(value) is int and 0 < value < 10**13 for value in samples)
    inside = all(type(place) is int and 0 <= place < len(samples) for place in switched)
    clock = message.get("clock_khz")
    clocked = clock is None or (isinstance(clock, list) and all(value is None or type(value) is int for value in clock))
    return whole and inside and clocked and type(loops) is int and loops >= 1 and type(message.get("started_ns")) is int


def _current(message: Mapping[str, Any], current: str | None) -> str | None:
    """The model the runner is busy with after this message."""
    if message["event"] == "begin":
        return str(message["model"])
    return None if message["event"] in ("visit", "reference", "failed") else current


def _strike(left: list[tuple[int, list[str]]], name: str, number: int | None) -> None:
    """Take a model off the schedule: of one round, or of all."""
    for scheduled, names in left:
        if name in names and number in (None, scheduled):
            names.remove(name)


def _how_it_ended(python: str, returncode: int | None, stderr: str) -> str:
    if returncode is not None and returncode < 0:
        return f"the runner was killed by {signal.Signals(-returncode).name}"
    said = [line for line in stderr.strip().splitlines() if line.strip()]
    if said and said[-1].startswith("ModuleNotFoundError"):
        missing = said[-1].partition(": ")[2]
        return f"{python} has no such runtime ({missing}); install it there, or name another interpreter with --python"
    return f"the runner ended with code {returncode}: {said[-1] if said else 'it said nothing'}"
