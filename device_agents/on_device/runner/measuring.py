"""A job: models are measured in rounds, in the order in which the host has shuffled them."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agents.on_device.runner.device import Device
from device_agents.on_device.runner.host import Host, say, told
from device_agents.on_device.runner.job import PROTOCOL, Job, Model, read_job
from device_agents.on_device.runner.lease import take_lease
from device_agents.on_device.runner.open_models import OpenModels
from device_agents.on_device.runner.runtimes import load_runtime
from device_agents.on_device.runner.runtimes.interface import Runtime
from device_agents.on_device.runner.system import affinity, clock_ns, current_core, involuntary_switches, pin, sha256

SOON_NS = 20_000_000
"""Most acknowledgements arrive while the next model is warmed up, or this soon after."""


class Work:
    """A job: measurements of latency, outputs, energy or executed graphs, each reported in a line."""

    def __init__(self, job: Job, runtime: Runtime, folder: Path, device: Device) -> None:
        self.job, self.runtime, self.folder, self.device = job, runtime, folder, device
        self.open_models = OpenModels(runtime, folder, job)
        self.models = {model["id"]: model for model in job["models"]}
        self.refused: set[str] = set()
        self.told_not_finite: set[str] = set()
        self.host = Host(job["acknowledged"])
        asked = {"outputs": job["outputs"], "energy": job["energy_ms"], "executed": job["profiled"]}
        self.event = next((event for event, wanted in asked.items() if wanted), "measurement")

    def do(self) -> None:
        for entry in self.job["schedule"]:
            started_ns = clock_ns()
            say("round", round=entry["round"], clock_ns=started_ns, **self.device.conditions())
            if self.event == "energy":
                say("idle", round=entry["round"], **self.idle())
            self.one_round(entry["round"], entry["models"])
            time.sleep(max(0.0, self.job["min_round_s"] - (clock_ns() - started_ns) / 1e9))
        say("done", **self.device.conditions())

    def one_round(self, number: int, names: list[str]) -> None:
        measurements = 0
        for name in names:
            if name in self.refused:
                continue
            self.host.listen(0.0)
            if self.event == "measurement" and measurements % self.job["reference_every"] == 0:
                self.look_at_reference(number)
            if name not in self.refused:  # it may be the reference, and have failed just now
                self.attempt(self.event, name, number)
                measurements += 1

    def look_at_reference(self, number: int) -> None:
        name = self.job["reference"]
        if name is not None and name not in self.refused:
            self.attempt("reference", name, number)

    def attempt(self, event: str, name: str, number: int) -> None:
        """Measure a model and report it. A `begin` line goes first, so that the host knows which model crashed the process."""
        say("begin", model=name, round=number)
        signal.setitimer(signal.ITIMER_REAL, self.job["silence_s"])
        try:
            seen = getattr(self, event)(self.models[name])
        except Exception as exc:  # runtimes' own exceptions share no other base; it is reported
            self.refused.add(name)
            event, seen = "failed", {"reason": told(exc)}
        signal.setitimer(signal.ITIMER_REAL, 0)
        if event != "failed" and name in self.open_models.not_finite - self.told_not_finite:
            self.told_not_finite.add(name)
            say("not_finite", model=name, round=number)
        say(event, model=name, round=number, **seen)
        self.host.told()

    def measurement(self, model: Model) -> dict[str, Any]:
        return self.sample(self.open_models.get(model).run, self.job["measurement_ms"])

    def reference(self, model: Model) -> dict[str, Any]:
        return self.sample(self.open_models.get(model).run, self.job["reference_ms"])

    def outputs(self, model: Model) -> dict[str, Any]:
        return {"outputs": [output.told(self.job["outputs"]) for output in self.open_models.get(model).outputs()]}

    def executed(self, model: Model) -> dict[str, Any]:
        """Opened for it alone: with the profiler on it is not to be measured, and a profile cannot be begun again."""
        path, seed = Path(self.folder, model["file"]), self.job["seed"]
        return self.runtime.executed(path, seed, model["as_it_is"], self.job["profiled"]).told()

    def idle(self) -> dict[str, Any]:
        return self.watched(lambda: time.sleep(self.job["energy_ms"] / 1e3))[1]

    def energy(self, model: Model) -> dict[str, Any]:
        opened = self.open_models.get(model)

        def run() -> int:
            until, inferences = clock_ns() + self.job["energy_ms"] * 1e6, 0
            while clock_ns() < until or not inferences:
                opened.run()
                inferences += 1
            return inferences

        self.get_ready(opened.run)
        inferences, seen = self.watched(run)
        return dict(seen, inferences=inferences)

    def watched(self, work: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
        """The result of the work, and its duration and energy."""
        assert self.device.energy is not None
        self.device.energy.begin()
        try:
            result = work()
        finally:
            duration_ns, energy_uj = self.device.energy.end()
        return result, {"duration_ns": duration_ns, "energy_uj": energy_uj}

    def get_ready(self, run: Callable[[], object]) -> int:
        """Warm up, and wait until the host has acknowledged every result so far. Returns the shortest run in nanoseconds.

        If the host dies, only one measurement is lost: the one it has not acknowledged, or the one that begins now.
        """
        shortest_ns = self.warm_up(run)
        soon = clock_ns() + SOON_NS
        while not self.host.has_everything() and clock_ns() < soon:  # to stay warm until the answer is there
            shortest_ns = min(shortest_ns, _timed(run))
        if self.host.owed:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the wait is for the host, and the model not to blame
            self.host.wait()
            signal.setitimer(signal.ITIMER_REAL, self.job["silence_s"])
            shortest_ns = min(shortest_ns, self.warm_up(run))
        return shortest_ns

    def warm_up(self, run: Callable[[], object]) -> int:
        """The shortest run in nanoseconds, except the first, which is cold.

        A run that was disturbed would be too long, and the number of inferences in a sample computed from it too small. So a third
        run is made, unless one run is as long as a sample, which then is one inference whatever its length.
        """
        start = clock_ns()
        once_ns = [_timed(run), _timed(run)]
        while (len(once_ns) < 3 and once_ns[1] < self.job["sample_ms"] * 1e6) or clock_ns() - start < self.job["warmup_ms"] * 1e6:
            once_ns.append(_timed(run))
        return min(once_ns[1:])

    def sample(self, run: Callable[[], object], measurement_ms: float) -> dict[str, Any]:
        """Warm up, then take samples for `measurement_ms`: nanoseconds of each, inferences in each, and which were disturbed."""
        loops = max(1, -int(-self.job["sample_ms"] * 1e6 // self.get_ready(run)))
        samples_ns: list[int] = []
        switched: list[int] = []
        khz = self.device.fastest_khz()
        start = clock_ns()
        while len(samples_ns) < self.job["min_samples"] or clock_ns() - start < measurement_ms * 1e6:
            switches = involuntary_switches()
            before = clock_ns()
            for _ in range(loops):
                run()
            samples_ns.append(max(1, clock_ns() - before))
            if involuntary_switches() != switches:
                switched.append(len(samples_ns) - 1)
        core, after_khz = current_core(), self.device.fastest_khz()
        clock_khz = None if khz is None or after_khz is None else [khz, after_khz]
        seen = {"started_ns": start, "loops": loops, "samples_ns": samples_ns, "switched": switched}
        return dict(seen, clock_khz=clock_khz, core=core)


def _timed(run: Callable[[], object]) -> int:
    before = clock_ns()
    run()
    return max(1, clock_ns() - before)


def run_job(path: Path) -> None:
    job = read_job(path)
    lease = None if job["lease"] is None else take_lease(job["lease"])
    if job["cpus"] is not None:
        pin(job["cpus"])
    device = Device(Path(job["root"]))
    if job["energy_ms"] and device.energy is None:
        raise SystemExit(
            "no energy can be read here: neither a processor's counters (often root's alone) nor a board's power meters"
        )
    runtime = load_runtime(job["runtime"], job["threads"], path.resolve().parent)
    say(
        "hello",
        protocol=PROTOCOL,
        runner="python",
        build=None,
        runtime=job["runtime"],
        version=runtime.version,
        library_sha256=sha256(runtime.library_path) if runtime.library_path else None,
        flags=runtime.flags,
        runner_sha256=sha256(Path(sys.argv[0])),
        affinity=affinity(),
        pid=os.getpid(),
        energy_source=device.energy and device.energy.name,
        device=device.facts(),
    )
    gc.disable()  # a collection would disturb a sample, and there is next to nothing to collect
    Work(job, runtime, path.parent, device).do()
    if lease is not None:
        os.close(lease)
