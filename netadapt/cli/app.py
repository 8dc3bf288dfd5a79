"""The `netadapt` command: fit a network into a latency budget on a device.

Torch takes seconds to load, and an install of the profiler alone does without what draws and trains: commands import what they need
when they run. `--help` answers at once, everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from netadapt.baselines import KINDS, title_of
from netadapt.cli import options, printing
from netadapt.errors import RunError
from netadapt.executors import ExecutorOptions
from netadapt.networks import NETWORKS, describe, has_classifier
from netadapt.networks.own import parse_input, settled
from netadapt.pruning.importance import DEFAULT as DEFAULT_IMPORTANCE
from netadapt.registry import require_torch
from netadapt.resources import named_tables, parse_budgets
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.targets import latency_tables, where
from netadapt.search.types import AdaptSettings, Step
from netadapt.training.types import Task
from profiler.console import Json, count, plain_errors, print_json, print_table
from profiler.progress import bar
from profiler.tables.plan import make_plan, possible_layers, write_plan
from profiler.tables.table import load_table

app = typer.Typer(
    help="Fit a network into a latency budget on your device (NetAdapt, Yang et al., ECCV 2018).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Format(StrEnum):
    onnx = "onnx"
    tflite = "tflite"


DEFAULTS = AdaptSettings()


def _executor_options(executor: str | None, workers: int | None, cores_per_worker: int | None, ray_address: str) -> ExecutorOptions:
    return ExecutorOptions(executor or ("in-process" if workers is None else "processes"), workers, cores_per_worker, ray_address)


@contextmanager
def _commands(after_interrupt: str = "") -> Iterator[None]:
    with plain_errors(after_interrupt):
        require_torch()
        yield


@app.command()
def networks(
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    classes: options.Classes = 1000,
    as_json: Json = False,
) -> None:
    """List the networks that can be adapted by name."""
    with _commands():
        keywords: dict[str, Any] = {"width_multiplier": width_multiplier, "resolution": resolution}
        found = [describe(name, **keywords, **({"classes": classes} if has_classifier(name) else {})) for name in NETWORKS]
        if as_json:
            print_json([asdict(item) for item in found])
            return
        rows = [
            (item.name, count(item.parameters), count(item.macs), "x".join(map(str, item.input)), item.blocks) for item in found
        ]
        print_table(("network", "parameters", "MACs", "input", "blocks"), rows, right=("parameters", "MACs", "blocks"))


@app.command()
def plan(
    network: options.Network,
    out: Annotated[Path, typer.Option(help="The plan to write, a .json file for `profile build`.")],
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shape: options.Input = None,
    classes: options.Classes = 1000,
    small_input: options.SmallInput = False,
    precision: Annotated[str, typer.Option(help="float32 or int8: what the layers compute in.")] = "float32",
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Plan a table that can price every narrower version of a network; what it measures is decided on the device."""
    with _commands():
        from netadapt.networks.options import NetworkOptions

        if out.suffix != ".json" or not out.parent.is_dir():
            raise RunError(f"{out} cannot become a plan: give a name ending in .json in a folder that exists")
        chosen = NetworkOptions(
            settled(network), width_multiplier, resolution, classes, small_input, parse_input(input_shape) if input_shape else None
        )
        if precision not in ("float32", "int8"):
            raise RunError(f"layers can be measured in float32 and int8, not in {precision!r}")
        made = make_plan(chosen.graph().with_precision(precision), seed=seed)
        write_plan(made, out)
        about = {
            "plan": str(out),
            "blocks": len(made.graph.widths),
            "possible_layers": possible_layers(made),
            "fit": len(made.fit),
            "check": len(made.check),
        }
        if as_json:
            print_json(about)
        else:
            print(f"{out}: {len(made.graph.widths)} blocks, {about['possible_layers']} layers that they can make")
            print("  `profile build` measures a few hundred of these, where they tell most on the device")
            print(f"  and {len(made.fit)} networks of random widths to fit on, {len(made.check)} to check on")


