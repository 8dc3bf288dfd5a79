"""A runner that measures nothing: one inference takes a microsecond for each 16 bytes of the model's file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

from device_agents.agent import Agent
from profiler.devices.config import Device
from profiler.protocol.events import PROTOCOL, Begin, DeviceFacts, Done, Hello, Measurement, Probe, Round, RunEvent, RuntimeState
from profiler.protocol.job import Job
from profiler.protocol.settings import Target

VERSION = "1.0"


class ToyRunner:
    name: ClassVar[str] = "toy"
    tells_executed: ClassVar[bool] = False

    def __init__(self, agent: Agent, device: Device, target: Target) -> None:
        self._agent, self._target = agent, target

    def probe(self) -> Probe:
        runtimes = {self._target.runtime: RuntimeState(VERSION)}
        return Probe(protocol=PROTOCOL, runner=self.name, device=DeviceFacts(), runtimes=runtimes)

    def run(self, job: Job) -> Iterator[RunEvent]:
        folder = self._agent.store({})
        yield Hello(
            protocol=PROTOCOL, runtime=job.runtime, version=VERSION, runner=self.name, device=DeviceFacts(), flags={"toy": True}
        )
        for number, names in job.schedule:
            yield Round(round=number, clock_ns=time.monotonic_ns())
            for name in names:
                yield Begin(name, number)
                counted = self._agent.run(["wc", "-c", f"{folder}/{job.models[name]}"], timeout_s=10).check()
                latency_ns = 1000 * int(counted.stdout.split()[0]) // 16
                yield Measurement(name, number, loops=1, samples_ns=(latency_ns,) * 5, started_ns=time.monotonic_ns())
        yield Done()
