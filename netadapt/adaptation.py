"""A whole NetAdapt run, from a network, data, tables and budgets to a run folder with the family of adapted networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from netadapt.errors import NetworkError, RunError, SettingsError
from netadapt.executors import ExecutorOptions, Observers, open_executor
from netadapt.executors.jobs import CandidateJobs
from netadapt.networks.dry_run import FORMATS, dry_run
from netadapt.networks.options import NetworkOptions
from netadapt.pruning.settings import PruningSettings
from netadapt.resources import open_goals, parse_budgets
from netadapt.runs.device_check import DeviceCheck, within_reach
from netadapt.runs.event_log import open_log, require_tensorboard
from netadapt.runs.history import History, history_of
from netadapt.runs.models import RunModels
from netadapt.runs.opening import absolute_source, opened, versions_of
from netadapt.runs.records import RunInfo, Started, TableFacts
from netadapt.runs.run_folder import RunFolder, is_run, refuse_unless_empty
from netadapt.search.loop import adapt, check_budgets
from netadapt.search.types import AdaptSettings, Step
from netadapt.settings import DataSettings, RunSettings, TrainingSettings
from netadapt.supernet.folder import SuperNetworkFolder, supernet_facts
from netadapt.training.checkpoint import load_weights
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.tasks.users import UsersTask
from netadapt.training.trainer import score, train
from netadapt.training.types import Dataset
from netadapt.users_code import short_name
from profiler.errors import LayerNotMeasured
from profiler.layers.graph import Graph
from profiler.progress import ProgressReporter
from profiler.protocol.journal import journal_path
from profiler.runtimes import RUNTIMES
from profiler.schedule.state import stale_reason
from profiler.tables.growing import GrowingTable, copy_table
from profiler.tables.table import Table, load_table
from profiler.tables.trust import trust_sentence


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The arguments of a run. Those that the result depends on are stored with it, as `RunSettings`."""

    network: NetworkOptions
    """Its number of classes is replaced by that of the data."""
    data: DataSettings
    budgets: Sequence[str]
    """One or several texts such as latency=60%, each for another resource or another table's latency."""
    out: Path
    """The run folder."""
    tables: Mapping[str, Path] = field(default_factory=dict)
    """The paths of latency tables by the names that budgets use; a single one may have the name ''."""
    search: AdaptSettings = field(default_factory=AdaptSettings)
    original: RecipeOverrides = field(default_factory=RecipeOverrides)
    """Replacements of the task's numbers for the training of the original network."""
    short_term: RecipeOverrides = field(default_factory=RecipeOverrides)
    """Replacements of the task's numbers for the short-term fine-tune of each candidate."""
    pruning: PruningSettings = field(default_factory=PruningSettings)
    seed: int = 1
    weights: Path | None = None
    """A file with trained weights of the original network; None to train it from random weights."""
    allow_unverified: bool = False
    """True to use tables whose error on whole networks is unknown or too large."""
    measure: bool | None = None
    """True to measure each winner on the tables' devices; None for those devices that can be reached."""
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    threads_per_candidate: int | None = None
    """PyTorch's threads for each candidate; None for 1 in a new run, and the run's own number in a continued one."""
    threads_original: int | None = None
    """PyTorch's threads for the original; None for all cores in a new run, and the run's own number in a continued one."""
    tensorboard: bool = False
    task: str | None = None
    """A task as `--task` names it; None for the data's own."""
    dry_run: bool = False
    """True to try the whole way in seconds before a new run begins, as the command does."""
    supernet: Path | None = None
    """The folder of the super-network that candidates are judged in, which is the original network too."""
    started: Started | None = None
    """The command, so that it can be repeated to go on with the run."""

    def settings(self, dataset: Dataset) -> RunSettings:
        """The settings to store with the run, the task's numbers and the numbers of threads among them.

        A continued run keeps its numbers of threads, as the last bits of its results depend on them. A new run has one thread per
        candidate: candidates side by side use cores better than threads do, and a number that depends on neither the machine nor
        the executor gives the same results everywhere.
        """
        before: TrainingSettings | None = None
        if is_run(self.out):
            with RunFolder.open(self.out) as folder:
                before = folder.info.settings.training
        task, pruning, supernet = dataset.task, self.pruning, self.supernet_settings
        changes = [self.original, self.short_term]
        if dataset.users:  # its own transforms are all that changes it at random, unless the task's are asked for
            changes = [replace(change, augment=bool(change.augment)) for change in changes]
        recipe = task.recipe.changed(*changes)
        if supernet is not None:  # what the original network has learnt by, and what candidates are compared by
            recipe = replace(recipe, from_scratch=supernet.training.recipe.from_scratch)
            pruning = replace(pruning, importance=supernet.pruning.importance)
            if not pruning.bn_recalibration_batches:
                pruning = replace(pruning, bn_recalibration_batches=supernet.pruning.bn_recalibration_batches)
        training = TrainingSettings(
            task.name,
            recipe,
            self.weights.name if self.weights else None,
            self.threads_per_candidate or (before.threads_per_candidate if before else 1),
            self.threads_original or (before.threads_original if before else torch.get_num_threads()),
            (task.accuracy, *task.metrics) if isinstance(task, UsersTask) else (),
        )
        source = absolute_source(self.data.source)
        network = replace(self.network, classes=len(dataset.classes))
        return RunSettings(
            network,
            replace(self.data, source=source, known=dataset.known),
            training,
            self.search,
            pruning,
            self.measure,
            self.seed,
        )

    @property
    def supernet_settings(self) -> RunSettings | None:
        """The settings of the super-network, if there is one. `RunError` if its folder is none."""
        if self.supernet is None:
            return None
        with SuperNetworkFolder.open(self.supernet) as folder:
            return folder.about.settings

    def info(self, dataset: Dataset, tables: Mapping[str, Table]) -> RunInfo:
        """The record of the run's settings, versions and tables in run.json. `tables` are those of the request, loaded."""
        facts = {name: TableFacts.of(path, tables[name]) for name, path in self.tables.items()}
        settings = self.settings(dataset)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        supernet = None if self.supernet is None else supernet_facts(self.supernet, settings)
        return RunInfo(settings, tuple(self.budgets), now, versions_of(settings), facts, supernet, self.started)


