"""A NetAdapt run from start to end: network, data, table and budget in, a folder with the family of networks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from netadapt.errors import RunError, SettingsError
from netadapt.executors import ExecutorOptions, Observers, open_executor
from netadapt.executors.jobs import CandidateJobs
from netadapt.networks.options import NetworkOptions
from netadapt.networks.user_network import source_facts
from netadapt.pruning.settings import PruningSettings
from netadapt.resources import open_goals, parse_budgets
from netadapt.runs.device_check import DeviceCheck, within_reach
from netadapt.runs.event_log import open_log, require_tensorboard
from netadapt.runs.history import History, history_of
from netadapt.runs.models import RunModels, dataset_of
from netadapt.runs.records import RunInfo, TableFacts
from netadapt.runs.run_folder import RunFolder, is_run
from netadapt.search.loop import adapt, check_budgets
from netadapt.search.types import AdaptSettings, Step
from netadapt.settings import DataSettings, RunSettings, TrainingSettings
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.tasks import TaskError
from netadapt.training.types import Dataset
from profiler.errors import LayerNotMeasured
from profiler.layers.graph import Graph
from profiler.progress import ProgressReporter
from profiler.protocol.journal import journal_path
from profiler.schedule.state import stale_reason
from profiler.tables.growing import GrowingTable, copy_table
from profiler.tables.table import Table, load_table
from profiler.tables.trust import trust_sentence

PACKAGES = ("netadapt-profiler", "torch", "torch-pruning", "onnxruntime", "ai-edge-litert")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """All that is asked for; what of it shapes the result is stored with the run, as `RunSettings`."""

    network: NetworkOptions
    """The number of classes is the data's, whatever is given here."""
    data: DataSettings
    budgets: Sequence[str]
    """One or several, each for another resource or another device's latency."""
    out: Path
    tables: Mapping[str, Path] = field(default_factory=dict)
    """Latency tables by the names that budgets call them; a lone one may have the name ''."""
    search: AdaptSettings = field(default_factory=AdaptSettings)
    original: RecipeOverrides = field(default_factory=RecipeOverrides)
    """Numbers in place of the task's for the training of the original network."""
    short_term: RecipeOverrides = field(default_factory=RecipeOverrides)
    """Numbers in place of the task's for the short-term fine-tune of each candidate."""
    pruning: PruningSettings = field(default_factory=PruningSettings)
    seed: int = 1
    weights: Path | None = None
    """Trained weights of the original network, which is trained from random weights without."""
    allow_unverified: bool = False
    """Use tables whose error on whole networks is not known to be small."""
    measure: bool | None = None
    """Measure each winner on the tables' devices; None for the devices that can be reached."""
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    threads_per_candidate: int | None = None
    """PyTorch's threads; None keeps the number of a run that is continued, and is 1 for a new one."""
    threads_original: int | None = None
    """PyTorch's threads for the original's training; None keeps the number of a run that is continued, else all cores."""
    tensorboard: bool = False

    def settings(self, dataset: Dataset) -> RunSettings:
        """The settings to store. A continued run keeps its numbers of threads: its results depend on them in their last bits.

        A new run takes one thread per candidate: several candidates next to each other make better use of cores than threads do,
        and a number that depends on no machine and no executor gives the same results on all of them.
        """
        before: TrainingSettings | None = None
        if is_run(self.out):
            with RunFolder.open(self.out) as folder:
                before = folder.info.settings.training
        training = TrainingSettings(
            dataset.task.name,
            dataset.task.recipe.changed(self.original, self.short_term),
            self.weights.name if self.weights else None,
            self.threads_per_candidate or (before.threads_per_candidate if before else 1),
            self.threads_original or (before.threads_original if before else torch.get_num_threads()),
        )
        source = str(Path(self.data.source).resolve()) if Path(self.data.source).exists() else self.data.source
        network = replace(self.network, classes=len(dataset.classes))
        return RunSettings(network, replace(self.data, source=source), training, self.search, self.pruning, self.measure, self.seed)

    def info(self, dataset: Dataset) -> RunInfo:
        """What run.json records at the start of the run."""
        facts = {name: TableFacts.of(path, load_table(path)) for name, path in self.tables.items()}
        versions = {name: version(name) for name in PACKAGES} | source_facts(self.network.name)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return RunInfo(self.settings(dataset), tuple(self.budgets), now, versions, facts)


