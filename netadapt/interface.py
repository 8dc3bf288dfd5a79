"""The Python interface: NetAdapt for a network, a training and a score that are objects of the caller's program.

    import netadapt

    for step in netadapt.adapt(net, images, "latency=60%", "phone.parquet", evaluate=accuracy, fine_tune=train, out="run"):
        print(step.iteration, step.score, step.prices)
    step.export("adapted.onnx")

Everything runs in this process, one candidate after the other. Where the network and both functions are given by name, such as
"train.py:accuracy", candidates are fine-tuned in several processes or on a cluster: nothing is pickled. The folder of a run is that
of `netadapt run`: `netadapt history` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from device_agents.support.errors import ToolError
from netadapt.adaptation import own_tables, trusted
from netadapt.errors import NetworkError, SettingsError
from netadapt.executors import ExecutorOptions, Observers, open_executor
from netadapt.executors.functions import Evaluator, FineTune, Functions
from netadapt.executors.jobs import CandidateJobs
from netadapt.export.files import Exported
from netadapt.input_shapes import InputShapes, shapes_text, with_count
from netadapt.networks.options import NetworkOptions
from netadapt.networks.plain import plain_network
from netadapt.networks.user_network import GIVEN, source_facts
from netadapt.pruning.importance import IMPORTANCES
from netadapt.pruning.prune import prune
from netadapt.pruning.settings import PruningSettings
from netadapt.resources import open_goals, parse_budgets
from netadapt.runs.device_check import DeviceCheck, within_reach
from netadapt.runs.measure import EXPORTERS
from netadapt.runs.models import RunModels
from netadapt.runs.opening import PACKAGES
from netadapt.runs.records import RunInfo, TableFacts
from netadapt.runs.run_folder import RunFolder, is_run, refuse_unless_empty, weights_name
from netadapt.search.candidates import Candidate
from netadapt.search.loop import adapt as adapted_steps
from netadapt.search.loop import check_budgets
from netadapt.search.types import AdaptSettings, Evaluate, Result, Step
from netadapt.settings import DataSettings, RunSettings, TrainingSettings
from netadapt.training.checkpoint import load_weights, save_weights
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.tasks import open_task
from netadapt.training.trees import Inputs, each_of, shape_of
from netadapt.training.types import Metric
from netadapt.users_code import absolute_name, sources, users_code
from profiler.layers.graph import Graph
from profiler.progress import ProgressReporter, Shown, shown
from profiler.tables.table import Table

__all__ = ["AdaptSettings", "Adaptation", "AdaptedStep", "ToolError", "adapt", "trace"]


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedStep:
    """A network of the family: the original, or the winner of an iteration."""

    step: Step
    """All that is recorded of it, its iteration's other candidates among it."""
    model: nn.Module
    """The network with the weights of its short-term fine-tune, in evaluation and on the processor."""
    input_shapes: InputShapes
    """The shapes of the network's inputs, each of one example."""

    @property
    def iteration(self) -> int:
        """0 for the original network."""
        return self.step.iteration

    @property
    def score(self) -> float:
        return self.step.accuracy

    @property
    def prices(self) -> Mapping[str, float]:
        """The predicted price for each budget, in its resource's unit."""
        return self.step.prices

    @property
    def widths(self) -> Mapping[str, int]:
        """The width of each block, in channels."""
        return self.step.widths

    def export(self, path: str | Path) -> Exported:
        """Write the network as an .onnx or .tflite file, which is kept only if its runtime computes the same as PyTorch.

        `SettingsError` for another ending, `ExportError` if the file is not kept.
        """
        exporter = EXPORTERS.get(Path(path).suffix.lstrip("."))
        if exporter is None:
            raise SettingsError(f"{path} is no name of a file that can be exported; let it end in .onnx or .tflite")
        return exporter(self.model, self.input_shapes, Path(path))