@app.command()
def run(
    network: options.Network,
    data: options.Data,
    budget: options.Budgets,
    out: Annotated[Path, typer.Option(help="The folder to keep the run in.")],
    table: options.Tables = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shape: options.Input = None,
    small_input: options.SmallInput = False,
    weights: options.Weights = None,
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
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Adapt a network to its budgets: prune it step by step, fine-tuning every candidate, and keep the whole family."""
    with _commands(f"every finished candidate is kept in {out}; go on with --resume"):
        from netadapt.adaptation import RunRequest
        from netadapt.adaptation import run as adapt_network
        from netadapt.networks.options import NetworkOptions
        from netadapt.pruning.settings import PruningSettings
        from netadapt.settings import DataSettings
        from netadapt.training.recipe import RecipeOverrides

        tables = named_tables(table or ())
        adapting = AdaptSettings(step, decay, max_iterations, width_step, min_width, select_by, if_no_candidate, successive_halving)
        request = RunRequest(
            network=NetworkOptions(
                settled(network),
                width_multiplier,
                resolution,
                small_input=small_input,
                input=parse_input(input_shape) if input_shape else None,
            ),
            data=DataSettings(data, holdout),
            budgets=budget,
            out=out,
            tables=tables,
            search=adapting,
            original=RecipeOverrides(learning_rate, epochs=epochs, batch_size=batch_size, augment=augment),
            short_term=RecipeOverrides(short_term_learning_rate, steps=short_term_steps, batch_size=batch_size, augment=augment),
            pruning=PruningSettings(importance, bn_recalibration_batches),
            seed=seed,
            weights=weights,
            allow_unverified=allow_unverified,
            measure=measure,
            executor=_executor_options(executor, workers, cores_per_worker, ray_address),
            threads_per_candidate=threads_per_candidate,
            tensorboard=tensorboard,
        )
        goals = parse_budgets(budget, tables)

        def tell(done: Step) -> None:
            for path in tables.values() if done.iteration == 0 else ():
                if not (loaded := load_table(path)).verified:
                    typer.echo(f"warning: the table is {loaded.sentence()}", err=True)
            print(printing.step_text(done, goals, _task_of(out)), file=sys.stderr if as_json else sys.stdout, flush=True)
            if warning := printing.choice_warning(done):
                typer.echo(f"warning: {warning}", err=True)
            for goal in goals:
                if goal.name in done.misses:
                    typer.echo(f"warning: {done.misses[goal.name].sentence(goal.name, goal.unit)}", err=True)

        with bar() as progress:
            adapt_network(request, resume=resume, progress=progress, on_step=tell)
        if as_json:
            with RunFolder.open(out) as folder:
                print_json({"run": str(out), "steps": list(printing.history_data(folder, goals[0].unit))})
            return
        print(f"the budget is met; `netadapt finetune {out}` trains the last step to convergence,")
        print(f"`netadapt measure {out}` measures every step on the device")


@app.command()
def history(run: options.Run, as_json: Json = False) -> None:
    """Show the family of networks: every step with its latency and accuracy."""
    with plain_errors():
        with RunFolder.open(run) as folder:
            goals, task = folder.info.goals, folder.info.settings.task
            rows = list(printing.history_data(folder, goals[0].unit))
        if as_json:
            print_json(rows)
        else:
            printing.print_history(rows, goals, task)


@app.command()
def finetune(
    run: options.Run,
    step: Annotated[list[int] | None, typer.Option(help="Steps to fine-tune; by default the original and the last.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Of the long-term fine-tune; by default the task's.")] = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    augment: options.Augment = None,
    seeds: options.Seeds = 1,
    tensorboard: options.TensorBoard = False,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Long-term fine-tune: train steps to convergence and look at the test images."""
    with _commands("the steps finished so far are kept"):
        from netadapt.reporting.report import write_report
        from netadapt.runs.event_log import open_log, require_tensorboard
        from netadapt.runs.finetune import finish as finish_steps
        from netadapt.runs.models import Family
        from netadapt.training.recipe import RecipeOverrides

        if tensorboard:
            require_tensorboard()
        with RunFolder.open(run, write=True) as folder, bar() as progress, open_log(folder, wanted=tensorboard) as log:
            asked, family = RecipeOverrides(learning_rate, epochs=epochs, batch_size=batch_size, augment=augment), Family(folder)
            done = finish_steps(family, step or [0, None], asked, seed=seed, seeds=seeds, progress=progress, log=log)
            write_report(folder)
        if as_json:
            print_json([asdict(item) for item in done])
        else:
            for item in done:
                print(f"step {item.step}: {printing.over_seeds_text(_task_of(run), item)} on the test images")


@app.command()
def measure(
    run: options.Run,
    device: options.Device = None,
    runtime: options.Runtime = None,
    step: Annotated[list[int] | None, typer.Option(help="Steps to measure; by default every one kept.")] = None,
    python: Annotated[
        str | None, typer.Option(help="The Python on the device that has the runtime; by default the table's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the run's networks whole on the device and compare with what the table predicted."""
    with _commands("nothing was recorded of this measurement"):
        from netadapt.reporting.report import write_report
        from netadapt.runs.measure import verify as verify_steps
        from netadapt.runs.models import Family

        with RunFolder.open(run, write=True) as folder, bar() as progress:
            target, path = where(folder, device, runtime, python)
            found = verify_steps(Family(folder), step, target, load_table(path) if path else None, progress)
            write_report(folder)
        if as_json:
            print_json([asdict(item) | {"error_percent": item.error_percent} for item in found])
            return
        printing.print_verified(found)


@app.command()
def baselines(
    run: options.Run,
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"What to compare with: {', '.join(KINDS)}; repeatable. By default all that make sense for the run."),
    ] = None,
    seeds: options.Seeds = 1,
    step: Annotated[int | None, typer.Option(help="The step to match; by default the last.")] = None,
    epochs: Annotated[
        float | None,
        typer.Option(help="Of everyone's long-term fine-tune; by default as many as the step or the original had, or the task's."),
    ] = None,
    device: options.Device = None,
    executor: options.Executor = None,
    workers: options.Workers = None,
    cores_per_worker: options.CoresPerWorker = None,
    ray_address: options.RayAddress = "auto",
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Train simpler networks of the same measured latency, and measure them beside the adapted one: what it has to beat.

    multiplier: evenly thinner, from random weights. uniform: the trained original pruned evenly. macs: the same search guided by
    MACs. scratch: the adapted shape from random weights. The original and the step are fine-tuned with the same seeds.
    """
    with _commands(f"every seed trained so far is kept in {run}; the same command goes on"):
        from netadapt.baselines.compare import compare, sensible_kinds
        from netadapt.baselines.match import Match
        from netadapt.reporting.report import write_report
        from netadapt.runs.measure import verify as verify_steps
        from netadapt.runs.models import Family
        from netadapt.runs.training_schedule import as_before, stages_of
        from profiler.tables.growing import OnDemand

        workplace = _executor_options(executor, workers, cores_per_worker, ray_address)
        workplace.require()
        with RunFolder.open(run, write=True) as folder, bar() as progress:
            kinds = sensible_kinds(folder.info, kind or ())
            if missing := [name for name in KINDS if name not in kinds and not kind]:
                progress.say(f"without a latency budget nothing can be equally fast: no {', '.join(map(title_of, missing))}")
            family = Family(folder)
            chosen, (target, path) = family.step(step), where(folder, device)
            shortlist = path or next(iter(latency_tables(folder).values()), None)
            table = OnDemand(shortlist, progress) if shortlist else None
            had = folder.finished.get(chosen.iteration) or folder.finished.get(0)
            stages = stages_of(folder.info.settings, as_before(had, epochs))
            match = Match(family, chosen, target, table, stages, workplace, progress)
            found = compare(match, kinds, seed=seed, seeds=seeds)
            whole = verify_steps(family, [0, chosen.iteration], target, table.table if table and path else None, progress)
            write_report(folder)
            names = [item.name for item in found]
            found = [item for item in folder.baselines if item.name in names]
            finished = {"original": folder.finished[0], f"step {chosen.iteration}": folder.finished[chosen.iteration]}
        if as_json:
            print_json([printing.baseline_data(item) for item in found])
        else:
            measured = dict(zip(finished, (item.measured_ms for item in whole), strict=True))
            printing.print_baselines(found, finished, measured, _task_of(run))


@app.command()
def export(
    run: options.Run,
    file_format: Annotated[Format, typer.Option("--format", help="What kind of file.")],
    step: Annotated[int | None, typer.Option(help="The step to export; by default the last.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default in the run's folder of exports.")] = None,
    precision: Annotated[str, typer.Option(help="float32 or int8. In int8 a TFLite file takes and gives integers.")] = "float32",
    calibration: Annotated[int, typer.Option(help="Training images that the ranges of int8 are taken from.")] = 256,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the file's latency on the device, too.")] = False,
    device: options.Device = None,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Write a step's network as a model file, compared with PyTorch, judged on the test images by its own runtime."""
    with _commands("the file is kept if it was written"):
        from netadapt.reporting.report import write_report
        from netadapt.runs.export import Delivery, deliver
        from netadapt.runs.models import Family

        with RunFolder.open(run, write=True) as folder, bar() as progress:
            family = Family(folder)
            chosen = family.step(step)
            kind = file_format.value if precision == "float32" else f"{precision}.{file_format.value}"
            path = out or folder.exports / f"step{chosen.iteration:03d}.{kind}"
            if path.suffix != f".{file_format.value}" or not path.parent.is_dir():
                raise RunError(f"{path} cannot be written: give a name ending in .{file_format.value} in a folder that exists")
            target = where(folder, device)[0] if measure else None
            done = deliver(family, chosen, Delivery(path, precision, calibration, seed, target), progress)
            write_report(folder)
        if as_json:
            print_json(asdict(done))
        else:
            print("\n".join(printing.delivered_lines(done, _task_of(run))))


@app.command()
def report(run: options.Run) -> None:
    """Write the run's report: one HTML page that opens offline."""
    with _commands():
        from netadapt.reporting.report import write_report

        with RunFolder.open(run) as folder:
            print(write_report(folder))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for everything the demo makes.")] = Path("runs/demo"),
    runtime: Annotated[str, typer.Option(help="onnxruntime or litert.")] = "onnxruntime",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a demo that was interrupted.")] = False,
) -> None:
    """The whole line on this machine: measure it, build a table, adapt MobileNetV1 to 60 % of its latency, compare."""
    with _commands(f"what is done is kept in {out}; go on with --resume"):
        from netadapt.demo import demo as run_demo

        run_demo(out, runtime, resume=resume)


def _task_of(run: Path) -> Task:
    with RunFolder.open(run) as folder:
        return folder.info.settings.task
