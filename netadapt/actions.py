"""What is done with a run that exists: fine-tune, measure, compare, export; each writes the report again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netadapt.baselines import BASELINES, title_of
from netadapt.baselines.compare import compare, sensible_kinds
from netadapt.baselines.match import Match
from netadapt.errors import RunError
from netadapt.executors import ExecutorOptions
from netadapt.reporting.report import write_report
from netadapt.runs.event_log import open_log, require_tensorboard
from netadapt.runs.export import ExportOptions, export_step
from netadapt.runs.finetune import finish
from netadapt.runs.measure import verify
from netadapt.runs.models import RunModels
from netadapt.runs.records import Baseline, ExportedFile, Finished, Verified
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.targets import choose_target, latency_tables
from netadapt.runs.training_schedule import as_before, stages_of
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.types import Task
from profiler.progress import ProgressReporter
from profiler.tables.growing import GrowingTable
from profiler.tables.table import load_table


@dataclass(frozen=True, slots=True)
class FinetuneRequest:
    """Steps of a run to train to convergence."""

    run: Path
    steps: Sequence[int] = ()
    """None given: the original and the last step."""
    long_term: RecipeOverrides = field(default_factory=RecipeOverrides)
    seed: int = 1
    seeds: int = 1
    """How many seeds, from `seed` on."""
    tensorboard: bool = False


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """The steps after their long-term fine-tune."""

    task: Task
    steps: Sequence[Finished]


def finetune(request: FinetuneRequest, progress: ProgressReporter) -> FinetuneResult:
    """Each step and seed is recorded as soon as it is trained."""
    if request.tensorboard:
        require_tensorboard()
    with RunFolder.open(request.run, write=True) as folder, open_log(folder, wanted=request.tensorboard) as log:
        done = finish(
            RunModels(folder), request.steps or [0, None], request.long_term, seed=request.seed, seeds=request.seeds,
            progress=progress, log=log,
        )  # fmt: skip
        write_report(folder)
        return FinetuneResult(folder.info.settings.task, done)


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """Steps of a run to measure whole."""

    run: Path
    steps: Sequence[int] = ()
    """None given: every step."""
    device: str | None = None
    runtime: str | None = None
    python: str | None = None
    """The interpreter on the device that has the runtime."""


def measure(request: MeasureRequest, progress: ProgressReporter) -> list[Verified]:
    """Measure on the target that is asked for, beside the predictions of the run's table of it."""
    with RunFolder.open(request.run, write=True) as folder:
        target, path = choose_target(folder, request.device, request.runtime, request.python)
        found = verify(RunModels(folder), request.steps or None, target, load_table(path) if path else None, progress)
        write_report(folder)
        return found


@dataclass(frozen=True, slots=True)
class BaselinesRequest:
    """Baselines to find and train for a step of a run."""

    run: Path
    kinds: Sequence[str] = ()
    """Names in netadapt.baselines.BASELINES; none given: all that make sense for the run."""
    step: int | None = None
    """None: the last."""
    epochs: float | None = None
    """Of every long-term fine-tune; None: as many as the step or the original had, otherwise the recipe's."""
    device: str | None = None
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    seed: int = 1
    seeds: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Baselines beside the original and the adapted network."""

    task: Task
    baselines: Sequence[Baseline]
    finished: Mapping[str, Finished]
    """The original and the step, by what they are called."""
    measured: Mapping[str, Verified]
    """The same networks as measured."""


def compare_with_baselines(request: BaselinesRequest, progress: ProgressReporter) -> Comparison:
    """Every choice and every trained seed is recorded as soon as it is there, and not made again."""
    request.executor.require()
    with RunFolder.open(request.run, write=True) as folder:
        kinds = sensible_kinds(folder.info, request.kinds)
        if missing := [name for name in BASELINES if name not in kinds and not request.kinds]:
            progress.say(f"without a latency budget no network can be equally fast: no {', '.join(map(title_of, missing))}")
        models = RunModels(folder)
        chosen, (target, path) = models.step(request.step), choose_target(folder, request.device)
        shortlist = path or next(iter(latency_tables(folder).values()), None)
        table = GrowingTable(shortlist, progress) if shortlist else None
        # the step is fine-tuned as it was before, so that what is recorded need not be trained again
        before = folder.finished.get(chosen.iteration) or folder.finished.get(0)
        stages = stages_of(folder.info.settings, as_before(before, request.epochs))
        match = Match(models, chosen, target, table, stages, request.executor, progress)
        names = [item.name for item in compare(match, kinds, seed=request.seed, seeds=request.seeds)]
        numbers = {"original": 0, f"step {chosen.iteration}": chosen.iteration}
        whole = verify(models, list(numbers.values()), target, table.table if table and path else None, progress)
        write_report(folder)
        return Comparison(
            folder.info.settings.task,
            [item for item in folder.baselines if item.name in names],
            {name: folder.finished[number] for name, number in numbers.items()},
            dict(zip(numbers, whole, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A step of a run to write as a model file."""

    run: Path
    file_format: str
    """onnx or tflite."""
    step: int | None = None
    """None: the last."""
    out: Path | None = None
    """None: a file in the run's folder of exports."""
    precision: str = "float32"
    calibration: int = 256
    """Training images that the ranges of int8 are taken from."""
    measure: bool = False
    device: str | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The file that was written, and the task by which its figures are read."""

    task: Task
    file: ExportedFile


def export(request: ExportRequest, progress: ProgressReporter) -> ExportResult:
    """`RunError` for a path that does not end as the format does, or lies in no folder that exists."""
    with RunFolder.open(request.run, write=True) as folder:
        models, form = RunModels(folder), request.file_format
        step = models.step(request.step)
        ending = form if request.precision == "float32" else f"{request.precision}.{form}"
        path = request.out or folder.exports / f"step{step.iteration:03d}.{ending}"
        if path.suffix != f".{form}" or not path.parent.is_dir():
            raise RunError(f"{path} cannot be written: give a name ending in .{form} in a folder that exists")
        target = choose_target(folder, request.device)[0] if request.measure else None
        options = ExportOptions(path, request.precision, request.calibration, request.seed, target)
        done = export_step(models, step, options, progress)
        write_report(folder)
        return ExportResult(folder.info.settings.task, done)
