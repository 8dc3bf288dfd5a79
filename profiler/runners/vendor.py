"""Where a vendor's benchmark program is all a user has: one process for each measurement, and what it prints instead of samples.

What is lost against our own runners: no raw samples (each measurement is one number, mostly in whole microseconds), no clocks, heat
or core switches seen, and a process start for every measurement. The flags of the table say so.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from device_agents.agent import Agent, named_by_content
from device_agents.errors import CommandTimedOut
from profiler.devices.config import Device
from profiler.errors import RunnerError
from profiler.protocol.events import (
    MOST_NS,
    PROTOCOL,
    DeviceFacts,
    Done,
    Failed,
    Hello,
    Measurement,
    Probe,
    Reference,
    Round,
    RunEvent,
    RuntimeState,
)
from profiler.protocol.job import USUAL, Job
from profiler.protocol.settings import Target
from profiler.runners.program import how_it_ended
from profiler.runners.walk import walk


class VendorTool(ABC):
    """A subclass says how the program is called and reads what it prints."""

    name: ClassVar[str]
    tells_executed: ClassVar[bool] = False
    runtimes: ClassVar[tuple[str, ...]]
    lost: ClassVar[str]
    """What its figures lack, in a few words, for the table."""

    def __init__(self, agent: Agent, device: Device, target: Target) -> None:
        if target.runtime not in self.runtimes:
            raise RunnerError(f"{self.name} measures {' and '.join(self.runtimes)}, not {target.runtime}")
        if self.name not in device.tools:
            raise RunnerError(
                f"{self.name} for {device.name} must be named in profile.toml, under [devices.{device.name}], "
                f'as tools.{self.name} = "PATH"'
            )
        self._agent, self._device, self._path = agent, device, device.tools[self.name]

    @abstractmethod
    def _arguments(self, model: str, job: Job) -> Sequence[str]: ...

    @abstractmethod
    def _latency_ns(self, text: str) -> int | None:
        """Of one inference, out of everything the program printed; None if it is not there."""

    def probe(self) -> Probe:
        folder, program = self._stored()
        self._agent.run([f"{folder}/{program}", "--help"], timeout_s=60)  # a program for another processor fails here
        runtimes = {self.runtimes[0]: RuntimeState(program)}
        return Probe(protocol=PROTOCOL, runner=self.name, device=self._facts(), runtimes=runtimes)

    def run(self, job: Job) -> Iterator[RunEvent]:
        if not job.measures_latency:
            raise RunnerError(f"{self.name} measures latencies only, no outputs, energy or executed graphs; use the native runner")
        if any(loading != USUAL for loading in job.loading.values()):
            raise RunnerError(f"{self.name} cannot open parts of an optimised graph; use the native runner")
        folder, program = self._stored()
        yield Hello(
            protocol=PROTOCOL,
            runtime=self.runtimes[0],
            version=program,
            runner=self.name,
            flags={"tool": self.name, "lost": self.lost},
            device=self._facts(),
        )
        yield from walk(
            job,
            lambda number: [Round(round=number, clock_ns=time.monotonic_ns())],
            lambda model, number, as_reference: self._measured(model, number, as_reference, folder, program, job),
        )
        yield Done()

    def _measured(
        self, model: str, number: int, as_reference: bool, folder: str, program: str, job: Job
    ) -> Measurement | Reference | Failed:
        """Run the program once for one model."""
        pin = ["taskset", f"{sum(1 << cpu for cpu in job.cpus):x}"] if job.cpus else []
        command = [*pin, f"{folder}/{program}", *self._arguments(f"{folder}/{job.models[model]}", job)]
        started_ns = time.monotonic_ns()
        try:
            result = self._agent.run(command, timeout_s=job.settings.silence_s)
        except CommandTimedOut as exc:
            return Failed(model, number, str(exc))
        latency_ns = self._latency_ns(result.stdout + result.stderr)
        if result.returncode != 0 or not latency_ns:
            return Failed(model, number, how_it_ended(result.returncode, result.stderr or result.stdout))
        kind = Reference if as_reference else Measurement
        return kind(model, number, loops=1, samples_ns=(latency_ns,), started_ns=started_ns)

    def _stored(self) -> tuple[str, str]:
        try:
            data = self._path.read_bytes()
        except OSError as exc:
            raise RunnerError(f"{self._path}, which tools.{self.name} names, cannot be read: {exc.strerror or exc}") from exc
        name = named_by_content(self._path, data)
        return self._agent.store({name: data}), name

    def _facts(self) -> DeviceFacts:
        result = self._agent.run(["uname", "-s", "-r", "-m"], timeout_s=30)
        system, kernel, machine = [*result.stdout.split(), "", "", ""][:3]
        return DeviceFacts(system=system, kernel=kernel, machine=machine, governor="not readable")


def nanoseconds(text: str, unit_ns: float) -> int | None:
    """A figure that a program printed; None for what no latency can be."""
    try:
        value_ns = float(text) * unit_ns
    except ValueError:
        return None
    return round(value_ns) if 0 < value_ns < MOST_NS else None
