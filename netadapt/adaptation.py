"""A NetAdapt run from start to end: network, data, table and budget in, a folder with the family of networks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from netadapt.datasets import Dataset, open_dataset
from netadapt.engines import EngineOptions, Told, open_engine
from netadapt.engines.jobs import Jobs
from netadapt.errors import RunError, SettingsError
from netadapt.event_log import EventLog, open_log, require_tensorboard
from netadapt.family import Family, NetworkOptions
from netadapt.loop import AdaptSettings, Step, adapt, check_budget
from netadapt.narrowing import Narrowing
from netadapt.networks.own import source_facts
from netadapt.records import RunInfo, TableFacts
from netadapt.resources import open_resource, parse_budget
from netadapt.run_folder import RunFolder, is_run
from netadapt.tasks import TaskError
from netadapt.training import FROM_SCRATCH, SHORT_TERM, TrainSettings
from profiler.errors import LayerNotMeasured
from profiler.graph import Graph
from profiler.journal import journal_path
from profiler.on_demand import OnDemand, copy_table
from profiler.progress import Work
from profiler.table import LatencyTable, load_table

PACKAGES = ("netadapt-profiler", "torch", "torch-pruning", "onnxruntime", "ai-edge-litert")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """All that is asked for; what of it shapes the result is stored with the run."""

    options: NetworkOptions
    data: str
    budget: str
    out: Path
    table: Path | None = None
    adapting: AdaptSettings = field(default_factory=AdaptSettings)
    original: TrainSettings = FROM_SCRATCH
    short_term: TrainSettings = SHORT_TERM
    narrowing: Narrowing = field(default_factory=Narrowing)
    holdout_fraction: float = 0.15
    seed: int = 1
    weights: Path | None = None
    """Trained weights of the original network; trained from scratch without."""
    allow_unverified: bool = False
    """Rely on a table that is not known to predict networks."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    threads_per_candidate: int | None = None
    """Of torch; None: as the run that is gone on with, 1 for a new one."""
    threads_original: int | None = None
    """Of torch, for the original's training; None: as the run that is gone on with, all cores for a new one."""
    tensorboard: bool = False

    def info(self, dataset: Dataset) -> RunInfo:
        settings = {
            "data": str(Path(self.data).resolve()) if Path(self.data).exists() else self.data,
            **{name: value for name, value in asdict(self.options).items() if name != "name"},
            "classes": len(dataset.classes),
            "task": dataset.task.name,
            "seed": self.seed,
            "holdout_fraction": self.holdout_fraction,
            **asdict(self.adapting),
            "weights": self.weights.name if self.weights else None,
            "epochs": self.original.epochs,
            "short_term_steps": self.short_term.steps,
            "batch_size": self.original.batch_size,
            "filters": self.narrowing.filters,
            "reestimate_batch_norm": self.narrowing.batch_norm_batches,
            "threads_per_candidate": self.threads_per_candidate,
            "threads_original": self.threads_original,
        }
        facts = TableFacts.of(self.table, load_table(self.table)) if self.table else None
        versions = {name: version(name) for name in PACKAGES} | source_facts(self.options.name)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return RunInfo(self.options.name, self.budget, now, settings, versions, facts)


def run(request: RunRequest, *, resume: bool, progress: Work, on_step: Callable[[Step], None]) -> None:
    """Adapt until the budget is met; each step is recorded, then told. All that can be wrong is found before training starts.

    The run has its own copy of the table, which grows by the layers that are asked for and missing.
    """
    request.engine.require()
    if request.tensorboard:
        require_tensorboard()
    request = _with_threads(request, resume=resume)
    table = _trusted(request) if request.table else None
    budget = parse_budget(request.budget)
    resource = open_resource(budget.resource, table)
    if request.weights is not None and not request.weights.is_file():
        raise RunError(f"there are no weights {request.weights}")
    dataset = _dataset(request)
    options = replace(request.options, classes=len(dataset.classes))
    graph = options.graph(outputs=(1, options.classes) if options.classes else None)
    _check_task(graph, options, dataset)
    try:
        check_budget(graph, resource, budget, request.adapting)
    except LayerNotMeasured:
        if request.table is None or not journal_path(request.table).exists():
            raise  # a table without its journal cannot measure what it lacks
    with RunFolder.create(request.out, request.info(dataset), graph, resume=resume) as folder:
        if request.table is not None:
            if not folder.table_path.exists():
                copy_table(request.table, folder.table_path)
            resource = open_resource(budget.resource, OnDemand(folder.table_path, progress))
        family = Family(folder, dataset)
        history, known = folder.steps, folder.unfinished
        with (
            open_log(folder, wanted=request.tensorboard) as events,
            open_engine(request.engine, _jobs(request, family), _told(progress, events)) as engine,
        ):
            for step in adapt(graph, resource, budget, folder.recorded(engine), request.adapting, history, known):
                folder.add_step(step)
                events.step(step)
                on_step(step)


def _with_threads(request: RunRequest, *, resume: bool) -> RunRequest:
    """A run keeps the numbers of threads it was begun with, as its results depend on them in their last bits.

    One by default for a candidate: several of these next to each other make better use of cores than threads do, and a number
    that depends on no machine and no engine gives the same results on all of them.
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
    threads = request.threads_per_candidate, request.threads_original
    return Jobs(family, request.original, request.short_term, request.seed, *threads, request.weights, request.narrowing)


def _told(progress: Work, events: EventLog) -> Told:
    return Told(progress, lambda step, loss: events.loss("original", step, loss))


def _trusted(request: RunRequest) -> LatencyTable:
    assert request.table is not None
    table = load_table(request.table)
    if "float32" not in {layer.dtype for layer in table.rows}:
        raise RunError(f"{request.table} has no float32 layers, in which networks are adapted; build one from a float32 plan")
    if not table.verified and not request.allow_unverified:
        raise RunError(
            f"{request.table} is {table.sentence()}; `profile check {request.table}` says what to do about it, "
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
        resolution=options.picture_side,
        channels=options.input_shape[1],
        seed=request.seed,
        holdout_fraction=request.holdout_fraction,
    )