@dataclass(slots=True, eq=False)
class Adaptation:
    """A run, which goes on while it is iterated over: each step is recorded in the run's folder before it is yielded."""

    model: nn.Module
    graph: Graph
    options: NetworkOptions
    out: Path
    info: RunInfo
    tables: Mapping[str, Path]
    loaded: Mapping[str, Table]
    functions: Functions
    executor: ExecutorOptions | None
    """Where candidates are fine-tuned; None for this process."""
    resume: bool
    progress: Shown
    original: tuple[float, Mapping[str, float]] | None
    """The score and the other figures of the original network; None where the run goes on and knows them."""
    steps: list[Step] = field(default_factory=list)
    """The steps so far."""

    def __iter__(self) -> Iterator[AdaptedStep]:
        """The steps, those of a continued run that are recorded already among them.

        `BudgetError` if pruning no longer reduces the prices or the iterations are used up, `UsersError` if one of the caller's
        functions fails; everything finished is kept, and `resume=True` goes on from there.
        """
        self.steps.clear()
        budgets, search = parse_budgets(self.info.budgets, self.loaded), self.info.settings.search
        goals = open_goals(budgets, self.loaded)
        free = ("search.max_iterations", "measure", "training.evaluate", "training.fine_tune")
        with (
            shown(self.progress) as progress,
            RunFolder.create(self.out, self.info, self.graph, resume=self.resume, free=free) as folder,
        ):
            models = RunModels(folder, original=self.model)
            growing = own_tables(self.tables, folder, progress)
            reached = within_reach(goals, self.loaded, self.info.settings.measure, progress)
            measured = {goal.name: growing[goal.budget.table] for goal in goals if goal.name in reached}
            check = DeviceCheck(models, measured, progress) if measured else None
            for step in folder.steps:
                yield self._found(models, step)
            with self._evaluations(models, progress) as evaluate:
                for step in adapted_steps(
                    self.graph, open_goals(budgets, growing), folder.recorded(evaluate), search, folder.steps, folder.unfinished,
                    check=check,
                ):  # fmt: skip
                    folder.add_step(step)
                    yield self._found(models, step)

    def _found(self, models: RunModels, step: Step) -> AdaptedStep:
        self.steps.append(step)
        return AdaptedStep(step, models.model(step), self.options.input_shapes)

    @contextmanager
    def _evaluations(self, models: RunModels, progress: ProgressReporter) -> Iterator[Evaluate]:
        """The evaluation of candidates, by workers if there are any; the original network is scored here."""

        def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
            iteration = candidates[0].iteration
            progress.begin(f"iteration {iteration}: fine-tuning {len(candidates)} candidates", len(candidates))
            for candidate in candidates:
                yield self._result(models, parent, candidate)
                progress.advance(candidate.block or "the original network")

        if self.executor is None:
            yield evaluate
            return
        with open_executor(self.executor, CandidateJobs.for_run(models), Observers(progress)) as by_workers:
            yield lambda parent, candidates: (evaluate if parent is None else by_workers)(parent, candidates)

    def _result(self, models: RunModels, parent: Step | None, candidate: Candidate) -> Result:
        """Prune, fine-tune and score a candidate. Of a rung, the network of the rung before is trained on."""
        rung, settings = candidate.rung, self.info.settings
        weights = weights_name(candidate.iteration, candidate.block, rung.name if rung else "")
        if parent is None:
            model = deepcopy(self.model)
        elif rung is not None and rung.weights is not None:
            model = models.shaped(candidate.widths)
            load_weights(model, models.run.weights_path(rung.weights))
        else:
            start = models.model(parent, finished=False)
            model = prune(start, models.graph(parent.widths), candidate.widths, settings.pruning.importance)
        steps = 0 if parent is None else settings.training.recipe.short_term.steps or 0
        steps = rung.steps(steps) if rung else steps
        if steps:
            self.functions.train(model, steps, settings.seed + (rung.number if rung else 0))
        save_weights(model, models.run.weights_path(weights))
        score, others = self.original if parent is None and self.original else self.functions.score(model)
        return Result(candidate, score, weights, others)

    def _repr_html_(self) -> str:
        """What a notebook shows: the steps so far."""
        rows = ""
        for step in self.steps:
            pruned = escape(", ".join(step.blocks)) or "the original"
            prices = escape(", ".join(f"{name} {price:.4g}" for name, price in step.prices.items()))
            rows += f"<tr><td>{step.iteration}</td><td>{pruned}</td><td>{prices}</td><td>{step.accuracy:.4g}</td></tr>"
        head = "<tr><th>step</th><th>pruned</th><th>predicted</th><th>score</th></tr>"
        return f"<p><b>{escape(str(self.out))}</b>: {len(self.steps)} steps</p><table>{head}{rows}</table>"


