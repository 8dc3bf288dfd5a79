"""The long-term fine-tune: a step's network is trained to convergence on all training pictures, the holdout among them.

The choice among candidates is made by then, so the holdout has done its work (Yang et al., 2018, section 3). The test pictures are
looked at here for the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from netadapt.checkpoint import save_weights
from netadapt.datasets import Dataset, Part
from netadapt.event_log import EventLog
from netadapt.family import Family
from netadapt.records import Finished
from netadapt.run_folder import weights_name
from netadapt.training import Changes, Progress, TrainSettings, score, train
from profiler.progress import Work


def finish(
    family: Family,
    numbers: Sequence[int | None],
    asked: Changes,
    *,
    seed: int,
    progress: Work,
    log: EventLog | None = None,
) -> list[Finished]:
    """Fine-tune these steps (None: the last) and record what they reach on the test pictures."""
    done, settings = [], long_term(family, asked)
    part = whole_training_part(family.dataset)
    for number in numbers:
        step = family.step(number)
        model = family.model(step, finished=False)
        progress.begin(f"long-term fine-tune of step {step.iteration}", settings.steps_for(len(part)))
        train(model, part, settings, seed=seed, progress=_told(progress, log, f"finished-{step.iteration:03d}"))
        name = weights_name(step.iteration, step.block, "finished")
        save_weights(model, family.run.weights_path(name))
        scores = score(model, family.dataset.test)
        record = Finished(
            step.iteration, name, scores.accuracy, settings.epochs or 0.0, scores.metrics, settings.learning_rate,
            settings.batch_size, settings.augment,
        )  # fmt: skip
        family.run.add_finished(record)
        done.append(record)
    return done


def long_term(family: Family, asked: Changes) -> TrainSettings:
    """The task's, in batches of the run's size and with random changes to pictures if the run had them, and what is asked for."""
    before = family.run.info.settings
    as_before = Changes(batch_size=before["batch_size"], augment=before.get("augment"))
    return asked.of(as_before.of(family.dataset.task.recipe.long_term))


def _told(progress: Work, log: EventLog | None, what: str) -> Progress:
    def tell(done: int, _all: int, loss: float) -> None:
        progress.advance(f"loss {loss:.3f}")
        if log is not None:
            log.loss(what, done, loss)

    return tell


def whole_training_part(dataset: Dataset) -> Part:
    """Training and holdout pictures together."""
    parts = (dataset.train, dataset.holdout)
    images, targets = torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts])
    return replace(dataset.train, images=images, targets=targets)
