"""The `netadapt` command: fit a network into a latency budget on a device.

Torch takes seconds to load, and an install of the profiler alone does without what draws and trains: commands import what they need
when they run. `--help` answers at once, everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from netadapt import options
from netadapt.baselines import KINDS, title_of
from netadapt.engines import EngineOptions
from netadapt.errors import RunError
from netadapt.filters import DEFAULT as DEFAULT_FILTERS
from netadapt.loop import AdaptSettings, Step
from netadapt.networks import NETWORKS, describe, has_classifier
from netadapt.networks.own import parse_input, settled
from netadapt.places import latency_tables, where
from netadapt.records import Baseline, Delivered, Finished
from netadapt.registry import require_torch
from netadapt.resources import Budget, amount_text, named_tables, parse_budgets
from netadapt.run_folder import RunFolder
from netadapt.spread import Spread, of_each
from netadapt.tasks import Task, scores_text, task_of
from profiler.console import Json, count, plain_errors, print_json, print_table
from profiler.plan import make_plan, possible_layers, write_plan
from profiler.progress import bar
from profiler.table import load_table

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


def _engine_options(engine: str | None, workers: int | None, cores_per_worker: int | None, ray_address: str) -> EngineOptions:
    return EngineOptions(engine or ("in-process" if workers is None else "processes"), workers, cores_per_worker, ray_address)


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
        from netadapt.family import NetworkOptions

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
    winner: options.Winner = DEFAULTS.winner,
    small_steps: options.SmallSteps = DEFAULTS.small_steps,
    successive_halving: options.SuccessiveHalving = False,
    filters: options.Filters = DEFAULT_FILTERS,
    reestimate_batch_norm: options.ReestimateBatchNorm = 0,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    short_term_steps: options.ShortTermSteps = None,
    short_term_learning_rate: options.ShortTermLearningRate = None,
    batch_size: options.BatchSize = None,
    augment: options.Augment = None,
    holdout: options.Holdout = 0.15,
    engine: options.Engine = None,
    workers: options.Workers = None,
    cores_per_worker: options.CoresPerWorker = None,
    ray_address: options.RayAddress = "auto",
    threads_per_candidate: options.ThreadsPerCandidate = None,
    tensorboard: options.TensorBoard = False,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Adapt a network to its budgets: narrow it step by step, fine-tuning every candidate, and keep the whole family."""
    with _commands(f"every finished candidate is kept in {out}; go on with --resume"):
        from netadapt.adaptation import RunRequest
        from netadapt.adaptation import run as adapt_network
        from netadapt.family import NetworkOptions
        from netadapt.narrowing import Narrowing
        from netadapt.training import Changes

        tables = named_tables(table or ())
        adapting = AdaptSettings(step, decay, max_iterations, width_step, min_width, winner, small_steps, successive_halving)
        request = RunRequest(
            options=NetworkOptions(
                settled(network),
                width_multiplier,
                resolution,
                small_input=small_input,
                input=parse_input(input_shape) if input_shape else None,
            ),
            data=data,
            budgets=budget,
            out=out,
            tables=tables,
            adapting=adapting,
            original=Changes(learning_rate, epochs=epochs, batch_size=batch_size, augment=augment),
            short_term=Changes(short_term_learning_rate, steps=short_term_steps, batch_size=batch_size, augment=augment),
            narrowing=Narrowing(filters, reestimate_batch_norm),
            holdout_fraction=holdout,
            seed=seed,
            weights=weights,
            allow_unverified=allow_unverified,
            measure=measure,
            engine=_engine_options(engine, workers, cores_per_worker, ray_address),
            threads_per_candidate=threads_per_candidate,
            tensorboard=tensorboard,
        )
        goals = parse_budgets(budget, tables)

        def tell(done: Step) -> None:
            for path in tables.values() if done.iteration == 0 else ():
                if not (loaded := load_table(path)).verified:
                    typer.echo(f"warning: the table is {loaded.sentence()}", err=True)
            print(step_text(done, goals, _task_of(out)), file=sys.stderr if as_json else sys.stdout, flush=True)
            for goal in goals:
                if goal.name in done.misses:
                    typer.echo(f"warning: {done.misses[goal.name].sentence(goal.name, goal.unit)}", err=True)

        with bar() as progress:
            adapt_network(request, resume=resume, progress=progress, on_step=tell)
        if as_json:
            with RunFolder.open(out) as folder:
                print_json({"run": str(out), "steps": list(_history(folder, goals[0].unit))})
            return
        print(f"the budget is met; `netadapt finish {out}` trains the last step to convergence,")
        print(f"`netadapt verify {out}` measures every step on the device")


