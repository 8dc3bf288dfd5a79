"""A NetAdapt run from start to end: network, data, table and budget in, a folder with the family of networks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from netadapt.errors import RunError, SettingsError
from netadapt.executors import ExecutorOptions, Told, open_executor
from netadapt.executors.jobs import Jobs
from netadapt.networks.own import source_facts
from netadapt.pruning.pruner import Pruner
from netadapt.resources import open_goals, parse_budgets
from netadapt.runs.device_check import DeviceCheck, within_reach
from netadapt.runs.event_log import EventLog, open_log, require_tensorboard
from netadapt.runs.models import Family, NetworkOptions
from netadapt.runs.records import RunInfo, TableFacts
from netadapt.runs.run_folder import RunFolder, is_run
from netadapt.search.loop import adapt, check_budgets
from netadapt.search.types import AdaptSettings, Step
from netadapt.training.datasets import open_dataset
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.tasks import TaskError
from netadapt.training.types import Dataset
from profiler.errors import LayerNotMeasured
from profiler.layers.graph import Graph
from profiler.measure.journal import journal_path
from profiler.progress import ProgressReporter
from profiler.schedule.state import stale_reason
from profiler.tables.growing import OnDemand, copy_table
from profiler.tables.table import LatencyTable, load_table

PACKAGES = ("netadapt-profiler", "torch", "torch-pruning", "onnxruntime", "ai-edge-litert")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """All that is asked for; what of it shapes the result is stored with the run."""

    options: NetworkOptions
    data: str
    budgets: Sequence[str]
    """One or several, each for another resource or another device's latency."""
    out: Path
    tables: Mapping[str, Path] = field(default_factory=dict)
    """By the names that budgets call them; a lone one may have the name ''."""
    adapting: AdaptSettings = field(default_factory=AdaptSettings)
    original: RecipeOverrides = field(default_factory=RecipeOverrides)
    """To the task's recipe, as all of these."""
    short_term: RecipeOverrides = field(default_factory=RecipeOverrides)
    pruning: Pruner = field(default_factory=Pruner)
    holdout_fraction: float = 0.15
    seed: int = 1
    weights: Path | None = None
    """Trained weights of the original network; trained from scratch without."""
    allow_unverified: bool = False
    """Rely on a table that is not known to predict networks."""
    measure: bool | None = None
    """Measure each winner on the tables' devices; None for those that can be reached."""
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    threads_per_candidate: int | None = None
    """Of torch; None: as the run that is gone on with, 1 for a new one."""
    threads_original: int | None = None
    """Of torch, for the original's training; None: as the run that is gone on with, all cores for a new one."""
    tensorboard: bool = False

    def info(self, dataset: Dataset) -> RunInfo:
        recipe = dataset.task.recipe
        original, short_term = self.original.applied_to(recipe.from_scratch), self.short_term.applied_to(recipe.short_term)
        settings = {
            "data": str(Path(self.data).resolve()) if Path(self.data).exists() else self.data,
            **{name: value for name, value in asdict(self.options).items() if name != "name"},
            "classes": len(dataset.classes),
            "task": dataset.task.name,
            "seed": self.seed,
            "holdout_fraction": self.holdout_fraction,
            **asdict(self.adapting),
            "measure": {None: "where a device can be reached", True: "yes", False: "no"}[self.measure],
            "weights": self.weights.name if self.weights else None,
            "epochs": original.epochs,
            "learning_rate": original.learning_rate,
            "short_term_steps": short_term.steps,
            "short_term_learning_rate": short_term.learning_rate,
            "batch_size": original.batch_size,
            "augment": original.augment,
            "short_term_augment": short_term.augment,
            "importance": self.pruning.importance,
            "bn_recalibration_batches": self.pruning.batch_norm_batches,
            "threads_per_candidate": self.threads_per_candidate,
            "threads_original": self.threads_original,
        }
        facts = {name: TableFacts.of(path, load_table(path)) for name, path in self.tables.items()}
        versions = {name: version(name) for name in PACKAGES} | source_facts(self.options.name)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return RunInfo(self.options.name, tuple(self.budgets), now, settings, versions, facts)


FREE_TO_CHANGE = ("max_iterations", "measure")
"""Settings that a run may be gone on with under others: they change how far it gets and what is known, not what is asked for."""


