"""`profile build`: latency tables, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from device_agents.device_lock import waiting_by
from profiler.cli.branches import warn_of_branches
from profiler.cli.options import (
    ADD_WAIT,
    Densities,
    Devices,
    Oversubscribe,
    Python,
    Runner,
    RuntimeToBuild,
    Shapes,
    Threads,
    Values,
    Wait,
    patience_s,
)
from profiler.cli.table_summary import print_summary, table_data
from profiler.console import Json, percent, plain_errors, print_json, terminable
from profiler.formats.given import given_inputs
from profiler.formats.model_file import usual_runtime
from profiler.modelled.model import is_model
from profiler.progress import reporters
from profiler.protocol.settings import Target, TimingSettings
from profiler.runtimes import MODELLED_RUNTIME
from profiler.tables.build import StopCriterion
from profiler.tables.build_request import BuildRequest, Builds, build_tables, journal_paths


def build(
    plans: Annotated[list[Path], typer.Argument(help="Plans made by `netadapt plan`, or model files.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The table to write, a .parquet file; layers that it holds already are not measured again. For several devices "
            "the path must contain {device}, which is replaced by the name of each. By default it is named PLAN-{device}-RUNTIME, "
            "in the current folder.",
        ),
    ] = None,
    runtime: RuntimeToBuild = None,
    device: Devices = ["local"],  # noqa: B006
    threads: Threads = 1,
    oversubscribe: Oversubscribe = False,
    python: Python = None,
    runner: Runner = None,
    target_error: Annotated[
        str,
        typer.Option(
            help="Stop adding layers when the table's own estimate of its error on whole networks is below this percentage."
        ),
    ] = "2%",
    max_layers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Stop adding layers when the table has so many, whatever its error. The layers of the networks themselves, sweeps "
            "of a few of them, and the narrowest and widest of each are measured even if they are more.",
        ),
    ] = StopCriterion().max_layers,
    rounds: Annotated[
        int,
        typer.Option(
            min=3,
            help="How many times each layer is measured before it is judged. Layers that are uncertain then are measured up to "
            "three times as often.",
        ),
    ] = TimingSettings().rounds,
    seed: Annotated[int, typer.Option(help="The seed of the order of measurements and of the values of weights.")] = 1,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy",
            help="Measure the energy of each layer too, in millijoules, where the device's hardware counts it. Without it, only "
            "latencies are measured.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a build that was interrupted. Without it, a journal that such a build has left is an error.",
        ),
    ] = False,
    densities: Densities = None,
    wait: Wait = False,
    shape: Shapes = [],  # noqa: B006
    input_: Values = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Build a latency table: measure layers of plans or models, as few as suffice, and whole networks to check it with.

    A table of a modelled accelerator is computed, with the energy of each layer; `profile hardware` lists them.
    """
    with plain_errors():
        chosen = MODELLED_RUNTIME if all(map(is_model, device)) else runtime or usual_runtime(plans)
    out = out or default_out(plans, chosen)
    measured = [name for name in device if not is_model(name)]
    kept = journal_paths(out, measured)
    told = f"everything measured is kept in {', '.join(map(str, kept))}; go on with --resume" if kept else ""
    with plain_errors(told, kept), terminable(), waiting_by(ADD_WAIT):
        targets = tuple(
            Target(name, MODELLED_RUNTIME) if is_model(name) else Target(name, chosen, threads, python, runner, oversubscribe)
            for name in device
        )
        settings = TimingSettings(rounds=rounds, max_rounds=3 * rounds, network_rounds=3 * rounds, seed=seed)
        stop = StopCriterion(percent(target_error, "--target-error"), max_layers)
        given = given_inputs(shape, input_)
        request = BuildRequest(tuple(plans), targets, out, settings, stop, resume, energy, patience_s(wait), given, densities)
        with reporters(device) as progress:
            built = build_tables(request, progress)
        warn_of_branches(plans, given)
        if as_json:
            data = builds_data(built)
            print_json(data[0] if len(device) == 1 else data)
        else:
            print_builds(built)
        built.check()


def default_out(plans: Sequence[Path], runtime: str) -> Path:
    """Where tables go of which nobody has said where: mobilenet-{device}-litert.parquet for mobilenet.json."""
    parts = ("+".join(plan.stem for plan in plans), "{device}", *([] if runtime == MODELLED_RUNTIME else [runtime]))
    return Path(f"{'-'.join(parts)}.parquet")


def builds_data(built: Builds) -> list[dict[str, Any]]:
    return [table_data(path, table) for path, table in built.tables.items()]


def print_builds(built: Builds) -> None:
    for path, table in built.tables.items():
        print_summary(path, table)
        if not table.info.modelled:
            print(f"  took {table.info.wall_s:.0f} s, {table.info.measuring_s:.0f} s of it in samples")
        print(f"  `profile check {path}` says what to distrust")
