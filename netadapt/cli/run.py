"""The command `netadapt run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from netadapt.executors import ExecutorOptions
from netadapt.networks.options import NetworkOptions
from netadapt.pruning.importance import DEFAULT as DEFAULT_IMPORTANCE
from netadapt.pruning.settings import PruningSettings
from netadapt.resources import named_tables
from netadapt.runs.records import Started
from netadapt.search.types import AdaptSettings
from netadapt.settings import DataSettings
from netadapt.training.recipe import RecipeOverrides
from profiler.console import ARGUMENTS, Json
from profiler.progress import bar

DEFAULTS = AdaptSettings()


def run(
    ctx: typer.Context,
    network: options.Network,
    data: options.Data,
    budget: options.Budgets,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the run.")],
    table: options.Tables = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")] = False,
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shapes: options.Input = None,
    output: options.Output = None,
    small_input: options.SmallInput = False,
    weights: options.Weights = None,
    task: options.Task = None,
    data_workers: options.DataWorkers = None,
    mean: options.Mean = None,
    std: options.Std = None,
    allow_unverified: options.AllowUnverified = False,
    measure: options.Measure = None,
    step: options.Step = DEFAULTS.step,
    decay: options.Decay = DEFAULTS.decay,
    max_iterations: options.MaxIterations = DEFAULTS.max_iterations,
    width_step: options.WidthStep = DEFAULTS.width_step,
    min_width: options.MinWidth = DEFAULTS.min_width,
    select_by: options.SelectBy = DEFAULTS.select_by,
    if_no_candidate: options.IfNoCandidate = DEFAULTS.if_no_candidate,
    successive_halving: options.SuccessiveHalving = False,
    search: options.Search = DEFAULTS.method,
    samples: options.Samples = DEFAULTS.samples,
    blocks: options.Blocks = DEFAULTS.blocks,
    candidates: options.Candidates = None,
    supernet: options.SuperNetwork = None,
    importance: options.Importance = DEFAULT_IMPORTANCE,
    bn_recalibration_batches: options.BnRecalibrationBatches = 0,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    short_term_steps: options.ShortTermSteps = None,
    short_term_learning_rate: options.ShortTermLearningRate = None,
    batch_size: options.BatchSize = None,
    augment: options.Augment = None,
    holdout: options.Holdout = 0.15,
    executor: options.Executor = None,
    workers: options.Workers = None,
    cores_per_worker: options.CoresPerWorker = None,
    ray_address: options.RayAddress = "auto",
    threads_per_candidate: options.ThreadsPerCandidate = None,
    tensorboard: options.TensorBoard = False,
    dry_run: options.DryRun = True,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Adapt a network to its budgets: prune it step by step, and keep the network of every step."""
    with needs_torch(f"every finished candidate is kept in {out}; go on with `netadapt resume {out}`", [out / "run.json"]):
        from netadapt import adaptation

        chosen = NetworkOptions.chosen(network, width_multiplier, resolution, small_input, input_shapes, output=output)
        judged = candidates or ("supernet" if search == "descent" else "fine-tune")
        settings = AdaptSettings(
            step, decay, max_iterations, width_step, min_width, select_by, if_no_candidate, successive_halving,
            search, samples, blocks, judged,
        )  # fmt: skip
        images = DataSettings.chosen(data, holdout, data_workers, mean, std)
        original = RecipeOverrides(learning_rate, epochs, None, batch_size, augment)
        short_term = RecipeOverrides(short_term_learning_rate, None, short_term_steps, batch_size, augment)
        request = adaptation.RunRequest(
            chosen, images, budget, out, named_tables(table or ()), settings, original, short_term,
            PruningSettings(importance, bn_recalibration_batches), seed, weights, allow_unverified, measure,
            ExecutorOptions.chosen(executor, workers, cores_per_worker, ray_address), threads_per_candidate, None, tensorboard,
            task, dry_run, supernet, Started(ctx.meta[ARGUMENTS], str(Path.cwd())),
        )  # fmt: skip
        with bar() as progress:
            done = adaptation.run(request, resume=resume, progress=progress, on_step=printing.StepPrinter(as_json))
        printing.print_run(done, out, as_json=as_json)
