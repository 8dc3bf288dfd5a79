"""Where a vendor's benchmark program is all a user has: one process for each measurement, and what it prints instead of samples.

What is lost against our own runners: no raw samples (each measurement is one number, mostly in whole microseconds), no clocks, heat
or core switches seen, and a process start for every measurement. The flags of the table say so.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from device_agents.agent import Agent
from device_agents.errors import CommandTimedOut
from profiler.devices.config import Device
from profiler.errors import RunnerError
from profiler.protocol.events import MOST_NS, PROTOCOL, Message
from profiler.protocol.settings import Target
from profiler.runners.program import how_it_ended, named_by_content


class VendorTool(ABC):
    """A subclass says how the program is called and reads what it prints."""

    name: ClassVar[str]
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
    def _arguments(self, model: str, job: Mapping[str, Any]) -> Sequence[str]: ...

    @abstractmethod
    def _latency_ns(self, text: str) -> int | None:
        """Of one inference, out of everything the program printed; None if it is not there."""

    def probe(self) -> Message:
        folder, program = self._stored()
        self._agent.run([f"{folder}/{program}", "--help"], timeout_s=60)  # a program for another processor fails here
        return {"event": "probe", "runtimes": {self.runtimes[0]: {"version": "not told"}}, **self._hello()}

    def life(self, job: Mapping[str, Any]) -> Iterator[Message]:
        if job["outputs"] or job["energy_ms"]:
            raise RunnerError(f"{self.name} tells neither outputs nor energy; use the native runner for that")
        folder, program = self._stored()
        yield {"event": "hello", "runtime": self.runtimes[0], "version": program, **self._hello()}
        refused: set[str] = set()
        for event, name, number in _steps(job):
            if event == "round":
                yield {"event": "round", "round": number, "clock_ns": time.monotonic_ns()}
            elif name not in refused:
                yield {"event": "begin", "model": name, "round": number}
                message = {"event": event, **self._measured(f"{folder}/{program}", folder, name, job)}
                if message["event"] == "failed":
                    refused.add(name)
                yield {"model": name, "round": number, **message}
        yield {"event": "done"}

    def _measured(self, program: str, folder: str, name: str, job: Mapping[str, Any]) -> Message:
        """What a measurement saw, or that it failed."""
        file = next(model["file"] for model in job["models"] if model["id"] == name)
        pin = ["taskset", f"{sum(1 << cpu for cpu in job['cpus']):x}"] if job["cpus"] else []
        started_ns = time.monotonic_ns()
        try:
            command = [*pin, program, *self._arguments(f"{folder}/{file}", job)]
            result = self._agent.run(command, timeout_s=job["silence_s"])
        except CommandTimedOut as exc:
            return {"event": "failed", "reason": str(exc)}
        latency_ns = self._latency_ns(result.stdout + result.stderr)
        if result.returncode != 0 or not latency_ns:
            return {"event": "failed", "reason": how_it_ended(result.returncode, result.stderr or result.stdout)}
        return {"started_ns": started_ns, "loops": 1, "samples_ns": [latency_ns], "switched": [], "clock_khz": None, "core": None}

    def _stored(self) -> tuple[str, str]:
        try:
            data = self._path.read_bytes()
        except OSError as exc:
            raise RunnerError(f"{self._path}, which tools.{self.name} names, cannot be read: {exc.strerror or exc}") from exc
        name = named_by_content(self._path, data)
        return self._agent.store({name: data}), name

    def _hello(self) -> Message:
        result = self._agent.run(["uname", "-s", "-r", "-m"], timeout_s=30)
        system, kernel, machine = [*result.stdout.split(), "", "", ""][:3]
        return {
            "protocol": PROTOCOL, "runner": self.name, "flags": {"tool": self.name, "lost": self.lost},
            "device": {"system": system, "kernel": kernel, "machine": machine, "governor": "not readable"},
        }  # fmt: skip


def nanoseconds(text: str, unit_ns: float) -> int | None:
    """A figure that a program printed; None for what no latency can be."""
    try:
        value_ns = float(text) * unit_ns
    except ValueError:
        return None
    return round(value_ns) if 0 < value_ns < MOST_NS else None


def _steps(job: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(round, "", its number), then its measurements and looks at the reference in their order."""
    for entry in job["schedule"]:
        yield "round", "", entry["round"]
        for place, name in enumerate(entry["models"]):
            if job["reference"] is not None and place % job["reference_every"] == 0:
                yield "reference", job["reference"], entry["round"]
            yield "measurement", name, entry["round"]