_TRIED_IMAGES = 4
"""Images of the dry run's training step."""
FREE_TO_CHANGE = ("search.max_iterations", "measure", "data.workers")
"""Settings that may change when a run is continued: no result depends on them, only how far it gets and what is measured."""


def run(request: RunRequest, *, resume: bool, progress: ProgressReporter, on_step: Callable[[Step, RunInfo], None]) -> History:
    """Adapt the network until it is within every budget; `on_step` is called with each step after it is recorded.

    With `resume` a run that was interrupted is continued. The run has its own copy of each table, which grows by the layers that
    are missing and can be measured. `ToolError` in one sentence for everything that can be wrong, before training starts wherever
    that is possible.
    """
    request = _checked(request)
    tables = {name: trusted(path, allow_unverified=request.allow_unverified) for name, path in request.tables.items()}
    budgets = parse_budgets(request.budgets, tables)
    goals = open_goals(budgets, tables)  # by the tables as they are: nothing is measured before the run begins
    data, source = request.data, absolute_source(request.data.source)
    begun = resume and is_run(request.out)
    if not begun:
        refuse_unless_empty(request.out)
    if begun:
        with RunFolder.open(request.out) as folder:
            before = folder.info.settings
        if (before.data.source, before.data.holdout_fraction, before.seed) == (source, data.holdout_fraction, request.seed):
            data = replace(data, known=before.data.known)  # so that not all images have to be read again
    found = opened(request.network, data, request.seed, request.task)
    request, dataset, graph, options = replace(request, network=found.network), found.dataset, found.graph, found.network
    if request.supernet is not None and request.search.method == "descent":  # whose samples may remove branches
        with SuperNetworkFolder.open(request.supernet) as supernet:
            graph = replace(graph, branches=supernet.graph.branches)
    info = request.info(dataset, tables)
    for remark in dataset.remarks:
        progress.say(f"warning: {request.data.source}: {remark}")
    part = request.weights is not None and _is_part(request.weights, options, progress)
    try:
        check_budgets(graph, goals, request.search)
    except LayerNotMeasured:
        if not all(journal_path(path).exists() for path in request.tables.values()):
            raise  # without its journal a table cannot grow; with it, the run measures what is missing
    reached = within_reach(goals, tables, True, progress) if request.measure else None  # an error leaves no run
    for remark in () if begun else found.remarks:
        progress.say(remark)
    if request.dry_run and not begun:
        _try_whole_way(request, options, found.model, graph, dataset, tables, progress)
    with RunFolder.create(request.out, info, graph, resume=resume, free=FREE_TO_CHANGE) as folder:
        for name, path in request.tables.items():
            if why := stale_reason(path, tables[name]):
                progress.say(f"warning: {path} is stale: {why}; build it again with `profile build`")
        growing = own_tables(request.tables, folder, progress)
        models = RunModels(folder, dataset)
        if reached is None:
            reached = within_reach(goals, tables, request.measure, progress)
        measured = {goal.name: growing[goal.budget.table] for goal in goals if goal.name in reached}
        check = DeviceCheck(models, measured, progress) if measured else None
        with (
            open_log(folder, wanted=request.tensorboard) as events,
            open_executor(
                request.executor,
                CandidateJobs.for_run(models, request.weights, given_part=part),
                Observers(progress, lambda step, loss: events.loss("original", step, loss)),
            ) as executor,
        ):
            evaluate, history, known = folder.recorded(executor), folder.steps, folder.unfinished
            choices = info.supernet.widths if info.supernet else None
            for step in adapt(
                graph, open_goals(budgets, growing), evaluate, request.search, history, known,
                check=check, seed=request.seed, choices=choices,
            ):  # fmt: skip
                folder.add_step(step)
                events.step(step)
                on_step(step, folder.info)
        return history_of(folder)


