"""Jobs for runners that live on this host, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from runner_conformance import checked

from device_agents.memory import MemoryAgent
from profiler.devices.config import Device
from profiler.protocol.events import Crashed, Hello, RunEvent
from profiler.protocol.job import Job
from profiler.protocol.lines import event_data, parse_line
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners import Runner, runner_named

SETTINGS = TimingSettings(
    measurement_ms=2.0, warmup_ms=0.0, sample_ms=0.5, min_samples=2, min_round_s=0.0, silence_s=30.0, reference_ms=1.0
)
Event = TypeVar("Event")


def runner_of(agent: MemoryAgent, runtime: str = "litert") -> Runner:
    """The one that the agent comes with."""
    assert agent.runner is not None
    return runner_named(agent.runner)(agent, Device("phone", agent.address), Target(agent.address, runtime))


def typed_job(models: Iterable[str], schedule: Sequence[Iterable[str]], **more: Any) -> Job:
    """A job of milliseconds; what is said beside is a setting or a field of the job."""
    names = {item.name for item in fields(TimingSettings)}
    settings = replace(SETTINGS, **{name: value for name, value in more.items() if name in names})
    others = {"runtime": "litert", "threads": 1} | {name: value for name, value in more.items() if name not in names}
    rounds = [(number, tuple(models)) for number, models in enumerate(schedule)]
    return Job(settings=settings, models={name: f"{name}.json" for name in models}, schedule=rounds, **others)


def events_of(runner: Runner, job: Job) -> Iterator[RunEvent]:
    """The events of a run, each of which could have been a line of the protocol."""
    for event in runner.run(job):
        if not isinstance(event, Crashed):
            line = event_data(event)
            assert parse_line(json.dumps(line)) == event
            fields = {name: value for name, value in line.items() if name not in ("utc", "crash")}  # which the host adds
            if isinstance(event, Hello):
                fields["runner"] = "python"  # a name of the protocol's programs
            checked(json.dumps(fields))
        yield event


def told(events: Iterable[RunEvent]) -> list[str]:
    """What happened, in order: 'hello', 'round 0', 'measurement a', 'crashed', …"""
    words = [(type(event).__name__.lower(), getattr(event, "model", getattr(event, "round", None))) for event in events]
    return [name if which is None else f"{name} {which}" for name, which in words]


def only(events: Iterable[RunEvent], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]
