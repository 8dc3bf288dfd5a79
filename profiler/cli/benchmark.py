"""`profile benchmark`: a whole model's latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from profiler.cli.branches import warn_of_branches
from profiler.cli.options import (
    Device,
    ModelFile,
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
from profiler.console import Json, interval_text, plain_errors, print_json, print_table, sizes, terminable
from profiler.errors import ModelError
from profiler.formats.given import Given, given_inputs
from profiler.formats.model_file import default_runtime
from profiler.measure.benchmark import Measured, measure_files
from profiler.measure.executed import ask_file
from profiler.measure.per_layer import INFERENCES, OperatorTime, operator_times
from profiler.progress import ProgressReporter, bar
from profiler.protocol.settings import Target
from profiler.tables.trust import origin_of

PerLayer = Annotated[
    bool,
    typer.Option(
        "--per-layer",
        help="Print the time of each operator inside the running network too, by the runtime's own profiler. "
        "Without it, only that of the model.",
    ),
]


def benchmark(
    model: ModelFile,
    runtime: RuntimeOfFile = None,
    device: Device = "local",
    threads: Threads = 1,
    oversubscribe: Oversubscribe = False,
    python: Python = None,
    runner: Runner = None,
    wait: Wait = False,
    per_layer: PerLayer = False,
    shape: Shapes = [],  # noqa: B006
    input_: Values = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Measure the latency of a whole model on a device, in milliseconds with a 95 % interval."""
    with plain_errors(), terminable():
        target = Target(device, runtime or default_runtime(model), threads, python, runner, oversubscribe)
        given = given_inputs(shape, input_)
        with bar() as progress:
            measured = measure_files([model], target, given, progress=progress, wait_s=patience_s(wait))[model]
            operators = _operators(measured, target, given, progress, patience_s(wait)) if per_layer else None
        warn_of_branches([model])
        if as_json:
            print_json(measured_data(measured, target) | operators_data(operators))
        else:
            print_measured(measured, target, operators)


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


def print_measured(measured: Measured, target: Target, operators: Sequence[OperatorTime] | None = None) -> None:
    if operators is not None:
        print_operators(operators)
    found = measured.estimate
    print(f"{origin_of(fingerprint_of(measured))}{measured.path}: {interval_text(found.latency_ms, 'ms')}")
    print(f"  {target.runtime} {measured.hello.version} on {target.device}, threads {target.threads}")
    print(f"  {found.samples} samples in {found.rounds} rounds: the fast side of them, in brackets its 95 % interval")