def _checked(request: RunRequest) -> RunRequest:
    """The request, if its options fit each other and its files are there; with a super-network, its weights are the original's.

    `SettingsError` or `RunError` otherwise.
    """
    request.executor.require()
    if request.tensorboard:
        require_tensorboard()
    if request.threads_per_candidate is not None and request.threads_per_candidate < 1:
        raise SettingsError(f"--threads-per-candidate must be at least 1, got {request.threads_per_candidate}")
    if request.weights is not None and not request.weights.is_file():
        raise RunError(
            f"there is no file of weights {request.weights}; name another with --weights, or leave it out to train the original"
        )
    if (request.supernet is None) == (request.search.candidates == "supernet"):
        raise SettingsError(
            "candidates are judged in a super-network; name one with --supernet" if request.supernet is None
            else "--supernet is of use with --search descent or --candidates supernet only"
        )  # fmt: skip
    if request.supernet is not None:
        if request.weights is not None:
            raise SettingsError("the original network is the super-network at full width; leave out --weights")
        with SuperNetworkFolder.open(request.supernet) as supernet:
            supernet.require_trained()
            return replace(request, weights=supernet.weights)
    return request


def _is_part(weights: Path, options: NetworkOptions, progress: ProgressReporter) -> bool:
    """True if the file has weights for a part of the network only, which is then trained. `RunError` if they are not of it."""
    if weights.suffix == ".npz":  # of an encoder; its own reader checks it, with images
        return True
    with torch.random.fork_rng():
        loaded = load_weights(options.build(), weights, headless=True)
    for remark in loaded.remarks:
        progress.say(f"warning: {weights}: {remark}")
    return bool(loaded.random)


def own_tables(tables: Mapping[str, Path], folder: RunFolder, progress: ProgressReporter) -> dict[str, GrowingTable]:
    """The run's own copies of these tables; those of a continued run may have grown since they were copied."""
    found = {}
    for name, path in tables.items():
        own = folder.table_path(name)
        if not own.exists():
            copy_table(path, own)
        found[name] = GrowingTable(own, progress)
    return found


def trusted(path: Path, *, allow_unverified: bool) -> Table:
    """The table, loaded. `RunError` if it has no float32 layers, or is unverified and that is not allowed."""
    table = load_table(path)
    if "float32" not in {layer.dtype for layer in table.rows}:
        raise RunError(f"{path} has no float32 layers, which networks are adapted in; build a table from a float32 plan")
    if not table.verified and not allow_unverified:
        raise RunError(
            f"{path} is {trust_sentence(table)}; see `profile check {path}` for what to do, or use it with --allow-unverified"
        )
    return table


def _try_whole_way(
    request: RunRequest,
    options: NetworkOptions,
    model: nn.Module,
    graph: Graph,
    dataset: Dataset,
    tables: Mapping[str, Table],
    progress: ProgressReporter,
) -> None:
    """The dry run of this run, on its first images. Without tables an export that fails is only told, as none may be wanted."""
    short_term = request.settings(dataset).training.recipe.short_term
    few = torch.arange(min(_TRIED_IMAGES, len(dataset.train), short_term.batch_size))
    settings = replace(short_term, epochs=None, steps=1, batch_size=len(few))

    def step(narrow: nn.Module) -> None:
        if not any(weight.requires_grad for weight in narrow.parameters()):
            raise NetworkError(f"no weight of {short_name(options.name)} requires gradients, so nothing in it can be trained")
        train(narrow, dataset.train.subset(few), settings, seed=request.seed)
        score(narrow, dataset.train.subset(few))

    told = [table.info.target for table in tables.values() if table.info.target.runtime in RUNTIMES]
    formats = tuple(each for each in FORMATS if not told or any(target.reads(each) for target in told))
    progress.say("trying the whole way first: narrowing, one training step, export")
    tried = dry_run(options, model, graph, step, formats, required=bool(told))
    for part in tried:
        if part.problem is not None:
            progress.say(f"warning: {short_name(options.name)}: {part.line()}")
    progress.say(f"the whole way works: {'; '.join(part.line() for part in tried if part.problem is None)}")
