"""`profile build`: latency tables, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.cli.options import Devices, Python, Runner, Runtime, Threads, Wait, patience_s
from profiler.cli.table_summary import print_summary, table_data
from profiler.console import Json, percent, plain_errors, print_json, terminable
from profiler.progress import reporters
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build import StopCriterion
from profiler.tables.builds import BuildRequest, Builds, build_tables, journal_paths


def build(
    plans: Annotated[list[Path], typer.Argument(help="Plans made by `netadapt plan`, or model files.")],
    runtime: Runtime,
    out: Annotated[
        Path,
        typer.Option(help="The table to write; what it holds already is not measured again. With several devices: {device} in it."),
    ],
    device: Devices = ["local"],  # noqa: B006
    threads: Threads = 1,
    python: Python = None,
    runner: Runner = None,
    target_error: Annotated[
        str, typer.Option(help="Stop adding layers when the table's own estimate of its error is below this.")
    ] = "2%",
    max_layers: Annotated[int, typer.Option(min=1, help="Layers at most, whatever the error.")] = StopCriterion().max_layers,
    rounds: Annotated[int, typer.Option(min=3, help="Measurements to every layer before extra ones.")] = TimingSettings().rounds,
    seed: Annotated[int, typer.Option(help="Order of measurements and values of weights.")] = 1,
    energy: Annotated[bool, typer.Option("--energy", help="Measure energy too, where the device's hardware tells it.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a build that was interrupted.")] = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Measure layers of plans or models, as few as will do, and whole networks beside them, into a latency table."""
    with plain_errors(f"everything measured is kept in {journal_paths(out, device)}; go on with --resume"), terminable():
        targets = tuple(Target(name, runtime, threads, python, runner) for name in device)
        settings = TimingSettings(rounds=rounds, max_rounds=3 * rounds, network_rounds=3 * rounds, seed=seed)
        stop = StopCriterion(percent(target_error, "--target-error"), max_layers)
        request = BuildRequest(tuple(plans), targets, out, settings, stop, resume, energy, patience_s(wait))
        with reporters(device) as progress:
            built = build_tables(request, progress)
        if as_json:
            data = builds_data(built)
            print_json(data[0] if len(device) == 1 else data)
        else:
            print_builds(built)
        built.check()


def builds_data(built: Builds) -> list[dict[str, Any]]:
    return [table_data(path, table) for path, table in built.tables.items()]


def print_builds(built: Builds) -> None:
    for path, table in built.tables.items():
        print_summary(path, table)
        print(f"  took {table.info.wall_s:.0f} s, {table.info.measuring_s:.0f} s of it in samples")
        print(f"  `profile check {path}` says what to distrust")
