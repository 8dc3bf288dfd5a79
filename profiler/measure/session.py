"""A session with a runner on a device: it starts the runner, passes on its events, and starts it again after a failure.

A model that crashes the runner costs itself only: the runner is started again for what is left, and after the second crash without
that model. After a broken connection the session reconnects and measures the rest. A hot device is left to cool first.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never, get_args

from device_agents.agent import Agent
from device_agents.errors import DeviceUnreachable, LinkLost
from profiler.devices.conditioning import Conditioned, Cooling
from profiler.errors import RunnerError
from profiler.protocol.events import (
    Begin,
    Busy,
    Crashed,
    Done,
    Energy,
    Executed,
    Failed,
    Hello,
    Idle,
    Measurement,
    ModelEvent,
    NotFinite,
    Outputs,
    Paused,
    Probe,
    Reference,
    Round,
    RunEvent,
    SessionEvent,
)
from profiler.protocol.job import Job, Loading, Schedule
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners import Runner
from profiler.runtimes import fusion_of

MAX_CRASHES = 2
MAX_LOST = 3
"""A model is taken for the cause when the connection has broken so often while it ran."""
MAX_HEAT_STOPS = 4
"""A runner that reads too much heat so often before anything was measured reads another sensor than the one that is waited for."""
RECONNECT_S = (1.0, 2.0, 4.0, 8.0, 16.0)
WARMER_C = 5.0
"""A device may become so many degrees warmer than the limit for starting before it is left to cool."""

MODEL_EVENTS = get_args(ModelEvent)
NO_LOADING: Mapping[str, Loading] = {}


@dataclass(frozen=True, slots=True)
class Session:
    """One device, one runtime, one set of timing settings."""

    agent: Agent
    runner: Runner
    target: Target
    settings: TimingSettings
    cpus: tuple[int, ...] | None = None
    conditioning: Conditioned | None = None
    """The device's conditioning; None for a device that has none."""
    cooling: Cooling = field(default_factory=Cooling)
    cool: Callable[[], object] = lambda: None
    """Wait until the device is cool enough to start."""
    sleep: Callable[[float], object] = time.sleep

    @property
    def tells_executed(self) -> bool:
        """True if the runner can ask the runtime what it executes."""
        return self.runner.tells_executed

    @property
    def leaves_as_it_is(self) -> bool:
        """True if executed operators can be measured alone, with nothing added to them."""
        return self.tells_executed and fusion_of(self.target.runtime) == "onnxruntime"

    def probe(self) -> Probe:
        """Ask the runner what the device is and which runtimes work there."""
        return self.runner.probe()

    def measure(
        self,
        models: Mapping[str, bytes],
        schedule: Schedule,
        reference: str | None = None,
        loading: Mapping[str, Loading] | None = None,
    ) -> Iterator[SessionEvent]:
        """Measure `models` (file contents by key) as scheduled, each round in an order of its own; the events as they come.

        A model that takes the runner down comes as `Failed` with `crash`, a broken link or heat as `Paused` with its reason.
        `RunnerError` if the runner cannot start at all, `LinkLost` if the device does not come back.
        """
        return self._run(models, schedule, reference=reference, loading=loading or {})

    def energy(self, models: Mapping[str, bytes], schedule: Schedule, energy_ms: float) -> Iterator[SessionEvent]:
        """The same for energy instead of latency: `Idle` and `Energy`."""
        return self._run(models, schedule, energy_ms=energy_ms)

    def outputs(self, models: Mapping[str, bytes], count: int) -> Iterator[SessionEvent]:
        """The first `count` values of each output of each model, for inputs that are the same everywhere: `Outputs`."""
        return self._run(models, [(0, list(models))], outputs=count)

    def executed(
        self, models: Mapping[str, bytes], inferences: int, loading: Mapping[str, Loading] | None = None
    ) -> Iterator[SessionEvent]:
        """What the runtime executes for each model, and the time of each operator in so many inferences: `Executed`."""
        return self._run(models, [(0, list(models))], profiled=inferences, loading=loading or {})

    def _run(
        self,
        models: Mapping[str, bytes],
        schedule: Schedule,
        *,
        reference: str | None = None,
        outputs: int = 0,
        energy_ms: float = 0.0,
        profiled: int = 0,
        loading: Mapping[str, Loading] = NO_LOADING,
    ) -> Iterator[SessionEvent]:
        suffix = self.target.model_format
        files = {name: f"{hashlib.sha256(data).hexdigest()}.{suffix}" for name, data in models.items()}
        contents = {files[name]: data for name, data in models.items()}
        course = _Course(
            [(number, _shuffled(names, f"{self.settings.seed}-{number}")) for number, names in schedule], reference=reference
        )
        heat_stops, heeds_heat = 0, True
        while course.goes_on:
            try:
                self.cool()
                self.agent.store(contents)
                wanted = {name for _, names in course.left for name in names} | ({course.reference} if course.reference else set())
                job = Job(
                    runtime=self.target.runtime,
                    threads=self.target.threads,
                    settings=self.settings,
                    models={name: files[name] for name in sorted(wanted)},
                    schedule=[(number, tuple(names)) for number, names in course.left if names],
                    reference=course.reference,
                    cpus=self.cpus,
                    outputs=outputs,
                    energy_ms=energy_ms,
                    profiled=profiled,
                    loading={name: loading[name] for name in wanted if name in loading},
                )
                for event in self.runner.run(job):
                    if isinstance(event, MODEL_EVENTS) and event.model not in files:
                        raise RunnerError(f"the runner sent an event of a model that it was not given: {event.model[:60]!r}")
                    yield from course.see(event)
                    if isinstance(event, Round):
                        if self.conditioning is not None:
                            # a device that does not hear from its host for long gives its conditioning up: that may have died
                            self.conditioning.renew()
                        if heeds_heat and self._hot(event):
                            heat_stops += 1
                            heeds_heat = heat_stops < MAX_HEAT_STOPS
                            if heeds_heat:
                                yield Paused("the device became hot")
                                break
                            yield Paused(
                                "the runner reads too much heat whenever the device has just cooled down; it is not heeded any more"
                            )
                    elif isinstance(event, MODEL_EVENTS):
                        heat_stops = 0
            except LinkLost as exc:
                yield Paused(str(exc))
                self._reconnect(exc)
                yield from course.link_lost()

    def _reconnect(self, lost: LinkLost) -> None:
        """Connect again, with growing pauses. `LinkLost` if that does not succeed within half a minute."""
        for delay_s in RECONNECT_S:
            self.sleep(delay_s)
            try:
                self.agent.reconnect()
            except (DeviceUnreachable, LinkLost):
                continue
            return
        raise LinkLost(f"{lost}, and {self.agent.address} did not come back within {sum(RECONNECT_S):.0f} s") from lost

    def _hot(self, now: Round) -> bool:
        rules = self.cooling
        if now.thermal_status is not None and now.thermal_status > rules.status:
            return True
        return now.temperature_c is not None and rules.below_c is not None and now.temperature_c > rules.below_c + WARMER_C


