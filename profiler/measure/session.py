"""Drives a runner on a device: starts it, reads its lines, starts it again after a crash, a broken link, or heat.

A model that takes the runner down costs itself only: the runner is restarted without what it has already measured, and after the
second crash without the culprit. When the link breaks off it is made anew and the rest is measured; a device that becomes hot is
left to cool.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from device_agents.agent import Agent
from device_agents.errors import DeviceUnreachable, LinkLost
from profiler.devices.conditioning import Conditioned, Cooling
from profiler.errors import RunnerError
from profiler.protocol.events import PROTOCOL, Message
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners import Runner

MAX_CRASHES = 2
MAX_LOST = 3
"""So often may the link break off while one model runs before the model is taken for the reason."""
RECONNECT_S = (1.0, 2.0, 4.0, 8.0, 16.0)
WARMER_C = 5.0
"""A device may become so much warmer than it has to be at the start before it is left to cool."""

Schedule = Sequence[tuple[int, Sequence[str]]]
"""Rounds in order: the round's number and the models measured in it."""


@dataclass(frozen=True, slots=True)
class Session:
    """One device, one runtime, one set of timing settings."""

    agent: Agent
    runner: Runner
    target: Target
    settings: TimingSettings
    cpus: tuple[int, ...] | None = None
    conditioning: Conditioned | None = None
    """What the device was set to for measuring, and how it was found."""
    cooling: Cooling = field(default_factory=Cooling)
    cool: Callable[[], object] = lambda: None
    """Waits until the device is cool enough."""
    sleep: Callable[[float], object] = time.sleep

    def probe(self) -> Message:
        """What the device is and which runtimes work there, as its runner tells."""
        return self.runner.probe()

    def measure(self, models: Mapping[str, bytes], schedule: Schedule, reference: str | None = None) -> Iterator[Message]:
        """Measurement `models` (file contents by id) as scheduled, each round in an order of its own; the lines as they come.

        A crash comes as a `failed` line with `crash` true, a broken link or heat as a `paused` line with its reason.
        `RunnerError` if the runner cannot start at all, `LinkLost` if the device does not come back.
        """
        return self._measure(models, schedule, reference, {}, ("measurement", "failed"))

    def energy(self, models: Mapping[str, bytes], schedule: Schedule, energy_ms: float) -> Iterator[Message]:
        """The same for energy instead of latency: lines `idle` and `energy`."""
        return self._measure(models, schedule, None, {"energy_ms": energy_ms}, ("energy", "failed"))

    def outputs(self, models: Mapping[str, bytes], count: int) -> Iterator[Message]:
        """The first `count` values of each output of each model, for inputs that are the same everywhere: lines `outputs`."""
        return self._measure(models, [(0, list(models))], None, {"outputs": count}, ("outputs", "failed"))

    def _measure(
        self,
        models: Mapping[str, bytes],
        schedule: Schedule,
        reference: str | None,
        special: Mapping[str, Any],
        ends: tuple[str, ...],
    ) -> Iterator[Message]:
        """`ends` are the events that tick a model off; `special` is what differs in the job."""
        suffix = self.target.model_format
        files = {name: f"{hashlib.sha256(data).hexdigest()}.{suffix}" for name, data in models.items()}
        contents = {files[name]: data for name, data in models.items()}
        course = _Course(
            [(number, _shuffled(names, f"{self.settings.seed}-{number}")) for number, names in schedule], reference, ends
        )
        while course.goes_on:
            try:
                self.cool()
                self.agent.store(contents)
                for message in self.runner.life({**self._job(files, course), **special}):
                    if message.get("model") not in (None, *files):
                        raise RunnerError(f"the runner told of a model that it was not asked for: {message['model'][:60]!r}")
                    yield from course.see(message)
                    if message["event"] == "round":
                        self._renew()
                        if self._hot(message):
                            yield {"event": "paused", "reason": "the device became hot"}
                            break
            except LinkLost as exc:
                yield {"event": "paused", "reason": str(exc)}
                self._reconnect(exc)
                yield from course.link_lost()

    def _reconnect(self, lost: LinkLost) -> None:
        """`LinkLost` if that does not help within half a minute."""
        for delay_s in RECONNECT_S:
            self.sleep(delay_s)
            try:
                self.agent.reconnect()
            except (DeviceUnreachable, LinkLost):
                continue
            return
        raise LinkLost(f"{lost}, and {self.agent.address} did not come back within {sum(RECONNECT_S):.0f} s") from lost

    def _renew(self) -> None:
        """Without this the device would give up its conditioning state, for its host may have died."""
        if self.conditioning is not None:
            self.conditioning.renew()

    def _hot(self, conditions: Message) -> bool:
        status, temperature_c, rules = conditions.get("thermal_status"), conditions.get("temperature_c"), self.cooling
        if status is not None and status > rules.status:
            return True
        return temperature_c is not None and rules.below_c is not None and temperature_c > rules.below_c + WARMER_C

    def _job(self, files: Mapping[str, str], course: _Course) -> dict[str, Any]:
        settings, reference = self.settings, course.reference
        wanted = {name for _, names in course.left for name in names} | ({reference} if reference else set())
        return {
            "format": PROTOCOL,
            "runtime": self.target.runtime,
            "threads": self.target.threads,
            "cpus": list(self.cpus) if self.cpus else None,
            "root": "/",
            "seed": settings.seed,
            "measurement_ms": settings.measurement_ms,
            "warmup_ms": settings.warmup_ms,
            "sample_ms": settings.sample_ms,
            "min_samples": settings.min_samples,
            "min_round_s": settings.min_round_s,
            "silence_s": settings.silence_s,
            "memory_bytes": settings.memory_bytes,
            "max_open": settings.max_open,
            "max_open_pools": settings.max_open_pools,
            "reference_ms": settings.reference_ms,
            "reference": reference,
            "reference_every": settings.reference_every,
            "acknowledged": True,
            "outputs": 0,
            "energy_ms": 0,
            "models": [{"id": name, "file": files[name]} for name in sorted(wanted)],
            "schedule": [{"round": number, "models": list(names)} for number, names in course.left if names],
        }