def run(request: RunRequest, *, resume: bool, progress: ProgressReporter, on_step: Callable[[Step], None]) -> None:
    """Adapt until every budget is met; each step is recorded, then told. All that can be wrong is found before training starts.

    The run has its own copy of each table, which grows by the layers that are asked for and missing.
    """
    request.executor.require()
    if request.tensorboard:
        require_tensorboard()
    request = _with_threads(request, resume=resume)
    tables = {name: _trusted(path, allow_unverified=request.allow_unverified) for name, path in request.tables.items()}
    budgets = parse_budgets(request.budgets, tables)
    goals = open_goals(budgets, tables)
    if request.weights is not None and not request.weights.is_file():
        raise RunError(f"there are no weights {request.weights}")
    dataset = _dataset(request)
    options = replace(request.options, classes=len(dataset.classes))
    graph = options.graph(outputs=(1, options.classes) if options.classes else None)
    _check_task(graph, options, dataset)
    try:
        check_budgets(graph, goals, request.adapting)
    except LayerNotMeasured:
        if not all(journal_path(path).exists() for path in request.tables.values()):
            raise  # a table without its journal cannot measure what it lacks
    reached = within_reach(goals, tables, True, progress) if request.measure else None  # refused before there is a run
    with RunFolder.create(request.out, request.info(dataset), graph, resume=resume, free=FREE_TO_CHANGE) as folder:
        for name, path in request.tables.items():
            if why := stale_reason(path, tables[name]):
                progress.say(f"warning: {path} is stale: {why}")
        growing = _own_tables(request, folder, progress)
        family = Family(folder, dataset)
        if reached is None:
            reached = within_reach(goals, tables, request.measure, progress)
        measured = {goal.name: growing[goal.budget.table] for goal in goals if goal.name in reached}
        check = DeviceCheck(family, measured, progress) if measured else None
        with (
            open_log(folder, wanted=request.tensorboard) as events,
            open_executor(request.executor, _jobs(request, family), _told(progress, events)) as executor,
        ):
            evaluate, history, known = folder.recorded(executor), folder.steps, folder.unfinished
            for step in adapt(graph, open_goals(budgets, growing), evaluate, request.adapting, history, known, check=check):
                folder.add_step(step)
                events.step(step)
                on_step(step)


def _with_threads(request: RunRequest, *, resume: bool) -> RunRequest:
    """A run keeps the numbers of threads it was begun with, as its results depend on them in their last bits.

    One by default for a candidate: several of these next to each other make better use of cores than threads do, and a number
    that depends on no machine and no executor gives the same results on all of them.
    """
    if request.threads_per_candidate is not None and request.threads_per_candidate < 1:
        raise SettingsError(f"--threads-per-candidate must be at least 1, got {request.threads_per_candidate}")
    before: Mapping[str, Any] = {}
    if resume and is_run(request.out):
        with RunFolder.open(request.out) as folder:
            before = folder.info.settings
    each = request.threads_per_candidate or before.get("threads_per_candidate") or 1
    original = request.threads_original or before.get("threads_original") or torch.get_num_threads()
    return replace(request, threads_per_candidate=each, threads_original=original)


def _jobs(request: RunRequest, family: Family) -> Jobs:
    assert request.threads_per_candidate is not None and request.threads_original is not None
    threads, recipe = (request.threads_per_candidate, request.threads_original), family.dataset.task.recipe
    training = request.original.applied_to(recipe.from_scratch), request.short_term.applied_to(recipe.short_term)
    return Jobs(family, *training, request.seed, *threads, request.weights, request.pruning)


def _told(progress: ProgressReporter, events: EventLog) -> Told:
    return Told(progress, lambda step, loss: events.loss("original", step, loss))


def _own_tables(request: RunRequest, folder: RunFolder, progress: ProgressReporter) -> dict[str, OnDemand]:
    found = {}
    for name, path in request.tables.items():
        own = folder.table_path(name)
        if not own.exists():
            copy_table(path, own)
        found[name] = OnDemand(own, progress)
    return found


def _trusted(path: Path, *, allow_unverified: bool) -> LatencyTable:
    table = load_table(path)
    if "float32" not in {layer.dtype for layer in table.rows}:
        raise RunError(f"{path} has no float32 layers, in which networks are adapted; build one from a float32 plan")
    if not table.verified and not allow_unverified:
        raise RunError(
            f"{path} is {table.sentence()}; `profile check {path}` says what to do about it, "
            "--allow-unverified relies on it all the same"
        )
    return table


def _check_task(graph: Graph, options: NetworkOptions, dataset: Dataset) -> None:
    """`TaskError` if the network's outputs are nothing that the data could teach."""
    nodes = {node.name: node.layer.output for node in graph.nodes}
    outputs = [nodes[name] for name in graph.outputs]  # channels last
    shapes = [(n, *rest[-1:], *rest[:-1]) for n, *rest in outputs]
    if len(shapes) != 1 or not dataset.task.fits(shapes[0], options.input_shape, options.classes):
        raise TaskError(
            f"{options.name} cannot learn {dataset.task.name} from {dataset.name}: its outputs are "
            f"{' and '.join('x'.join(map(str, shape)) for shape in shapes)}; take another network or other data"
        )


def _dataset(request: RunRequest) -> Dataset:
    options = request.options
    return open_dataset(
        request.data,
        resolution=options.image_side,
        channels=options.input_shape[1],
        seed=request.seed,
        holdout_fraction=request.holdout_fraction,
    )