@dataclass(slots=True)
class _Course:
    """The rest of a schedule, and the failures so far: which models crash the runner or break the connection."""

    left: list[tuple[int, list[str]]]
    reference: str | None
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

    def see(self, event: RunEvent) -> Iterator[SessionEvent]:
        """Take up an event of the runner, and yield the events that the session passes on."""
        match event:
            case Crashed(reason):
                yield from self._crash(reason)
                return
            case Begin(model, _):
                self.current = model
            case Failed(model, _, _):
                self._result(model, None)
            case Measurement() | Outputs() | Energy() | Executed():
                self._result(event.model, event.round)
            case Done():
                self.current, self.done = None, True
            case NotFinite():
                pass
            case Hello() | Round() | Reference() | Idle():
                self.current = None
            case Busy() | Probe():
                raise RunnerError(f"the runner sent a {type(event).__name__.lower()!r} line in the middle of a job")
            case _:
                assert_never(event)
        yield event

    def _result(self, model: str, number: int | None) -> None:
        self.current, self.progressed = None, True
        self._strike(model, number)

    def _crash(self, reason: str) -> Iterator[SessionEvent]:
        """Blame the model that was running. `RunnerError` if none was, unless something was measured since that last happened."""
        culprit, self.current = self.current, None
        if culprit is None:
            if not self.progressed:
                raise RunnerError(reason)
            self.progressed = False
            yield Paused(reason)
            return
        if culprit == self.reference:
            self.reference = None
        self.crashes[culprit] += 1
        if self.crashes[culprit] >= MAX_CRASHES:
            yield self._given_up(culprit, f"it takes the runner down: {reason}")

    def link_lost(self) -> Iterator[SessionEvent]:
        suspect, self.current = self.current, None
        if suspect is not None:
            self.lost[suspect] += 1
            if self.lost[suspect] >= MAX_LOST:
                yield self._given_up(suspect, "the link breaks off whenever it runs")

    def _given_up(self, name: str, reason: str) -> Failed:
        self._strike(name, None)
        return Failed(name, 0, reason, crash=True)

    def _strike(self, name: str, number: int | None) -> None:
        """Take a model off the schedule: off the round of this number, or off all rounds if it is None."""
        for scheduled, names in self.left:
            if name in names and number in (None, scheduled):
                names.remove(name)


def _shuffled(names: Sequence[str], seed: str) -> list[str]:
    """Shuffle the names: the same seed gives the same order on every device."""
    order = list(names)
    random.Random(seed).shuffle(order)
    return order
