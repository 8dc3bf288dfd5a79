"""`profile benchmark`: a whole model's latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from device_agents.device_lock import waiting_by
from device_agents.support.errors import ToolError
from profiler.cli.branches import warn_of_branches
from profiler.cli.options import (
    ADD_WAIT,
    Device,
    ModelFiles,
    Oversubscribe,
    Python,
    Runner,
    RuntimeOfFile,
    Shapes,
    Threads,
    Values,
    Wait,
    patience_s,
)
from profiler.cli.several import each, tell
from profiler.console import Json, plain_errors, print_table, sizes, terminable
from profiler.errors import ModelError
from profiler.formats.given import Given, given_inputs
from profiler.formats.model_file import default_runtime
from profiler.measure.benchmark import Measured, measure_each
from profiler.measure.executed import ask_file
from profiler.measure.per_layer import INFERENCES, OperatorTime, operator_times
from profiler.progress import ProgressReporter, bar
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.trust import origin_of

PerLayer = Annotated[
    bool,
    typer.Option(
        "--per-layer",
        help="Print the time of each operator inside the running network too, by the runtime's own profiler. "
        "Without it, only that of the model.",
    ),
]

Rounds = Annotated[
    int,
    typer.Option(
        min=3,
        help="How many times each model is measured before its interval is judged, spread over time. A model that is uncertain "
        "then is measured up to twice as often. Few are for a first look.",
    ),
]
DEFAULT_ROUNDS = TimingSettings().network_rounds


def benchmark(
    models: ModelFiles,
    runtime: RuntimeOfFile = None,
    device: Device = "local",
    threads: Threads = 1,
    oversubscribe: Oversubscribe = False,
    python: Python = None,
    runner: Runner = None,
    wait: Wait = False,
    per_layer: PerLayer = False,
    rounds: Rounds = DEFAULT_ROUNDS,
    shape: Shapes = [],  # noqa: B006
    input_: Values = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Measure the latency of whole models on a device, in milliseconds with a 95 % interval.

    Several models are measured in turns, so that they can be compared: one after the other in each round.
    """
    with plain_errors(), terminable(), waiting_by(ADD_WAIT):
        given = given_inputs(shape, input_)
        targets = each(
            models, lambda model: Target(device, runtime or default_runtime(model), threads, python, runner, oversubscribe)
        )
        settings = TimingSettings(network_rounds=rounds)
        results: dict[Path, Benchmarked | ToolError] = {}
        with bar() as progress:
            for target in dict.fromkeys(found for found in targets.values() if isinstance(found, Target)):
                paths = [path for path, found in targets.items() if found == target]
                results |= _in_turns(paths, target, given, settings, per_layer, progress, patience_s(wait))
        results |= {path: found for path, found in targets.items() if isinstance(found, ToolError)}
        warn_of_branches([path for path, found in results.items() if isinstance(found, Benchmarked)], given)
        tell({path: results[path] for path in targets}, as_json, benchmarked_data, print_benchmarked)


@dataclass(frozen=True, slots=True)
class Benchmarked:
    """A model's latency, what it was measured with and, if they were asked for, the times of its operators."""

    measured: Measured
    target: Target
    operators: Sequence[OperatorTime] | None = None


def _in_turns(
    paths: Sequence[Path],
    target: Target,
    given: Given,
    settings: TimingSettings,
    per_layer: bool,
    progress: ProgressReporter,
    wait_s: float,
) -> dict[Path, Benchmarked | ToolError]:
    """Files of one runtime, measured in one session."""
    measured = measure_each(paths, target, given, settings=settings, progress=progress, wait_s=wait_s)

    def finished(path: Path) -> Benchmarked:
        found = measured[path]
        if isinstance(found, ModelError):
            raise found
        return Benchmarked(found, target, _operators(found, target, given, progress, wait_s) if per_layer else None)

    return each(paths, finished)


def _operators(measured: Measured, target: Target, given: Given, progress: ProgressReporter, wait_s: float) -> list[OperatorTime]:
    """`ModelError` if the runtime does not tell the times of operators."""
    asked = ask_file(measured.path, target, given, inferences=INFERENCES, progress=progress, wait_s=wait_s)
    if not asked.operators:
        raise ModelError(
            f"{target.runtime} {asked.version} on {target.device} does not tell the times of operators; leave out --per-layer"
        )
    return operator_times(asked, measured.estimate.latency_ms.value)


def operators_data(operators: Sequence[OperatorTime] | None) -> dict[str, Any]:
    if operators is None:
        return {}
    rows = [
        {
            "name": item.operator.name,
            "op": item.operator.op,
            "partition": item.operator.partition,
            "layer": item.layer.key if item.layer else None,
            "latency_ms": item.latency_ms,
            "share": item.share,
        }
        for item in operators
    ]
    return {"operators": rows}


def print_operators(operators: Sequence[OperatorTime]) -> None:
    cells = [
        (
            item.operator.op + (f" {item.layer.layout}" if item.layer and item.layer.layout else ""),
            " + ".join(map(sizes, item.layer.inputs)) if item.layer else "",
            sizes(item.layer.output) if item.layer else "",
            item.operator.partition,
            f"{item.latency_ms:.4f}",
            f"{100 * item.share:.1f}",
        )
        for item in operators
    ]
    print_table(("operator", "input", "output", "run by", "ms", "%"), cells, right=("ms", "%"))


def measured_data(measured: Measured, target: Target) -> dict[str, Any]:
    fingerprint = fingerprint_of(measured)
    about = {"model": str(measured.path), "device": target.device, "runtime": target.runtime, "threads": target.threads}
    about |= {"origin": origin_of(fingerprint)}
    conditions = [{name: value for name, value in asdict(item).items() if name != "clock_ns"} for item in measured.rounds]
    estimate = asdict(measured.estimate) | measured.estimate.latency_ms.to_dict("latency_ms")
    return about | estimate | {"fingerprint": fingerprint, "conditions": conditions}


def fingerprint_of(measured: Measured) -> dict[str, Any]:
    return {name: value for name, value in asdict(measured.hello).items() if name not in ("protocol", "pid", "utc")}


def benchmarked_data(found: Benchmarked) -> dict[str, Any]:
    return measured_data(found.measured, found.target) | operators_data(found.operators)


def print_benchmarked(found: Benchmarked, among_several: bool) -> None:
    """Three lines, or one for each of several models; operators are a table before them."""
    measured, target = found.measured, found.target
    if found.operators is not None:
        print_operators(found.operators)
    estimate, runtime = measured.estimate, f"{target.runtime} {measured.hello.version} on {target.device}, threads {target.threads}"
    latency = f"{origin_of(fingerprint_of(measured))}{measured.path}: {estimate.latency_ms.text('ms')}"
    if among_several:
        print(f"{latency}, {runtime}, {estimate.rounds} rounds")
        return
    print(latency)
    print(f"  {runtime}")
    print(f"  {estimate.samples} samples in {estimate.rounds} rounds: the fast side of them, in brackets its 95 % interval")
