"""The command `netadapt baselines`."""

from __future__ import annotations

from typing import Annotated

import typer

from netadapt.baselines import BASELINES
from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from netadapt.executors import ExecutorOptions
from profiler.console import Json, print_json
from profiler.progress import bar

KINDS = "; ".join(f"{name}: {item.summary}" for name, item in BASELINES.items())


def baselines(
    run: options.Run,
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"A baseline to compare with; repeatable. {KINDS}. Default: all that apply to the run."),
    ] = None,
    seeds: options.Seeds = 1,
    step: Annotated[int | None, typer.Option(help="The step whose latency is matched. Default: the last.")] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Epochs of every long-term fine-tune. Default: as many as the step or the original had, otherwise the task's."
        ),
    ] = None,
    device: options.Device = None,
    executor: options.Executor = None,
    workers: options.Workers = None,
    cores_per_worker: options.CoresPerWorker = None,
    ray_address: options.RayAddress = "auto",
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Train simpler networks of the same measured latency, and measure them beside the adapted one.

    The original and the step are fine-tuned with the same seeds as the baselines.
    """
    with needs_torch(f"every seed trained so far is kept in {run}; the same command continues"):
        from netadapt.actions import BaselinesRequest, compare_with_baselines

        executors = ExecutorOptions.chosen(executor, workers, cores_per_worker, ray_address)
        with bar() as progress:
            done = compare_with_baselines(BaselinesRequest(run, kind or (), step, epochs, device, executors, seed, seeds), progress)
        if as_json:
            print_json([printing.baseline_data(item) for item in done.baselines])
        else:
            printing.print_baselines(done.baselines, done.finished, done.measured, done.task)
