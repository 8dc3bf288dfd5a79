"""`profile benchmark`: a whole model's latency."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from profiler.cli.options import Device, ModelFile, Python, Runner, RuntimeOfFile, Threads, Wait, patience_s
from profiler.console import Json, interval_text, plain_errors, print_json, terminable
from profiler.formats.model_file import default_runtime
from profiler.measure.benchmark import Measured, measure_files
from profiler.progress import bar
from profiler.protocol.settings import Target
from profiler.tables.trust import origin_of


def benchmark(
    model: ModelFile,
    runtime: RuntimeOfFile = None,
    device: Device = "local",
    threads: Threads = 1,
    python: Python = None,
    runner: Runner = None,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Measure the latency of a whole model on a device, in milliseconds with a 95 % interval."""
    with plain_errors(), terminable():
        target = Target(device, runtime or default_runtime(model), threads, python, runner)
        with bar() as progress:
            measured = measure_files([model], target, progress=progress, wait_s=patience_s(wait))[model]
        if as_json:
            print_json(measured_data(measured, target))
        else:
            print_measured(measured, target)


def measured_data(measured: Measured, target: Target) -> dict[str, Any]:
    fingerprint = fingerprint_of(measured)
    about = {"model": str(measured.path), "device": target.device, "runtime": target.runtime, "threads": target.threads}
    about |= {"origin": origin_of(fingerprint)}
    conditions = [{name: value for name, value in asdict(item).items() if name != "clock_ns"} for item in measured.rounds]
    estimate = asdict(measured.estimate) | measured.estimate.latency_ms.to_dict("latency_ms")
    return about | estimate | {"fingerprint": fingerprint, "conditions": conditions}


def fingerprint_of(measured: Measured) -> dict[str, Any]:
    return {name: value for name, value in asdict(measured.hello).items() if name not in ("protocol", "pid", "utc")}


def print_measured(measured: Measured, target: Target) -> None:
    found = measured.estimate
    print(f"{origin_of(fingerprint_of(measured))}{measured.path}: {interval_text(found.latency_ms, 'ms')}")
    print(f"  {target.runtime} {measured.hello.version} on {target.device}, threads {target.threads}")
    print(f"  {found.samples} samples in {found.rounds} rounds: the fast side of them, in brackets its 95 % interval")