@dataclass(slots=True)
class _Course:
    """How far a schedule has got, and what stood in its way."""

    left: list[tuple[int, list[str]]]
    reference: str | None
    ends: tuple[str, ...]
    """Events that tick a model off."""
    current: str | None = None
    """The model the runner is busy with."""
    done: bool = False
    progressed: bool = False
    """Whether something was measured since the runner last ended while it was busy with none of the models."""
    crashes: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def goes_on(self) -> bool:
        return not self.done and any(names for _, names in self.left)

    def see(self, message: Message) -> Iterator[Message]:
        """Take note of a line of the runner; the lines to pass on."""
        match message["event"]:
            case "crashed":
                yield from self._crash(message["reason"])
                return
            case "begin":
                self.current = message["model"]
            case event:
                self.current = None
                self.done = event == "done"
                if event in self.ends:
                    self.progressed = True
                    self._strike(message["model"], None if event == "failed" else message["round"])
        yield message

    def _crash(self, reason: str) -> Iterator[Message]:
        """`RunnerError` if it was none of the models, unless something was measured since that last happened."""
        culprit, self.current = self.current, None
        if culprit is None:
            if not self.progressed:
                raise RunnerError(reason)
            self.progressed = False
            yield {"event": "paused", "reason": reason}
            return
        if culprit == self.reference:
            self.reference = None
        self.crashes[culprit] += 1
        if self.crashes[culprit] >= MAX_CRASHES:
            yield self._given_up(culprit, f"it takes the runner down: {reason}")

    def link_lost(self) -> Iterator[Message]:
        suspect, self.current = self.current, None
        if suspect is not None:
            self.lost[suspect] += 1
            if self.lost[suspect] >= MAX_LOST:
                yield self._given_up(suspect, "the link breaks off whenever it runs")

    def _given_up(self, name: str, reason: str) -> Message:
        self._strike(name, None)
        return {"event": "failed", "model": name, "round": 0, "reason": reason, "crash": True}

    def _strike(self, name: str, number: int | None) -> None:
        """Take a model off the schedule: of one round, or of all."""
        for scheduled, names in self.left:
            if name in names and number in (None, scheduled):
                names.remove(name)


def _shuffled(names: Sequence[str], seed: str) -> list[str]:
    """The same order for the same seed, whatever runs the models."""
    order = list(names)
    random.Random(seed).shuffle(order)
    return order
