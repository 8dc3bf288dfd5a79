"""Plays a recorded journal (`replay:TABLE.journal.jsonl`) back: the events of every job are those recorded then.

The flags of its hello name the journal, under `replayed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import ClassVar

from device_agents.agent import Agent
from device_agents.replay import ReplayAgent
from profiler.devices.config import Device
from profiler.errors import JournalError, RunnerError
from profiler.protocol.events import (
    PROTOCOL,
    Done,
    Executed,
    Failed,
    Header,
    Hello,
    JournalEvent,
    Measurement,
    Probe,
    Reference,
    Round,
    RunEvent,
    RuntimeState,
)
from profiler.protocol.job import Job
from profiler.protocol.journal import read_journal
from profiler.protocol.settings import Target
from profiler.runners.walk import conditions_of, walk

Kind = type[Measurement] | type[Reference]


class ReplayRunner:
    """Plays the measurements of each model in the order they were recorded, and again from the first when they run out."""

    name: ClassVar[str] = "replay"
    tells_executed: ClassVar[bool] = True

    def __init__(self, agent: Agent, device: Device, target: Target) -> None:
        """`RunnerError`, with its line, if the journal is damaged or holds no measurement."""
        if not isinstance(agent, ReplayAgent):
            raise RunnerError(f"the replay runner is for devices such as replay:JOURNAL, not for {agent.address}; name another")
        self._agent = agent
        self._hellos: list[Hello] = []
        self._rounds: list[Round] = []
        self._failed: dict[str, str] = {}
        self._executed: dict[str, Executed] = {}
        self._recorded: dict[tuple[Kind, str], list[Measurement | Reference]] = {}
        try:
            self._read(read_journal(agent.journal))
        except JournalError as exc:
            raise RunnerError(f"{exc}; replay the journal of a build, whole and of this version") from exc
        if not self._hellos:
            raise RunnerError(f"{agent.journal} holds no measurement that could be replayed; name the journal of another build")
        self._played: Counter[tuple[Kind, str]] = Counter()
        self._rounds_played = 0
        self._now = self._rounds[0] if self._rounds else Round(round=0, clock_ns=1)
        """The recorded round whose conditions the device has now."""

    def _read(self, events: Iterable[JournalEvent]) -> None:
        for event in events:
            match event:
                case Header():
                    self._header = event
                case Hello():
                    self._hellos.append(event)
                case Round():
                    self._rounds.append(event)
                case Executed():
                    self._executed.setdefault(event.model, event)
                case Failed(model, _, reason):
                    self._failed.setdefault(model, reason)
                case Measurement() | Reference():
                    self._recorded.setdefault((type(event), event.model), []).append(event)

    def probe(self) -> Probe:
        hello = self._hellos[0]
        return Probe(
            protocol=PROTOCOL,
            runner=hello.runner,
            device=hello.device,
            energy_source=hello.energy_source,
            runtimes={self._runtime: RuntimeState(hello.version)},
            **conditions_of(self._now),
        )

    @property
    def _runtime(self) -> str:
        return self._hellos[0].runtime or self._header.target.runtime

    def run(self, job: Job) -> Iterator[RunEvent]:
        self._check(job)
        hello = self._hellos[0]
        flags = {**hello.flags, "replayed": self._agent.journal.name}
        yield replace(hello, protocol=PROTOCOL, flags=flags, utc=None)  # the host says when it is now
        yield from walk(
            job, self._begin_round, lambda model, number, as_reference: self._measured(model, number, as_reference, job)
        )
        yield Done(**conditions_of(self._now))

    def _check(self, job: Job) -> None:
        """`RunnerError` if the job asks for what was not recorded."""
        if job.outputs or job.energy_ms:
            wanted = "outputs" if job.outputs else "energy"
            raise RunnerError(f"{self._agent.address} is a recording of latencies; {wanted} must be measured on the device itself")
        threads = self._header.target.threads
        for name, asked, then in (("runtime", job.runtime, self._runtime), ("threads", job.threads, threads)):
            if asked != then:
                raise RunnerError(f"{self._agent.address} was recorded with {name} {then}, not {asked}; ask for {name} {then}")

    def _begin_round(self, number: int) -> Iterator[RunEvent]:
        if self._rounds:
            self._now = self._rounds[self._rounds_played % len(self._rounds)]
            self._rounds_played += 1
        yield replace(self._now, round=number)

    def _measured(self, model: str, number: int, as_reference: bool, job: Job) -> RunEvent:
        if job.models[model] not in self._agent.files:
            return Failed(model, number, f"FileNotFoundError: {job.models[model]}")
        if job.profiled:
            untold = Executed(model=model, round=number, operators=(), inferences_us=(), reason="it is not in the recording")
            return replace(self._executed.get(model, untold), round=number)
        if model in self._failed:
            return Failed(model, number, self._failed[model])
        kind: Kind = Reference if as_reference else Measurement
        # a model that was measured then may be the reference now
        found = next((at for at in ((kind, model), (Measurement, model)) if at in self._recorded), None)
        if found is None:
            return Failed(model, number, "not in the recording")
        events = self._recorded[found]
        then = events[self._played[found] % len(events)]
        self._played[found] += 1
        return kind(
            model, number, then.loops, then.samples_ns, then.switched, then.started_ns, clock_khz=then.clock_khz, core=then.core
        )
