"""The Python interface: NetAdapt for a network, a training and a score that are objects of the caller's program.

    import netadapt

    for step in netadapt.adapt(net, images, "latency=60%", "phone.parquet", evaluate=accuracy, fine_tune=train, out="run"):
        print(step.iteration, step.score, step.prices)
    step.export("adapted.onnx")

Everything runs in this process, one candidate after the other. `netadapt run` takes networks, data and tasks by name instead, and
fine-tunes candidates in several processes or on a cluster. The folder of a run is the same: `netadapt history` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from netadapt.errors import NetworkError, RunError, SettingsError
from netadapt.export.files import Exported
from netadapt.input_shape import InputShape
from netadapt.networks.options import NetworkOptions
from netadapt.networks.plain import plain_network
from netadapt.networks.user_network import GIVEN
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
from netadapt.training.types import Metric
from netadapt.users_code import asked_of, users_code
from profiler.layers.graph import Graph
from profiler.progress import ProgressReporter, Shown, shown
from profiler.tables.table import Table

__all__ = ["AdaptSettings", "Adaptation", "AdaptedStep", "ToolError", "adapt", "trace"]

Evaluator = Callable[[nn.Module], float | Mapping[str, float]]
"""The caller's function that scores a network, which it may put into evaluation and onto a device: a number, higher is better, or a
mapping whose first number is the score and whose others are reported beside it. It must not use the test set."""
FineTune = Callable[[nn.Module, int], object]
"""The caller's function that trains a network in place for so many steps."""
_SCORE = "a score from evaluate(model): a finite number, higher is better, or a mapping of names to numbers, the score first"
_TRAINED = "training the network in place for so many steps, from fine_tune(model, steps)"


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedStep:
    """A network of the family: the original, or the winner of an iteration."""

    step: Step
    """All that is recorded of it, its iteration's other candidates among it."""
    model: nn.Module
    """The network with the weights of its short-term fine-tune, in evaluation and on the processor."""
    input_shape: InputShape

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
        return exporter(self.model, self.input_shape, Path(path))


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
    evaluate: Evaluator
    fine_tune: FineTune
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
        goals, free = open_goals(budgets, self.loaded), ("search.max_iterations", "measure")
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
            evaluations = folder.recorded(self._evaluations(models, progress))
            for step in adapted_steps(
                self.graph, open_goals(budgets, growing), evaluations, search, folder.steps, folder.unfinished, check=check
            ):
                folder.add_step(step)
                yield self._found(models, step)

    def _found(self, models: RunModels, step: Step) -> AdaptedStep:
        self.steps.append(step)
        return AdaptedStep(step, models.model(step), self.options.input_shape)

    def _evaluations(self, models: RunModels, progress: ProgressReporter) -> Evaluate:
        def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
            iteration = candidates[0].iteration
            progress.begin(f"iteration {iteration}: fine-tuning {len(candidates)} candidates", len(candidates))
            for candidate in candidates:
                yield self._result(models, parent, candidate)
                progress.advance(candidate.block or "the original network")

        return evaluate

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
            shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
            with asked_of("fine_tune", _TRAINED):
                self.fine_tune(model, steps)
            if {name: tensor.shape for name, tensor in model.state_dict().items()} != shapes:
                raise RunError(f"fine_tune has changed the layers of the network; it is asked for {_TRAINED}")
        save_weights(model.cpu().eval(), models.run.weights_path(weights))
        score, others = self.original if parent is None and self.original else scored(self.evaluate, model)
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
    model: nn.Module,
    example_inputs: Tensor,
    budgets: str | Sequence[str],
    tables: str | Path | Mapping[str, str | Path] | None = None,
    *,
    evaluate: Evaluator,
    fine_tune: FineTune,
    out: str | Path,
    short_term_steps: int = 20,
    search: AdaptSettings | None = None,
    importance: str = "l2",
    measure: bool | None = None,
    allow_unverified: bool = False,
    resume: bool = False,
    progress: Shown = True,
) -> Adaptation:
    """Adapt a trained network to budgets such as "latency=60%" (NetAdapt, Yang et al., 2018); iterate over what it returns.

    `model` is copied and not changed. `example_inputs` are images (n, c, h, w), of which only the shape counts. `tables` is the
    file of a latency table, or several by the names that budgets use, as in "phone.latency=20ms". Each candidate is fine-tuned for
    `short_term_steps` and scored; `search` are the settings of the search. `measure` is whether each winner is measured on the
    tables' devices: on those that can be reached, by default. Everything is kept in the folder `out`, which `resume` goes on with.

    `ToolError` in one sentence for whatever is wrong, before the folder is made: the network is traced, and scored once.
    """
    name = f"{GIVEN}:{type(model).__name__}"
    if not isinstance(example_inputs, Tensor) or example_inputs.ndim != 4:
        raise NetworkError("example_inputs must be one tensor of images (n, c, h, w); networks of one such input can be adapted")
    if importance in IMPORTANCES and IMPORTANCES[importance].needs_images:
        raise SettingsError(f"the importance {importance!r} needs training images, which only `netadapt run` has; use 'l2'")
    paths = {"": Path(tables)} if isinstance(tables, str | Path) else {key: Path(path) for key, path in (tables or {}).items()}
    loaded = {key: trusted(path, allow_unverified=allow_unverified) for key, path in paths.items()}
    texts = (budgets,) if isinstance(budgets, str) else tuple(budgets)
    goals = open_goals(parse_budgets(texts, loaded), loaded)
    _, channels, height, width = example_inputs.shape
    options = NetworkOptions(name, classes=0, input=(1, channels, height, width))
    plain = plain_of(deepcopy(model), options)
    graph = options.traced(plain).graph
    search = search or AdaptSettings()
    if search.candidates != "fine-tune":
        raise SettingsError("candidates are judged in a super-network by `netadapt run` only; leave out AdaptSettings.candidates")
    check_budgets(graph, goals, search)
    continued = resume and is_run(Path(out))
    if not continued:
        refuse_unless_empty(Path(out))
    original = None if continued else scored(evaluate, deepcopy(plain))
    recipe = open_task("classification").recipe.changed(RecipeOverrides(), RecipeOverrides(steps=short_term_steps))
    if continued:
        with RunFolder.open(Path(out)) as folder:
            scores = folder.info.settings.training.scores
    else:
        scores = tuple(Metric(key, key, decimals=4) for key in ("score", *(original[1] if original else ())))
    training = TrainingSettings(f"{GIVEN}:evaluate", recipe, scores=scores)
    settings = RunSettings(options, DataSettings(GIVEN), training, search, PruningSettings(importance), measure)
    facts = {key: TableFacts.of(path, loaded[key]) for key, path in paths.items()}
    versions = {package: version(package) for package in PACKAGES}
    info = RunInfo(settings, texts, datetime.now(UTC).isoformat(timespec="seconds"), versions, facts)
    return Adaptation(
        plain, graph, options, Path(out), info, paths, loaded, evaluate, fine_tune, resume, progress, original
    )  # fmt: skip