FREE_TO_CHANGE = ("search.max_iterations", "measure")
"""Settings that may differ when a run is continued: they decide how far it gets and what is measured, not what is computed."""


def run(request: RunRequest, *, resume: bool, progress: ProgressReporter, on_step: Callable[[Step, RunInfo], None]) -> History:
    """Adapt until every budget is met; each step is recorded, then handed to `on_step`.

    Everything that can be wrong is found before training starts.
    The run has its own copy of each table, which grows by the layers that are asked for and missing.
    """
    request.executor.require()
    if request.tensorboard:
        require_tensorboard()
    if request.threads_per_candidate is not None and request.threads_per_candidate < 1:
        raise SettingsError(f"--threads-per-candidate must be at least 1, got {request.threads_per_candidate}")
    tables = {name: _trusted(path, allow_unverified=request.allow_unverified) for name, path in request.tables.items()}
    budgets = parse_budgets(request.budgets, tables)
    goals = open_goals(budgets, {name: GrowingTable(path, grows=False) for name, path in request.tables.items()})
    if request.weights is not None and not request.weights.is_file():
        raise RunError(f"there are no weights {request.weights}")
    dataset = dataset_of(request.network, request.data, request.seed)
    options = replace(request.network, classes=len(dataset.classes))
    graph = options.graph(outputs=(1, options.classes) if options.classes else None)
    _check_task(graph, options, dataset)
    try:
        check_budgets(graph, goals, request.search)
    except LayerNotMeasured:
        if not all(journal_path(path).exists() for path in request.tables.values()):
            raise  # a table without its journal cannot measure what it lacks
    reached = within_reach(goals, tables, True, progress) if request.measure else None  # refused before there is a run
    with RunFolder.create(request.out, request.info(dataset), graph, resume=resume, free=FREE_TO_CHANGE) as folder:
        for name, path in request.tables.items():
            if why := stale_reason(path, tables[name]):
                progress.say(f"warning: {path} is stale: {why}")
        growing = _own_tables(request, folder, progress)
        models = RunModels(folder, dataset)
        if reached is None:
            reached = within_reach(goals, tables, request.measure, progress)
        measured = {goal.name: growing[goal.budget.table] for goal in goals if goal.name in reached}
        check = DeviceCheck(models, measured, progress) if measured else None
        with (
            open_log(folder, wanted=request.tensorboard) as events,
            open_executor(
                request.executor,
                CandidateJobs.for_run(models, request.weights),
                Observers(progress, lambda step, loss: events.loss("original", step, loss)),
            ) as executor,
        ):
            evaluate, history, known = folder.recorded(executor), folder.steps, folder.unfinished
            for step in adapt(graph, open_goals(budgets, growing), evaluate, request.search, history, known, check=check):
                folder.add_step(step)
                events.step(step)
                on_step(step, folder.info)
        return history_of(folder)


def _own_tables(request: RunRequest, folder: RunFolder, progress: ProgressReporter) -> dict[str, GrowingTable]:
    found = {}
    for name, path in request.tables.items():
        own = folder.table_path(name)
        if not own.exists():
            copy_table(path, own)
        found[name] = GrowingTable(own, progress)
    return found


def _trusted(path: Path, *, allow_unverified: bool) -> Table:
    table = load_table(path)
    if "float32" not in {layer.dtype for layer in table.rows}:
        raise RunError(f"{path} has no float32 layers, in which networks are adapted; build one from a float32 plan")
    if not table.verified and not allow_unverified:
        raise RunError(
            f"{path} is {trust_sentence(table)}; `profile check {path}` says what to do about it, "
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