def adapt(
    model: nn.Module | str,
    example_inputs: Inputs,
    budgets: str | Sequence[str],
    tables: str | Path | Mapping[str, str | Path] | None = None,
    *,
    evaluate: Evaluator | str,
    fine_tune: FineTune | str,
    out: str | Path,
    short_term_steps: int = 20,
    search: AdaptSettings | None = None,
    importance: str = "l2",
    measure: bool | None = None,
    allow_unverified: bool = False,
    resume: bool = False,
    workers: int | None = None,
    ray_address: str | None = None,
    progress: Shown = True,
) -> Adaptation:
    """Adapt a trained network to budgets such as "latency=60%" (NetAdapt, Yang et al., 2018); iterate over what it returns.

    `model` is copied and not changed. `example_inputs` are images (n, c, h, w) or any other tensor, or a tuple of several where the
    network takes several; only their shapes count, and whether they are whole numbers of 32 or 64 bits, such as token ids. `tables`
    is the file of a latency table, or several by the names that budgets use, as in "phone.latency=20ms". Each candidate is trained
    for `short_term_steps` and scored; `search` are the settings of the search. `measure` is whether each winner is measured on the
    tables' devices: on those that can be reached, by default. Everything is kept in the folder `out`, which `resume` goes on with.

    The network and the functions may be names, such as "train.py:accuracy" or "mypkg.train:accuracy"; that of the network is a
    function that returns it with its weights. With all three by name, `workers` processes fine-tune candidates at the same time, or
    the Ray cluster at `ray_address` does.

    `ToolError` in one sentence for whatever is wrong, before the folder is made: the network is traced, and scored once.
    """
    given = {"the network": model, "evaluate": evaluate, "fine_tune": fine_tune}
    objects = [what for what, value in given.items() if not isinstance(value, str)]
    if (workers is not None or ray_address is not None) and objects:
        raise SettingsError(
            f"other processes are told names, as nothing is pickled, but {' and '.join(objects)} came as an object; "
            'give names such as "train.py:accuracy", or leave workers and ray_address out'
        )
    functions = Functions.named(evaluate, fine_tune)
    executor = None
    if workers is not None or ray_address is not None:
        executor = ExecutorOptions.chosen("ray" if ray_address else None, workers, None, ray_address or "auto")
        executor.require()
    name = absolute_name(model) if isinstance(model, str) else f"{GIVEN}:{type(model).__name__}"
    inputs = shapes_text(shapes_of(example_inputs))
    if importance in IMPORTANCES and IMPORTANCES[importance].needs_images:
        raise SettingsError(f"the importance {importance!r} needs training images, which only `netadapt run` has; use 'l2'")
    paths = {"": Path(tables)} if isinstance(tables, str | Path) else {key: Path(path) for key, path in (tables or {}).items()}
    loaded = {key: trusted(path, allow_unverified=allow_unverified) for key, path in paths.items()}
    texts = (budgets,) if isinstance(budgets, str) else tuple(budgets)
    goals = open_goals(parse_budgets(texts, loaded), loaded)
    options = NetworkOptions(name, classes=0, inputs=inputs)
    plain = options.build() if isinstance(model, str) else plain_of(deepcopy(model), options)
    graph = options.traced(plain).graph
    search = search or AdaptSettings()
    if search.candidates != "fine-tune":
        raise SettingsError("candidates are judged in a super-network by `netadapt run` only; leave out AdaptSettings.candidates")
    check_budgets(graph, goals, search)
    continued = resume and is_run(Path(out))
    if not continued:
        refuse_unless_empty(Path(out))
    original = None if continued else functions.score(deepcopy(plain))
    recipe = open_task("classification").recipe.changed(RecipeOverrides(), RecipeOverrides(steps=short_term_steps))
    if continued:
        with RunFolder.open(Path(out)) as folder:
            scores = folder.info.settings.training.scores
    else:
        scores = tuple(Metric(key, key, decimals=4) for key in ("score", *(original[1] if original else ())))
    names = [absolute_name(function) if isinstance(function, str) else None for function in (evaluate, fine_tune)]
    training = TrainingSettings(f"{GIVEN}:evaluate", recipe, scores=scores, evaluate=names[0], fine_tune=names[1])
    settings = RunSettings(options, DataSettings(GIVEN), training, search, PruningSettings(importance), measure)
    facts = {key: TableFacts.of(path, loaded[key]) for key, path in paths.items()}
    versions = {package: version(package) for package in PACKAGES} | source_facts(name) | sources(filter(None, names))
    info = RunInfo(settings, texts, datetime.now(UTC).isoformat(timespec="seconds"), versions, facts)
    return Adaptation(
        plain, graph, options, Path(out), info, paths, loaded, functions, executor, resume, progress, original
    )  # fmt: skip


def trace(model: nn.Module, example_inputs: Inputs) -> Graph:
    """The layers of a network and their widths, for `profiler.LatencyTable.predict`. `NetworkError` if it cannot be traced.

    `example_inputs` as for `adapt`.
    """
    options = NetworkOptions(f"{GIVEN}:{type(model).__name__}", classes=0, inputs=shapes_text(shapes_of(example_inputs)))
    return options.traced(plain_of(deepcopy(model), options)).graph


def shapes_of(example_inputs: Inputs) -> InputShapes:
    """The shapes of one example of each. `NetworkError` for anything but one tensor or a tuple of them, with a first dimension."""
    several = each_of(example_inputs)
    if not isinstance(several, tuple) or not several or not all(isinstance(each, Tensor) and each.ndim > 1 for each in several):
        raise NetworkError("example_inputs must be a tensor such as images (n, c, h, w), or a tuple of tensors for several inputs")
    return tuple(with_count(shape_of(each), 1) for each in several)


def plain_of(model: nn.Module, options: NetworkOptions) -> nn.Module:
    """The network without wrappers and in float32, in evaluation. `NetworkError` if it does not accept its inputs."""
    shape = shapes_text(options.input_shapes)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as exporters take it, by which it is traced
    with users_code(f"{type(model).__name__} does not accept an input of {shape}"):
        return plain_network(model, options.input_shapes, type(model).__name__).model
