"""The long-term fine-tune: a step's network is trained to convergence on all training images, the holdout among them.

The choice among candidates is made by then, so the holdout has done its work (Yang et al., 2018, section 3). The test images are
used here for the first time. What may be distilled is the original as the run has trained it or was given it, before it is
fine-tuned itself: the same for every network, baselines included. With several seeds the fine-tune is repeated, from the same
weights, on other batches: the spread of the results shows which differences between networks are chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product

from netadapt.runs.event_log import EventLog
from netadapt.runs.models import RunModels, randomly_initialised
from netadapt.runs.records import Finished, Trained
from netadapt.runs.run_folder import weights_name
from netadapt.runs.training_jobs import Training, TrainingJob, begin_with, train_all
from netadapt.runs.training_schedule import FROM_SCRATCH, Stage, origin, stages_of
from netadapt.search.types import Step
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.together import Share
from profiler.progress import ProgressReporter


def finish(
    models: RunModels,
    numbers: Sequence[int | None],
    asked: RecipeOverrides,
    *,
    seed: int,
    seeds: int = 1,
    processes: int = 1,
    workers: int = 1,
    from_scratch: bool = False,
    progress: ProgressReporter,
    log: EventLog | None = None,
) -> list[Finished]:
    """Fine-tune these steps (None: the last) with `seeds` seeds from `seed` on, and record their scores on the test images.

    With `from_scratch` they begin with random weights, and `asked` replaces numbers of the original network's training. Each
    training is shared by `processes` processes, or `workers` networks are trained at the same time. A training already recorded for
    the same weights is not repeated, and one that was interrupted goes on. `SettingsError` for batches that the processes cannot
    share alike.
    """
    settings = models.run.info.settings
    if from_scratch:
        stage = Stage("training", asked.applied_to(settings.training.recipe.from_scratch), with_holdout=True)
    else:
        stage = stages_of(settings, asked).last
    Share(0, processes).require(stage.settings.batch_size)
    steps = [models.step(number) for number in numbers]
    trainings = trainings_of(models, steps, stage, range(seed, seed + seeds), from_scratch=from_scratch)
    train_all(models, trainings, processes=processes, workers=workers, progress=progress, log=log)
    return [models.run.finished[step.iteration] for step in steps]


def trainings_of(
    models: RunModels, steps: Sequence[Step], stage: Stage, seeds: Iterable[int], *, from_scratch: bool = False
) -> list[Training]:
    """The trainings of these steps that are not recorded yet, those of one seed after those of another."""
    found = []
    for seed, step in product(seeds, {step.iteration: step for step in steps}.values()):  # the last may be the original
        run, number = models.run, step.iteration
        begin = run.weights_path(step.weights)
        training = (FROM_SCRATCH if from_scratch else origin(begin), stage.text)
        if any(item.seed == seed for item in _finished(models, number, training)):
            continue
        weights = weights_name(number, step.block, f"finished-{seed}")
        what = f"{'; '.join(training)}; seed {seed}"
        name = f"{stage.what} of step {number}, seed {seed}"
        if from_scratch:
            begin = begin_with(models, randomly_initialised(models, step.widths, seed), weights)
        job = TrainingJob(str(run.path.resolve()), name, step.widths, str(begin.resolve()), (stage,), seed, weights, what)
        found.append(Training(job, f"finished-{number:03d}-seed{seed}", partial(_record, models, number, stage, training)))
    return found


def _record(models: RunModels, number: int, stage: Stage, training: tuple[str, ...], trained: Trained) -> None:
    before = _finished(models, number, training)
    models.run.add_finished(Finished(number, stage.settings, training, in_order((*before, trained))))


def _finished(models: RunModels, number: int, training: tuple[str, ...]) -> tuple[Trained, ...]:
    """The recorded trainings of this step that were the same but for the seed, and whose weights still exist."""
    before = models.run.finished.get(number)
    return still_there(models, before.runs) if before is not None and before.training == training else ()


def in_order(runs: Iterable[Trained]) -> tuple[Trained, ...]:
    """The trainings by seed, as those side by side end in any order and the weights of the first one are exported and measured."""
    return tuple(sorted(runs, key=lambda item: item.seed))


def still_there(models: RunModels, runs: Sequence[Trained]) -> tuple[Trained, ...]:
    """The trainings whose weights still exist."""
    return tuple(item for item in runs if models.run.weights_path(item.weights).exists())
