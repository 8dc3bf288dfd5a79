"""The long-term fine-tune: a step's network is trained to convergence on all training images, the holdout among them.

The choice among candidates is made by then, so the holdout has done its work (Yang et al., 2018, section 3). The test images are
used here for the first time. What may be distilled is the original as the run has trained it or was given it, before it is
fine-tuned itself: the same for every network, baselines included. With several seeds the fine-tune is repeated, from the same
weights, on other batches: the spread of the results shows which differences between networks are chance.
"""

from __future__ import annotations

from collections.abc import Sequence

from netadapt.runs.event_log import EventLog
from netadapt.runs.models import RunModels
from netadapt.runs.records import Finished, Trained
from netadapt.runs.run_folder import weights_name
from netadapt.runs.training_schedule import Stage, Stages, origin, stages_of, train_through
from netadapt.search.types import Step
from netadapt.training.checkpoint import save_weights
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.trainer import score
from profiler.progress import ProgressReporter


def finish(
    models: RunModels,
    numbers: Sequence[int | None],
    asked: RecipeOverrides,
    *,
    seed: int,
    seeds: int = 1,
    progress: ProgressReporter,
    log: EventLog | None = None,
) -> list[Finished]:
    """Fine-tune these steps (None: the last) with `seeds` seeds from `seed` on, and record their scores on the test images."""
    return finish_with(
        models, numbers, stages_of(models.run.info.settings, asked), seed=seed, seeds=seeds, progress=progress, log=log
    )


def finish_with(
    models: RunModels,
    numbers: Sequence[int | None],
    stages: Stages,
    *,
    seed: int,
    seeds: int = 1,
    progress: ProgressReporter,
    log: EventLog | None = None,
) -> list[Finished]:
    """Fine-tune these steps through the last of the stages; a training already recorded for the same weights is not repeated."""
    steps = [models.step(number) for number in numbers]
    for number in range(seed, seed + seeds):
        for step in steps:
            _finish_once(models, step, stages.last, number, progress, log)
    return [models.run.finished[step.iteration] for step in steps]


def _finish_once(models: RunModels, step: Step, stage: Stage, seed: int, progress: ProgressReporter, log: EventLog | None) -> None:
    run, number = models.run, step.iteration
    training = (origin(run.weights_path(step.weights)), stage.text)
    before = run.finished.get(number)
    done = still_there(models, before.runs) if before is not None and before.training == training else ()
    if any(item.seed == seed for item in done):
        return
    model = models.model(step, finished=False)
    what = f"finished-{number:03d}" if not done else f"finished-{number:03d}-seed{seed}"
    name = f"step {number}, seed {seed}"
    loss = (lambda _step, _loss: None) if log is None else (lambda at, found: log.loss(what, at, found))
    train_through(model, models.dataset, (stage,), seed=seed, name=name, progress=progress, loss=loss, teacher=models.teacher)
    weights = weights_name(number, step.block, f"finished-{seed}")
    save_weights(model, run.weights_path(weights))
    scores = score(model, models.dataset.test)
    run.add_finished(Finished(number, stage.settings, training, (*done, Trained(seed, weights, scores.accuracy, scores.metrics))))


def still_there(models: RunModels, runs: Sequence[Trained]) -> tuple[Trained, ...]:
    """The trainings whose weights still exist."""
    return tuple(item for item in runs if models.run.weights_path(item.weights).exists())