@app.command()
def history(run: options.Run, as_json: Json = False) -> None:
    """Show the family of networks: every step with its latency and accuracy."""
    with plain_errors():
        with RunFolder.open(run) as folder:
            goals, task = folder.info.goals, task_of(folder.info.settings)
            rows = list(_history(folder, goals[0].unit))
        if as_json:
            print_json(rows)
            return
        cells = [
            (
                row["step"],
                _narrowed_text(row["blocks"]),
                prices_text(row["prices"], goals),
                None if row["measured_ms"] is None else f"{row['measured_ms']:.3f}",
                *_figure_texts(task, row["holdout_accuracy"], row["holdout_metrics"]),
                *_figure_texts(task, row["test_accuracy"], row["test_metrics"]),
                count(row["macs"]),
                count(row["parameters"]),
            )
            for row in rows
        ]
        figures = [f" {figure.label}" for figure in (task.accuracy, *task.metrics)] if task.metrics else [""]
        judged = [f"{part}{figure}" for part in ("holdout", "test") for figure in figures]
        columns = ("step", "narrowed", "predicted", "measured ms", *judged, "MACs", "parameters")
        print_table(columns, cells, right=tuple(name for name in columns if name != "narrowed"))


def _narrowed_text(blocks: Sequence[str]) -> str:
    if not blocks:
        return "original"
    return blocks[0] + (f" and {len(blocks) - 1} more" if len(blocks) > 1 else "")


def _measured_in_the_loop(step: Step, goals: Sequence[Budget]) -> float | None:
    """For the first latency budget, where winners were measured."""
    found = (step.checks.get(goal.name) for goal in goals if goal.resource == "latency")
    return next((check.measured for check in found if check is not None), None)


def _figure_texts(task: Task, accuracy: float | None, metrics: Mapping[str, float]) -> Iterator[str | None]:
    """A cell for each figure of the task."""
    yield None if accuracy is None else task.accuracy.text(accuracy)
    for figure in task.metrics:
        yield figure.text(metrics[figure.name]) if figure.name in metrics else None


def _history(folder: RunFolder, unit: str) -> Iterator[dict[str, Any]]:
    finished, verified = folder.finished, folder.verified
    for step in folder.steps:
        graph, done, checked = folder.graph.at_widths(step.widths), finished.get(step.iteration), verified.get(step.iteration)
        yield {
            "step": step.iteration,
            "blocks": list(step.blocks),
            "price": step.price,
            "unit": unit,
            "prices": dict(step.prices),
            "bias": dict(step.bias),
            "measured_ms": checked.measured_ms if checked else _measured_in_the_loop(step, folder.info.goals),
            "holdout_accuracy": step.accuracy,
            "holdout_metrics": dict(step.metrics),
            "test_accuracy": done.test_accuracy if done else None,
            "test_metrics": dict(done.metrics) if done else {},
            "test_accuracies": list(done.accuracies) if done else [],
            "macs": graph.macs,
            "parameters": graph.parameters,
            "widths": dict(step.widths),
        }


