"""Makes up what a simulated device (`fake:SCRIPT.toml`) would measure, and fails when the device's script says so.

For trying the tool and for testing what it does when a device hangs, heats up or goes away. The flags say {"simulated": true}, and
so does the name of the processor, wherever that is shown. A model takes a time that follows from its file's size
(device_agents/fake_script.py describes the script); one for the `fake` runtime says itself how it behaves, as PROTOCOL.md has it.
Time is simulated too: nothing sleeps.
"""

from __future__ import annotations

import hashlib
import random
import signal
from collections.abc import Iterator
from typing import ClassVar

from device_agents.agent import Agent
from device_agents.fake import FakeAgent
from device_agents.fake_script import Fault
from device_agents.support.dataclass_json import read_as
from device_agents.support.strict_json import read_json
from profiler.devices.config import Device
from profiler.errors import RunnerError
from profiler.layers.executed_operator import ExecutedOperator
from profiler.protocol.events import (
    PROTOCOL,
    Conditions,
    Crashed,
    DeviceFacts,
    Done,
    Energy,
    Executed,
    Failed,
    Hello,
    Idle,
    Measurement,
    Output,
    Outputs,
    Probe,
    Reference,
    Round,
    RunEvent,
    RuntimeState,
)
from profiler.protocol.job import USUAL, Job
from profiler.protocol.lines import parse_line
from profiler.protocol.settings import Target
from profiler.runners.program import how_it_ended, longest_silence_s
from profiler.runners.walk import conditions_of, walk

THERMAL_MODERATE = 2
OUTPUT_VALUES = 16
MOST_SAMPLES = 10_000


