"""The long-term fine-tune: a step's network is trained to convergence on all training images, the holdout among them.

The choice among candidates is made by then, so the holdout has done its work (Yang et al., 2018, section 3). The test images are
used here for the first time. What may be distilled is the original as the run has trained it or was given it, before it is
fine-tuned itself: the same for every network, baselines included. With several seeds the fine-tune is repeated, from the same
weights, on other batches: the spread of the results shows which differences between networks are chance.
"""

from __future__ import annotations

from collections.abc import Sequence

from netadapt.errors import SettingsError
from netadapt.runs.distributed import TogetherJob, train_together
from netadapt.runs.event_log import EventLog
from netadapt.runs.models import RunModels, randomly_initialised
from netadapt.runs.records import Finished, Trained
from netadapt.runs.run_folder import weights_name
from netadapt.runs.training_schedule import FROM_SCRATCH, Stage, Stages, advancing, origin, stages_of
from netadapt.search.types import Step
from netadapt.training.checkpoint import load_weights, save_weights
from netadapt.training.interrupted import Interrupted
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.together import Share
from netadapt.training.trainer import score, train
from profiler.progress import ProgressReporter


def finish(
    models: RunModels,
    numbers: Sequence[int | None],
    asked: RecipeOverrides,
    *,
    seed: int,
    seeds: int = 1,
    processes: int = 1,
    from_scratch: bool = False,
    progress: ProgressReporter,
    log: EventLog | None = None,
) -> list[Finished]:
    """Fine-tune these steps (None: the last) with `seeds` seeds from `seed` on, and record their scores on the test images.

    With `from_scratch` they begin with random weights, and `asked` replaces numbers of the original network's training.
    `SettingsError` if several processes are to train together then.
    """
    if from_scratch and processes > 1:
        raise SettingsError("--from-scratch trains in one process; leave out --processes")
    if from_scratch:
        stage = Stage("training", asked.applied_to(models.run.info.settings.training.recipe.from_scratch), with_holdout=True)
        for number in range(seed, seed + seeds):
            for place in numbers:
                _finish_once(models, models.step(place), stage, number, 1, progress, log, from_scratch=True)
        return [models.run.finished[models.step(place).iteration] for place in numbers]
    stages = stages_of(models.run.info.settings, asked)
    return finish_with(models, numbers, stages, seed=seed, seeds=seeds, processes=processes, progress=progress, log=log)


def finish_with(
    models: RunModels,
    numbers: Sequence[int | None],
    stages: Stages,
    *,
    seed: int,
    seeds: int = 1,
    processes: int = 1,
    progress: ProgressReporter,
    log: EventLog | None = None,
) -> list[Finished]:
    """Fine-tune these steps through the last of the stages, each by so many processes together.

    A training already recorded for the same weights is not repeated, and one that was interrupted goes on. `SettingsError` for
    batches that the processes cannot share alike.
    """
    Share(0, processes).require(stages.last.settings.batch_size)
    steps = [models.step(number) for number in numbers]
    for number in range(seed, seed + seeds):
        for step in steps:
            _finish_once(models, step, stages.last, number, processes, progress, log)
    return [models.run.finished[step.iteration] for step in steps]


def _finish_once(
    models: RunModels,
    step: Step,
    stage: Stage,
    seed: int,
    processes: int,
    progress: ProgressReporter,
    log: EventLog | None,
    *,
    from_scratch: bool = False,
) -> None:
    run, number, settings = models.run, step.iteration, stage.settings
    training = (FROM_SCRATCH if from_scratch else origin(run.weights_path(step.weights)), stage.text)
    before = run.finished.get(number)
    done = still_there(models, before.runs) if before is not None and before.training == training else ()
    if any(item.seed == seed for item in done):
        return
    what = f"finished-{number:03d}" if not done else f"finished-{number:03d}-seed{seed}"
    weights = weights_name(number, step.block, f"finished-{seed}")
    unfinished = Interrupted(run.weights_path(f"{what}.unfinished"), f"{'; '.join(training)}; seed {seed}")
    part, advance = stage.part(models.dataset), advancing(progress)
    progress.begin(f"{stage.what} of step {number}, seed {seed}", settings.steps_for(len(part)))

    def tell(at: int, loss: float) -> None:
        advance(at, loss)
        if log is not None:
            log.loss(what, at, loss)

    if processes > 1:
        job = TogetherJob(
            str(run.path.resolve()), number, settings, stage.with_holdout, seed, weights, str(unfinished.path.resolve()),
            unfinished.what,
        )  # fmt: skip
        train_together(job, processes, tell)
        model = models.shaped(step.widths)
        load_weights(model, run.weights_path(weights))
    else:
        model = randomly_initialised(models, step.widths, seed) if from_scratch else models.model(step, finished=False)
        train(
            model, part, settings, seed=seed, progress=lambda at, _all, loss: tell(at, loss), interrupted=unfinished,
            teacher=models.teacher() if settings.distill else None,
        )  # fmt: skip
        save_weights(model, run.weights_path(weights))
    scores = score(model, models.dataset.test)
    run.add_finished(Finished(number, settings, training, (*done, Trained(seed, weights, scores.accuracy, scores.metrics))))
    unfinished.done()


def still_there(models: RunModels, runs: Sequence[Trained]) -> tuple[Trained, ...]:
    """The trainings whose weights still exist."""
    return tuple(item for item in runs if models.run.weights_path(item.weights).exists())
