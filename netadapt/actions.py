"""The actions on an existing run: fine-tune, measure, compare with baselines, export. Each writes the report again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netadapt.baselines import BASELINES, title_of
from netadapt.baselines.compare import applicable_kinds, compare
from netadapt.baselines.match import Match
from netadapt.errors import RunError, SettingsError
from netadapt.executors import ExecutorOptions
from netadapt.export.preprocessing import Preprocessing
from netadapt.reporting.report import write_report
from netadapt.runs.event_log import open_log, require_tensorboard
from netadapt.runs.export import ExportOptions, export_step
from netadapt.runs.finetune import finish
from netadapt.runs.measure import EXPORTERS, verify
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
    """The numbers of the steps; empty for the original and the last step."""
    long_term: RecipeOverrides = field(default_factory=RecipeOverrides)
    """Replacements of the recipe's numbers."""
    seed: int = 1
    seeds: int = 1
    """The number of seeds, from `seed` on."""
    tensorboard: bool = False
    """True to log the losses for TensorBoard."""
    processes: int = 1
    """Processes of this machine that train each network together, on a GPU each where there are as many."""
    workers: int = 1
    """Networks that are trained at the same time, each in a process of its own."""
    from_scratch: bool = False
    """True to begin with random weights instead of the steps' own, and with the numbers of the original's training."""


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """The steps after their long-term fine-tune."""

    task: Task
    steps: Sequence[Finished]


def finetune(request: FinetuneRequest, progress: ProgressReporter) -> FinetuneResult:
    """Train the steps to convergence; each step and seed is recorded as soon as it is trained.

    `RunError` for a step that the run does not have; `SettingsError` for several workers of several processes each;
    `MissingPackage` if TensorBoard is asked for and not installed.
    """
    if request.workers > 1 and request.processes > 1:
        raise SettingsError("--workers trains several networks at the same time, --processes each by several; give one of them")
    if request.tensorboard:
        require_tensorboard()
    with RunFolder.open(request.run, write=True) as folder, open_log(folder, wanted=request.tensorboard) as log:
        done = finish(
            RunModels(folder), request.steps or [0, None], request.long_term, seed=request.seed, seeds=request.seeds,
            processes=request.processes, workers=request.workers, from_scratch=request.from_scratch, progress=progress, log=log,
        )  # fmt: skip
        write_report(folder)
        return FinetuneResult(folder.info.settings.task, done)


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """Steps of a run whose networks are measured whole."""

    run: Path
    steps: Sequence[int] = ()
    """The numbers of the steps; empty for every step."""
    device: str | None = None
    """A device, or the name of one of the run's tables; None for the device of the first table."""
    runtime: str | None = None
    """None for the table's runtime."""
    python: str | None = None
    """The Python interpreter on the device that has the runtime; None for the table's."""


def measure(request: MeasureRequest, progress: ProgressReporter) -> list[Verified]:
    """Measure the steps on the requested target, beside the predictions of the run's table of this target, if it has one."""
    with RunFolder.open(request.run, write=True) as folder:
        target, path = choose_target(folder, request.device, request.runtime, request.python)
        if path is None:
            progress.say(f"the run has no table of {target.device} with {target.runtime}, where its steps are measured now")
        found = verify(RunModels(folder), request.steps or None, target, load_table(path) if path else None, progress)
        write_report(folder)
        return found


@dataclass(frozen=True, slots=True)
class BaselinesRequest:
    """Baselines to find and train for a step of a run."""

    run: Path
    kinds: Sequence[str] = ()
    """Names in `netadapt.baselines.BASELINES`; empty for all that apply to the run."""
    step: int | None = None
    """The step to compare with; None for the last."""
    epochs: float | None = None
    """Epochs of every long-term fine-tune; None for as many as the step or the original had, otherwise the recipe's."""
    device: str | None = None
    """A device, or the name of one of the run's tables; None for the device of the first table."""
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    seed: int = 1
    seeds: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Baselines, the original and the adapted network, all with their scores and measurements."""

    task: Task
    baselines: Sequence[Baseline]
    finished: Mapping[str, Finished]
    """The original and the step after their long-term fine-tune, by the names that are printed."""
    measured: Mapping[str, Verified]
    """The measurements of the same networks, by the same names."""


def compare_with_baselines(request: BaselinesRequest, progress: ProgressReporter) -> Comparison:
    """Find and train baselines that are as fast as the step, and measure all networks.

    Every choice and every trained seed is recorded at once and not repeated by a later call. `RunError` for a run, step or kind of
    baseline that cannot be compared.
    """
    request.executor.require()
    with RunFolder.open(request.run, write=True) as folder:
        kinds = applicable_kinds(folder.info, request.kinds)
        if missing := [name for name in BASELINES if name not in kinds and not request.kinds]:
            progress.say(
                f"the run has no latency budget and so no networks of equal latency; left out: {', '.join(map(title_of, missing))}"
            )
        models = RunModels(folder)
        chosen, (target, path) = models.step(request.step), choose_target(folder, request.device)
        # of a target without a table, the first table still says which networks are worth measuring
        shortlist = path or next(iter(latency_tables(folder).values()), None)
        table = GrowingTable(shortlist, progress) if shortlist else None
        # the fine-tune is that of the recorded one, so that the step need not be trained again
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
    file_format: str | None = None
    """onnx or tflite; None for that of the ending of `out`, else onnx."""
    step: int | None = None
    """None for the last."""
    out: Path | None = None
    """None for a file in the run's folder of exports."""
    precision: str = "float32"
    """float32 or int8."""
    calibration: int = 256
    """Training images that the ranges of int8 are taken from."""
    measure: bool = False
    """True to measure the file's latency on the device."""
    device: str | None = None
    """A device, or the name of one of the run's tables; None for the device of the first table."""
    seed: int = 1
    fold_normalisation: bool = False
    """True for a file that normalises its inputs itself."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The file that was written, and the task whose figures it has."""

    task: Task
    file: ExportedFile
    preprocessing: Preprocessing
    """What has to be done to images before they are fed to the file."""


def export(request: ExportRequest, progress: ProgressReporter) -> ExportResult:
    """Write a step's model file, examine it, and measure it if that is asked for.

    `RunError` for a path that does not end in the format's name or whose folder does not exist.
    """
    with RunFolder.open(request.run, write=True) as folder:
        models, named = RunModels(folder), request.out.suffix.lstrip(".") if request.out else ""
        file_format = request.file_format or (named if named in EXPORTERS else "onnx")
        step = models.step(request.step)
        ending = file_format if request.precision == "float32" else f"{request.precision}.{file_format}"
        path = request.out or folder.exports / f"step{step.iteration:03d}.{ending}"
        if path.suffix != f".{file_format}" or not path.parent.is_dir():
            raise RunError(f"{path} cannot be written; choose a name ending in .{file_format} in a folder that exists")
        target, table = choose_target(folder, request.device) if request.measure else (None, None)
        timing = load_table(table).info.settings if table else None
        options = ExportOptions(
            path, request.precision, request.calibration, request.seed, target, timing, request.fold_normalisation
        )
        done, preprocessing = export_step(models, step, options, progress)
        write_report(folder)
        return ExportResult(folder.info.settings.task, done, preprocessing)