class SimulatedRunner:
    """The simulated clock, the noise and the count of measurements last as long as the runner, whichever jobs it runs."""

    name: ClassVar[str] = "simulated"
    tells_executed: ClassVar[bool] = False

    def __init__(self, agent: Agent, device: Device, target: Target) -> None:
        if not isinstance(agent, FakeAgent):
            raise RunnerError(
                f"the simulated runner is for devices such as fake:SCRIPT.toml, not for {agent.address}; name another"
            )
        self._agent, self._script = agent, agent.script
        self._random = random.Random(self._script.seed)
        self._measurements = self._starts = 0
        self._clock_ns, self._round_ends_ns = 1_000_000_000, 0
        self._hot_rounds, self._is_hot = 0, False

    def probe(self) -> Probe:
        self._agent.reach()
        return Probe(
            protocol=PROTOCOL,
            runner=self.name,
            device=self._facts,
            energy_source=self._energy_source,
            runtimes={name: RuntimeState(version) for name, version in self._script.runtimes.items()},
            **conditions_of(self._conditions),
        )

    def run(self, job: Job) -> Iterator[RunEvent]:
        """Every event is made when it is asked for, as if time had gone by."""
        self._agent.reach()
        yield self._hello(job)
        rounds = walk(
            job,
            lambda number: self._begin_round(number, job),
            lambda model, number, as_reference: self._measured(model, number, as_reference, job),
        )
        for event in rounds:
            yield event
            if isinstance(event, Crashed):
                return
        yield Done(**conditions_of(self._conditions))

    def _hello(self, job: Job) -> Hello:
        """`RunnerError` if the device has not got what the job needs."""
        self._starts += 1
        if job.energy_ms and self._script.energy is None:
            raise RunnerError(f"no energy counter can be read on {self._agent.address}; add [energy] to its script")
        versions = {**self._script.runtimes, "fake": "0"}
        if job.runtime not in versions:
            known = ", ".join(self._script.runtimes)
            raise RunnerError(
                f"{self._agent.address} has no runtime {job.runtime}, only {known}; add it to [runtimes] of its script"
            )
        version = versions[job.runtime]
        return Hello(
            protocol=PROTOCOL,
            runner=self.name,
            runtime=job.runtime,
            version=version,
            library_sha256=hashlib.sha256(f"{job.runtime} {version}".encode()).hexdigest(),
            flags={"simulated": True},
            runner_sha256=self._script.sha256,
            affinity=self._cores(job),
            pid=self._starts,
            energy_source=self._energy_source,
            device=self._facts,
        )

    @property
    def _facts(self) -> DeviceFacts:
        device = self._script.device
        return DeviceFacts(
            system=device.system,
            kernel=device.kernel,
            machine=device.machine,
            cpu=f"simulated {device.cpu}",
            cores=device.cores,
            memory_bytes=device.memory_bytes or None,
            governor=device.governor,
            python=device.python,
        )

    @property
    def _energy_source(self) -> str | None:
        return "simulated" if self._script.energy else None

    def _cores(self, job: Job) -> tuple[int, ...]:
        """Those that the job runs on."""
        there = range(self._script.device.cores)
        for core in job.cpus or ():
            if core not in there:
                raise RunnerError(f"core {core} of {self._agent.address} was refused: there are {len(there)}; name others as cpus")
        return tuple(sorted(job.cpus or there))

    # -------------------------------------------------------------------------------------------------------------------- rounds

    def _begin_round(self, number: int, job: Job) -> Iterator[RunEvent]:
        self._clock_ns = max(self._clock_ns, self._round_ends_ns)
        self._round_ends_ns = self._clock_ns + int(job.settings.min_round_s * 1e9)
        self._is_hot = self._hot_rounds > 0
        self._hot_rounds -= self._is_hot
        yield Round(round=number, clock_ns=self._clock_ns, **conditions_of(self._conditions))
        if job.energy_ms and self._script.energy is not None:
            yield Idle(number, *self._watched(job.energy_ms * 1e6, self._script.energy.idle_w))

    @property
    def _conditions(self) -> Conditions:
        device = self._script.device
        return Conditions(
            load_1min=0.0,
            frequencies_khz=(device.clock_khz,) * device.cores if device.clock_khz else None,
            temperature_c=device.temperature_c or None,
            thermal_status=THERMAL_MODERATE if self._is_hot else 0,
        )

    # -------------------------------------------------------------------------------------------------------------- measurements

    def _measured(self, model: str, number: int, as_reference: bool, job: Job) -> RunEvent | None:
        """What becomes of one measurement. `LinkLost` where the script says that the link breaks off there."""
        file = self._agent.files.get(job.models[model])
        if file is None:
            return Failed(model, number, f"FileNotFoundError: {job.models[model]}")
        if not as_reference:
            self._measurements += 1
            for fault in self._script.faults:
                if fault.measurement != self._measurements:
                    continue
                if fault.kind == "garbage":
                    return parse_line(fault.line)
                if crashed := self._befall(fault, job):
                    return crashed
        finite = not job.profiled and job.loading.get(model, USUAL).finite
        latency_ns = _scripted_ns(file, model, number, finite) if job.runtime == "fake" else self._latency_ns(len(file))
        if isinstance(latency_ns, Failed | Crashed):
            return latency_ns
        try:
            if job.outputs:
                return Outputs(model, number, (_output(file, job.outputs),))
            if job.energy_ms:
                return self._energy(model, number, latency_ns, job.energy_ms)
            if job.profiled:
                return _executed(file if job.runtime == "fake" else b"{}", model, number, job.profiled)
            return self._timed(model, number, as_reference, latency_ns, job)
        except (ValueError, OverflowError) as exc:  # the script may ask for latencies of years
            return Failed(model, number, f"{type(exc).__name__}: {exc}")

    def _befall(self, fault: Fault, job: Job) -> Crashed | None:
        match fault.kind:
            case "crash":
                return Crashed(how_it_ended(-signal.Signals[fault.signal], ""))
            case "out_of_memory":
                return Crashed(how_it_ended(-signal.SIGKILL, ""))
            case "hang":  # a test of what the host does then need not wait for it
                silence_s = longest_silence_s(job)
                return Crashed(f"the runner said nothing for {silence_s:g} s on {self._agent.address}; it was killed")
            case "hot":
                self._hot_rounds = fault.rounds
            case "link_lost" | "reboot":
                self._agent.break_link(fault)
        return None

    def _latency_ns(self, file_bytes: int) -> float:
        latency = self._script.latency
        return (latency.base_us + latency.us_per_kilobyte * file_bytes / 1e3) * 1e3

    def _timed(self, model: str, number: int, as_reference: bool, latency_ns: float, job: Job) -> Measurement | Reference:
        settings = job.settings
        self._clock_ns += int(max(settings.warmup_ms * 1e6, 3 * latency_ns))
        loops = max(1, -int(-settings.sample_ms * 1e6 // latency_ns))
        started_ns = self._clock_ns
        until_ns = started_ns + (settings.reference_ms if as_reference else settings.measurement_ms) * 1e6
        clock_khz = self._script.device.clock_khz
        return (Reference if as_reference else Measurement)(
            model,
            number,
            loops=loops,
            samples_ns=tuple(self._samples_ns(latency_ns * loops, until_ns, settings.min_samples)),
            started_ns=started_ns,
            clock_khz=(clock_khz, clock_khz) if clock_khz else None,
            core=self._cores(job)[-1],
        )

    def _samples_ns(self, quiet_ns: float, until_ns: float, least: int) -> Iterator[int]:
        for place in range(MOST_SAMPLES):
            if place >= least and self._clock_ns >= until_ns:
                return
            noise = abs(self._random.gauss(0.0, self._script.latency.noise_percent)) / 100
            sample_ns = max(1, round(quiet_ns * self._slowness() * (1 + noise)))
            self._clock_ns += sample_ns
            yield sample_ns

    def _slowness(self) -> float:
        """1 while all is quiet; a spell is the end of each of its periods."""
        slow = self._script.slow
        in_spell = self._clock_ns / 1e9 % slow.every_s >= slow.every_s - slow.for_s
        return 1 + slow.percent / 100 if in_spell else 1.0

    def _energy(self, model: str, number: int, latency_ns: float, energy_ms: float) -> Energy:
        assert self._script.energy is not None  # `_hello` lets no energy job pass without
        inferences = max(1, round(energy_ms * 1e6 / latency_ns))
        return Energy(model, number, inferences, *self._watched(inferences * latency_ns, self._script.energy.busy_w))

    def _watched(self, duration_ns: float, power_w: float) -> tuple[int, int]:
        """Nanoseconds and microjoules of a watch of the counter."""
        self._clock_ns += int(duration_ns)
        return int(duration_ns), round(duration_ns * power_w / 1e3)


def _scripted_ns(file: bytes, model: str, number: int, finite: bool) -> float | Failed | Crashed:
    """The latency that a model of the fake runtime says it has, or what becomes of it where it says that it fails."""
    try:
        script = read_json(file)
        if "error" in script:
            return Failed(model, number, f"RuntimeError: {script['error']}")
        if script.get("crash"):
            return Crashed(how_it_ended(-signal.SIGSEGV, ""))
        if script.get("hang"):
            return Crashed(how_it_ended(-signal.SIGALRM, ""))  # as a runner ends itself
        if script.get("nan") and finite:
            return Failed(model, number, "ValueError: its outputs are not finite")
        return max(1.0, float(script["latency_ns"]))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        return Failed(model, number, f"{type(exc).__name__}: {exc}")


def _executed(script: bytes, model: str, number: int, inferences: int) -> Executed:
    """What a model of the fake runtime says that it executes; nothing for all others. `ValueError` if it is damaged."""
    listed = read_json(script).get("operators", [])
    if not listed:
        return Executed(model=model, round=number, operators=(), inferences_us=(), reason="a simulated device executes nothing")
    whole_us = sum(item["us"] for item in listed)
    operators = tuple(read_as(ExecutedOperator, item | {"samples_us": [item["us"]] * inferences}) for item in listed)
    return Executed(model=model, round=number, operators=operators, inferences_us=(whole_us,) * inferences)


def _output(file: bytes, most: int) -> Output:
    """Values that follow from the file alone, so that two simulated devices agree on them."""
    values = tuple(byte / 128 - 1 for byte in hashlib.sha256(file).digest()[:OUTPUT_VALUES])
    return Output((1, OUTPUT_VALUES), values[:most])
