"""A simulated device: `fake:SCRIPT.toml` answers every job with made-up samples, and fails when its script says so.

For trying the tool and for testing what it does when a device hangs, heats up or goes away. It is opened by name only; its flags
say {"simulated": true}, and so does the name of its processor, wherever that is shown. A model takes a time that follows from its
file's size (fake_script.py describes the script); one for the `fake` runtime says itself how it behaves, as PROTOCOL.md has it.
Time is simulated too: nothing sleeps.
"""

from __future__ import annotations

import hashlib
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from device_agents.agent import Options
from device_agents.answering import PROTOCOL, AnsweringAgent, Ended, Hung, Job, Refused
from device_agents.errors import DeviceError, DeviceUnreachable, LinkLost, StoreFailed
from device_agents.fake_script import EXAMPLE, Fault, read_script
from device_agents.support.strict_json import read_json

PUSHES = 3
"""Attempts at a push, as agents of real devices make."""
THERMAL_MODERATE = 2
OUTPUT_VALUES = 16
MOST_SAMPLES = 10_000


class FakeAgent(AnsweringAgent):
    """Its state, with measurements and pushes counted, lasts as long as the agent; a reboot empties its store."""

    what = "simulated"

    def __init__(self, address: str, options: Options | None = None) -> None:
        """`DeviceError` if there is no script or it makes no sense."""
        super().__init__(address, options)
        path = address.partition(":")[2]
        if not path:
            raise DeviceError(f"`fake:` needs a script, as in fake:SCRIPT.toml, which says {EXAMPLE}")
        self._script = read_script(Path(path))
        self._random = random.Random(self._script.seed)
        self.pushes = self._measurements = self._stores = self._starts = 0
        self._clock_ns, self._round_ends_ns = 1_000_000_000, 0
        self._lost, self._unreachable, self._hot_rounds, self._hot = False, 0, 0, False

    # ------------------------------------------------------------------------------------------------------- link and store

    def _reach(self) -> None:
        if self._lost:
            raise LinkLost(f"the connection to {self.address} broke off")

    def reconnect(self) -> None:
        if self._unreachable > 0:
            self._unreachable -= 1
            raise DeviceUnreachable(f"{self.address} cannot be reached now; its script says so")
        self._lost = False

    def store(self, files: Mapping[str, bytes]) -> str:
        self._reach()
        if not files.keys() <= self._files.keys():
            self._push()
        return super().store(files)

    def _push(self) -> None:
        self._stores += 1
        short = sum(fault.attempts for fault in self._script.faults if fault.push == self._stores)
        self.pushes += min(PUSHES, short + 1)
        if short >= PUSHES:
            raise StoreFailed(
                f"files could not be put on {self.address} in {PUSHES} attempts, they arrived short; its script says so"
            )

    # ------------------------------------------------------------------------------------------------------------- answering

    def _facts(self) -> dict[str, Any]:
        device = self._script.device
        names = ("system", "kernel", "machine", "cpu", "cores", "governor", "python")
        facts = {name: getattr(device, name) for name in names}
        return facts | {"cpu": f"simulated {device.cpu}", "memory_bytes": device.memory_bytes or None}

    def _hello(self, job: Job) -> dict[str, Any]:
        self._starts += 1
        if job.energy_ms and self._script.energy is None:
            raise Ended(1, "no energy counter can be read here")
        version = self._version(job.runtime)
        return {
            "protocol": PROTOCOL,
            "runner": "python",
            "build": None,
            "runtime": job.runtime,
            "version": version,
            "library_sha256": hashlib.sha256(f"{job.runtime} {version}".encode()).hexdigest(),
            "flags": {"simulated": True},
            "runner_sha256": self._script.sha256,
            "affinity": self._cpus(job),
            "pid": self._starts,
            "energy_source": self._energy_source,
            "device": self._facts(),
        }

    def _version(self, runtime: str) -> str:
        if runtime == "fake":
            return "0"
        if runtime not in self._script.runtimes:
            raise Ended(1, f"ModuleNotFoundError: {runtime}, only {', '.join(self._script.runtimes)}")
        return self._script.runtimes[runtime]

    def _cpus(self, job: Job) -> list[int]:
        there = range(self._script.device.cores)
        for core in job.cpus or ():
            if core not in there:
                raise Ended(1, f"core {core} was refused: there are {len(there)}")
        return sorted(job.cpus or there)

    @property
    def _energy_source(self) -> str | None:
        return "simulated" if self._script.energy else None

    def _probe(self) -> dict[str, Any]:
        runtimes = {name: {"version": version} for name, version in self._script.runtimes.items()}
        about = {"protocol": PROTOCOL, "runner": "python", "device": self._facts()}
        return about | {"energy_source": self._energy_source, "runtimes": runtimes} | self._conditions()

    def _round(self, job: Job) -> dict[str, Any]:
        self._clock_ns = max(self._clock_ns, self._round_ends_ns)
        self._round_ends_ns = self._clock_ns + int(job.min_round_s * 1e9)
        self._hot = self._hot_rounds > 0
        self._hot_rounds -= self._hot
        return {"clock_ns": self._clock_ns} | self._conditions()

    def _conditions(self) -> dict[str, Any]:
        device = self._script.device
        return {
            "load_1min": 0.0,
            "frequencies_khz": [device.clock_khz] * device.cores if device.clock_khz else None,
            "temperature_c": device.temperature_c or None,
            "throttled": None,
            "thermal_status": THERMAL_MODERATE if self._hot else 0,
        }

    # ---------------------------------------------------------------------------------------------------------------- measurements

    def _look(self, kind: str, name: str, job: Job) -> Mapping[str, Any] | str:
        if kind != "reference":
            self._measurements += 1
            for fault in self._script.faults:
                if fault.measurement == self._measurements and (line := self._befall(fault)):
                    return line
        data = self._files[job.models[name]]
        quiet_ns = _scripted_ns(data) if job.runtime == "fake" else self._latency_ns(len(data))
        match kind:
            case "outputs":
                return {"outputs": [_output(data, job.outputs)]}
            case "energy":
                return self._energy(quiet_ns, job)
        return self._timed(quiet_ns, job, job.reference_ms if kind == "reference" else job.measurement_ms)

    def _befall(self, fault: Fault) -> str | None:
        """Let it happen; the line that is sent in place of the measurement's, if only that is wrong."""
        match fault.kind:
            case "crash":
                raise Ended(-signal.Signals[fault.signal])
            case "out_of_memory":
                raise Ended(-signal.SIGKILL)
            case "hang":
                raise Hung
            case "garbage":
                return fault.line + "\n"
            case "hot":
                self._hot_rounds = fault.rounds
            case "link_lost" | "reboot":
                self._lost, self._unreachable = True, fault.reconnects
                if fault.kind == "reboot":
                    self._files.clear()
                self._reach()
        return None

    def _latency_ns(self, file_bytes: int) -> float:
        latency = self._script.latency
        return (latency.base_us + latency.us_per_kilobyte * file_bytes / 1e3) * 1e3

    def _timed(self, quiet_ns: float, job: Job, measurement_ms: float) -> dict[str, Any]:
        self._clock_ns += int(max(job.warmup_ms * 1e6, 3 * quiet_ns))
        loops = max(1, -int(-job.sample_ms * 1e6 // quiet_ns))
        started_ns = self._clock_ns
        samples_ns = list(self._samples_ns(quiet_ns * loops, started_ns + measurement_ms * 1e6, job.min_samples))
        device, cores = self._script.device, self._cpus(job)
        clock_khz = [device.clock_khz] * 2 if device.clock_khz else None
        seen = {"started_ns": started_ns, "loops": loops, "samples_ns": samples_ns, "switched": []}
        return seen | {"clock_khz": clock_khz, "core": cores[-1]}

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

    def _energy(self, quiet_ns: float, job: Job) -> dict[str, Any]:
        inferences = max(1, round(job.energy_ms * 1e6 / quiet_ns))
        assert self._script.energy is not None  # `_hello` lets no energy job pass without
        return {"inferences": inferences} | self._watch(inferences * quiet_ns, self._script.energy.busy_w)

    def _idle(self, job: Job) -> dict[str, Any]:
        assert self._script.energy is not None
        return self._watch(job.energy_ms * 1e6, self._script.energy.idle_w)

    def _watch(self, duration_ns: float, power_w: float) -> dict[str, Any]:
        self._clock_ns += int(duration_ns)
        return {"duration_ns": int(duration_ns), "energy_uj": round(duration_ns * power_w / 1e3)}


def _scripted_ns(data: bytes) -> float:
    """What a model of the fake runtime says of itself; `Refused` or `Ended` where it says that it fails."""
    try:
        script = read_json(data)
        if "error" in script:
            raise Refused(f"RuntimeError: {script['error']}")
        if script.get("crash"):
            raise Ended(-signal.SIGSEGV)
        if script.get("hang"):
            raise Ended(-signal.SIGALRM)  # as a runner ends itself
        if script.get("nan"):
            raise Refused("ValueError: its outputs are not finite")
        return max(1.0, float(script["latency_ns"]))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise Refused(f"{type(exc).__name__}: {exc}") from exc


def _output(data: bytes, most: int) -> dict[str, Any]:
    """Values that follow from the file alone, so that two simulated devices agree on them."""
    values = [byte / 128 - 1 for byte in hashlib.sha256(data).digest()[:OUTPUT_VALUES]]
    return {"shape": [1, OUTPUT_VALUES], "type": "float32", "values": values[:most]}