@app.command()
def finish(
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
    """Long-term fine-tune: train steps to convergence and look at the test pictures."""
    with _commands("the steps finished so far are kept"):
        from netadapt.event_log import open_log, require_tensorboard
        from netadapt.family import Family
        from netadapt.finish import finish as finish_steps
        from netadapt.report import write_report
        from netadapt.training import Changes

        if tensorboard:
            require_tensorboard()
        with RunFolder.open(run, write=True) as folder, bar() as progress, open_log(folder, wanted=tensorboard) as log:
            asked, family = Changes(learning_rate, epochs=epochs, batch_size=batch_size, augment=augment), Family(folder)
            done = finish_steps(family, step or [0, None], asked, seed=seed, seeds=seeds, progress=progress, log=log)
            write_report(folder)
        if as_json:
            print_json([asdict(item) for item in done])
        else:
            for item in done:
                print(f"step {item.step}: {over_seeds_text(_task_of(run), item)} on the test pictures")


@app.command()
def verify(
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
        from netadapt.family import Family
        from netadapt.report import write_report
        from netadapt.verify import verify as verify_steps

        with RunFolder.open(run, write=True) as folder, bar() as progress:
            target, path = where(folder, device, runtime, python)
            found = verify_steps(Family(folder), step, target, load_table(path) if path else None, progress)
            write_report(folder)
        if as_json:
            print_json([asdict(item) | {"error_percent": item.error_percent} for item in found])
            return
        cells = [
            (
                item.step,
                None if item.predicted_ms is None else f"{item.predicted_ms:.3f}",
                f"{item.measured_ms:.3f}",
                f"{item.measured_ms_low:.3f} … {item.measured_ms_high:.3f}",
                None if item.error_percent is None else f"{item.error_percent:+.1f} %",
            )
            for item in found
        ]
        print_table(
            ("step", "predicted ms", "measured ms", "95 % interval", "error"),
            cells,
            right=("step", "predicted ms", "measured ms", "error"),
        )


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
    engine: options.Engine = None,
    workers: options.Workers = None,
    cores_per_worker: options.CoresPerWorker = None,
    ray_address: options.RayAddress = "auto",
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Train simpler networks of the same measured latency, and measure them beside the adapted one: what it has to beat.

    multiplier: evenly thinner, from random weights. uniform: the trained original narrowed evenly. macs: the same search guided by
    MACs. scratch: the adapted shape from random weights. The original and the step are fine-tuned with the same seeds.
    """
    with _commands(f"every seed trained so far is kept in {run}; the same command goes on"):
        from netadapt.baselines.compare import compare, sensible_kinds
        from netadapt.baselines.match import Match
        from netadapt.family import Family
        from netadapt.report import write_report
        from netadapt.stages import as_before, stages_of
        from netadapt.verify import verify as verify_steps
        from profiler.on_demand import OnDemand

        workplace = _engine_options(engine, workers, cores_per_worker, ray_address)
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
            stages = stages_of(folder.info, as_before(had, epochs))
            match = Match(family, chosen, target, table, stages, workplace, progress)
            found = compare(match, kinds, seed=seed, seeds=seeds)
            whole = verify_steps(family, [0, chosen.iteration], target, table.table if table and path else None, progress)
            write_report(folder)
            names = [item.name for item in found]
            found = [item for item in folder.baselines if item.name in names]
            compared = [("original", folder.finished[0]), (f"step {chosen.iteration}", folder.finished[chosen.iteration])]
            measured = dict(zip(("original", compared[1][0]), whole, strict=True))
        if as_json:
            print_json([_baseline_json(item) for item in found])
            return
        rows = [(name, _ms_cell(measured[name].measured_ms), over_seeds_text(_task_of(run), item)) for name, item in compared]
        rows += [(title_of(item.kind), _ms_cell(item.measured_ms), over_seeds_text(_task_of(run), item)) for item in found]
        print_table(("network", "measured ms", f"on the test pictures, {_seeds_text(found[0])}"), rows, right=("measured ms",))


def _baseline_json(item: Baseline) -> dict[str, Any]:
    accuracy, others = Spread.of(item.accuracies), of_each(item.all_metrics)
    return asdict(item) | {"accuracy": asdict(accuracy), "figures": {name: asdict(value) for name, value in others.items()}}


def _ms_cell(latency_ms: float | None) -> str | None:
    return None if latency_ms is None else f"{latency_ms:.3f}"


def _seeds_text(item: Baseline | Finished) -> str:
    count = len(item.accuracies)
    return "1 seed" if count == 1 else f"mean ± standard deviation of {count} seeds"


def over_seeds_text(task: Task, item: Baseline | Finished) -> str:
    """What a network reaches: `96.5 ± 0.3 %`; of a task with several figures each with its name."""
    accuracy, others = Spread.of(item.accuracies), of_each(item.all_metrics)
    if not task.metrics:
        return accuracy.text(task.accuracy)
    known = [(figure, others[figure.name]) for figure in task.metrics if figure.name in others]
    return ", ".join(f"{figure.label} {value.text(figure)}" for figure, value in ((task.accuracy, accuracy), *known))


@app.command()
def export(
    run: options.Run,
    file_format: Annotated[Format, typer.Option("--format", help="What kind of file.")],
    step: Annotated[int | None, typer.Option(help="The step to export; by default the last.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default in the run's folder of exports.")] = None,
    precision: Annotated[str, typer.Option(help="float32 or int8. In int8 a TFLite file takes and gives integers.")] = "float32",
    calibration: Annotated[int, typer.Option(help="Training pictures that the ranges of int8 are taken from.")] = 256,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the file's latency on the device, too.")] = False,
    device: options.Device = None,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Write a step's network as a model file, compared with PyTorch, judged on the test pictures by its own runtime."""
    with _commands("the file is kept if it was written"):
        from netadapt.deliver import Delivery, deliver
        from netadapt.family import Family
        from netadapt.report import write_report

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
            print("\n".join(delivered_lines(done, _task_of(run))))


@app.command()
def report(run: options.Run) -> None:
    """Write the run's report: one HTML page that opens offline."""
    with _commands():
        from netadapt.report import write_report

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


def step_text(step: Step, goals: Sequence[Budget], task: Task) -> str:
    """One line about a step as it is recorded."""
    what = " + ".join(f"{block} → {step.widths[block]}" for block in step.blocks) or "original"
    scores = scores_text(task, step.accuracy, step.metrics)
    return f"step {step.iteration:2d}: {what}, {prices_text(step.prices, goals)}, {scores} on the holdout"


def prices_text(prices: Mapping[str, float], goals: Sequence[Budget]) -> str:
    """5.91 ms; of several budgets each with its name: pixel 5.91 ms, macs 41.2 M MACs."""
    if len(goals) == 1:
        return amount_text(prices[goals[0].name], goals[0].unit)
    return ", ".join(f"{goal.name} {amount_text(prices[goal.name], goal.unit)}" for goal in goals)


def _task_of(run: Path) -> Task:
    with RunFolder.open(run) as folder:
        return task_of(folder.info.settings)


def delivered_lines(item: Delivered, task: Task) -> Iterator[str]:
    """What is known of a file that was made to be shipped."""
    yield f"{item.path}: step {item.step}, {item.precision}, {count(item.size_bytes)}B"
    if item.precision == "float32":
        yield f"  outputs within {item.max_abs_difference:.1e} of PyTorch's on {item.pictures} test pictures"
    else:
        same = "" if item.top1_agreement is None else f", the same class for {100 * item.top1_agreement:.1f} %"
        yield f"  outputs beside PyTorch's on {item.pictures} test pictures: cosine similarity {item.cosine_similarity:.4f}{same}"
    if item.accuracy is not None and item.torch_accuracy is not None:
        yield f"  {scores_text(task, item.accuracy, item.metrics)} on the test pictures, run by its own runtime"
        yield f"  {scores_text(task, item.torch_accuracy, item.torch_metrics)} in PyTorch"
    if item.latency_ms is not None:
        interval = f"95 % interval {item.latency_ms_low:.3f} … {item.latency_ms_high:.3f}"
        yield f"  {item.latency_ms:.3f} ms on {item.device} with {item.runtime}, {interval}"