def trace(model: nn.Module, example_inputs: Tensor) -> Graph:
    """The layers of a network and their widths, for `profiler.LatencyTable.predict`. `NetworkError` if it cannot be traced."""
    _, channels, height, width = example_inputs.shape
    options = NetworkOptions(f"{GIVEN}:{type(model).__name__}", classes=0, input=(1, channels, height, width))
    return options.traced(plain_of(deepcopy(model), options)).graph


def plain_of(model: nn.Module, options: NetworkOptions) -> nn.Module:
    """The network without wrappers and in float32, in evaluation. `NetworkError` if it does not accept its inputs."""
    shape = "x".join(map(str, options.input_shape))
    with users_code(f"{type(model).__name__} does not accept an input of {shape}"):
        return plain_network(model, options.input_shape, type(model).__name__).model


def scored(evaluate: Evaluator, model: nn.Module) -> tuple[float, Mapping[str, float]]:
    """The score of a network, and the other figures by name. `UsersError` if the function fails, `RunError` for no score."""
    with asked_of("evaluate", _SCORE), torch.no_grad():
        found = evaluate(model)
    try:
        figures = {name: float(value) for name, value in found.items()} if isinstance(found, Mapping) else {"score": float(found)}
    except (TypeError, ValueError) as exc:
        raise RunError(f"evaluate returned {str(found)[:80]}; it is asked for {_SCORE}") from exc
    if not figures or not all(map(math.isfinite, figures.values())):
        raise RunError(f"evaluate returned {str(found)[:80]}; it is asked for {_SCORE}")
    score, *_ = figures.values()
    return score, dict(list(figures.items())[1:])
