"""The comparison of one step with baselines, each of which is found once and then trained with every seed.

Every choice and every trained seed is recorded at once and not repeated. The step and the original are fine-tuned with the same
seeds. The run's search and the training of its original have one seed only: the adapted network's spread over seeds is therefore
that of its long-term fine-tune alone, while the spread of a baseline from random weights is that of its whole training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from netadapt.baselines import BASELINES, BaselineMethod, open_baseline
from netadapt.baselines.match import Match
from netadapt.errors import RunError
from netadapt.executors import ExecutorOptions
from netadapt.runs.finetune import in_order, still_there, trainings_of
from netadapt.runs.records import Baseline, Choice, NetworkSize, RunInfo, TargetName, Trained
from netadapt.runs.training_jobs import Training, TrainingJob, begin_with, train_all
from netadapt.training.this_machine import usable_cores, visible_gpus

FAR_PERCENT = 3.0
"""The largest difference of two measured latencies that still counts as equal; a larger one gets a warning."""


def applicable_kinds(info: RunInfo, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """The kinds of baselines to compare this run with: those in `asked` or, if it is empty, all that apply to the run.

    `RunError` for one that does not apply: without a latency budget no network can be found by its latency. `SettingsError` for an
    unknown kind.
    """
    by_latency = any(goal.measurable for goal in info.goals)
    kinds = {name: open_baseline(name) for name in dict.fromkeys(asked or BASELINES)}
    wrong = [name for name, kind in kinds.items() if kind.needs_latency and not by_latency]
    if asked and wrong:
        raise RunError(
            f"the run has no latency budget, so there is no network of equal latency for {wrong[0]!r}; "
            "use --kind scratch, which trains the adapted shape from random weights"
        )
    return tuple(name for name in kinds if name not in wrong)


def compare(match: Match, names: Sequence[str], *, seed: int, seeds: int = 1) -> list[Baseline]:
    """Find and train these kinds of baselines, and fine-tune the step and the original to convergence with the same seeds.

    `RunError` for step 0; `ToolError` of devices, tables and training.
    """
    models, step = match.models, match.step
    if step.iteration == 0:
        raise RunError(f"step 0 of {models.run.path} is the original network, which needs no baseline; choose a later --step")
    kinds = {name: open_baseline(name) for name in names}
    given = models.run.info.settings.training.weights
    if given and any(kind.from_random_weights for kind in kinds.values()):
        match.progress.say(
            f"warning: the original was not trained by this run but came with the weights {given}; baselines from random weights "
            f"are trained for {match.stages.recipe.from_scratch.epochs or 0:g} epochs instead and may not compare with it"
        )
    choices = {name: _choice(match, kind) for name, kind in kinds.items()}
    trainings = []
    for number in range(seed, seed + seeds):
        trainings += trainings_of(models, (models.step(0), step), match.stages.last, (number,))
        for name, kind in kinds.items():
            trainings += _training_of(match, name, kind, choices[name], number)
    train_all(models, trainings, workers=_at_the_same_time(match.executor), progress=match.progress)
    of_step = {item.kind: item for item in models.run.baselines if item.step == step.iteration}
    return [of_step[name] for name in names]


def _choice(match: Match, kind: BaselineMethod) -> Choice:
    """The recorded choice for the same step and target or, if there is none, a new one, which is recorded."""
    target = TargetName.of(match.target)
    for item in match.models.run.choices:
        same_step = item.step == match.step.iteration and dict(item.step_widths) == dict(match.step.widths)
        if item.shape == kind.shape and same_step and item.target == target:
            return item
    found = kind.choose(match)
    match.models.run.add_choice(found)
    if found.measured_ms is not None and found.step_ms is not None:
        off = 100 * (found.measured_ms.value / found.step_ms.value - 1)
        warning = "warning: no network is as fast as the step, the nearest is " if abs(off) > FAR_PERCENT else ""
        both = f"{found.measured_ms.value:.3f} ms measured, the step {found.step_ms.value:.3f} ms ({off:+.1f} %)"
        match.progress.say(f"{warning}{kind.title} {found.label}: {both}")
    return found


def _at_the_same_time(options: ExecutorOptions) -> int:
    """The number of networks to train at the same time: as many as candidates, but not on a cluster."""
    if options.name != "processes":
        return 1
    return options.workers or len(visible_gpus()) or len(usable_cores())


def _training_of(match: Match, name: str, kind: BaselineMethod, choice: Choice, seed: int) -> list[Training]:
    """The training of the chosen network with this seed; none if the same is recorded and its weights exist."""
    models, stages = match.models, kind.stages(match)
    training = (kind.origin(match, choice), *(stage.text for stage in stages))
    label = f"{name}-{choice.label}-as-step{match.step.iteration:03d}"
    if any(item.seed == seed for item in _trained(match, name, label, choice, training)):
        return []
    weights = f"baseline-{label}-seed{seed}.pt"
    begin = begin_with(models, kind.begin(match, choice, seed), weights)
    what = f"{'; '.join(training)}; seed {seed}"
    job = TrainingJob(
        str(models.run.path.resolve()), f"training of {kind.title}, seed {seed}", choice.widths, str(begin.resolve()), stages, seed,
        weights, what,
    )  # fmt: skip
    return [Training(job, weights.removesuffix(".pt"), partial(_record, match, name, label, choice, training))]


def _trained(match: Match, name: str, label: str, choice: Choice, training: tuple[str, ...]) -> tuple[Trained, ...]:
    """The recorded trainings of this network that were the same but for the seed, and whose weights still exist."""
    for before in match.models.run.baselines:
        same = (before.training, before.name, dict(before.size.widths)) == (training, label, dict(choice.widths))
        if (before.kind, before.step) == (name, match.step.iteration) and same:
            return still_there(match.models, before.runs)
    return ()


def _record(match: Match, name: str, label: str, choice: Choice, training: tuple[str, ...], trained: Trained) -> None:
    models, step = match.models, match.step.iteration
    done = _trained(match, name, label, choice, training)
    before = next((item for item in models.run.baselines if (item.kind, item.step) == (name, step)), None)
    if done and before is not None:
        models.run.add_baseline(replace(before, runs=in_order((*done, trained))))
        return
    graph = models.graph(choice.widths)
    predicted = None if match.table is None else match.table.predict(graph).latency_ms
    size = NetworkSize(choice.widths, graph.macs, graph.parameters)
    models.run.add_baseline(
        Baseline(label, name, step, TargetName.of(match.target), size, training, (trained,), predicted_ms=predicted)
    )
