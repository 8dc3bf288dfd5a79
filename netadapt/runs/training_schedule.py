"""How a run's networks are trained, stage by stage, so that whatever is compared with them can be trained alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from netadapt.errors import RunError
from netadapt.runs.records import Finished
from netadapt.settings import RunSettings
from netadapt.training.recipe import Recipe, RecipeOverrides, TrainSettings
from netadapt.training.trainer import train
from netadapt.training.types import Dataset, Part
from profiler.progress import ProgressReporter

FROM_SCRATCH = "from random weights"
"""What records hold in place of a file of weights, for a training that began with none."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of training."""

    what: str
    settings: TrainSettings
    with_holdout: bool = False
    """True if the holdout images are trained on too, which is only fair once nothing more is chosen by them."""

    @property
    def text(self) -> str:
        """Everything that shapes the result, as it is recorded."""
        values = ", ".join(f"{name} {value}" for name, value in asdict(self.settings).items() if value is not None)
        return f"{self.what}{' with the holdout' if self.with_holdout else ''}: {values}"

    def part(self, dataset: Dataset) -> Part:
        return whole_training_part(dataset) if self.with_holdout else dataset.train


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of training of a run's networks: the original, a candidate, and a step at the end."""

    recipe: Recipe
    short_term: bool = True
    """False for a run whose candidates are judged in a super-network, and not trained."""

    def from_scratch(self, iterations: int) -> tuple[Stage, ...]:
        """All stages of a step that is `iterations` from the original: as many training steps at the same learning rates."""
        return (Stage("training", self.recipe.from_scratch), *self.pruned(iterations))

    def pruned(self, iterations: int) -> tuple[Stage, ...]:
        """The stages after the original's training, for a network that comes from the trained original."""
        steps = iterations * (self.recipe.short_term.steps or 0) if self.short_term else 0
        short = (Stage("short-term fine-tune", replace(self.recipe.short_term, epochs=None, steps=steps)),) if steps else ()
        return (*short, self.last)

    @property
    def last(self) -> Stage:
        """The long-term fine-tune, on training and holdout images."""
        return Stage("long-term fine-tune", self.recipe.long_term, with_holdout=True)


def stages_of(settings: RunSettings, long_term: RecipeOverrides) -> Stages:
    """The stages of a run with these settings, its long-term fine-tune with these numbers in place of the recipe's."""
    recipe = settings.training.recipe
    judged_after_training = settings.search.candidates == "fine-tune"
    return Stages(replace(recipe, long_term=long_term.applied_to(recipe.long_term)), judged_after_training)


def as_before(record: Finished | None, epochs: float | None = None) -> RecipeOverrides:
    """The overrides that make a long-term fine-tune the same as a recorded one; `epochs` takes the place of the recorded number."""
    if record is None or record.training[0] == FROM_SCRATCH:  # which was no fine-tune
        return RecipeOverrides(epochs=epochs)
    settings = record.settings
    return RecipeOverrides(
        settings.learning_rate, epochs or settings.epochs, None, settings.batch_size, settings.augment, settings.schedule,
        settings.precision, settings.label_smoothing, settings.distill, settings.temperature, settings.ema,
    )  # fmt: skip


def advancing(progress: ProgressReporter) -> Callable[[int, float], None]:
    """What shows a training's progress, called with the number of steps done and the loss; one that goes on has steps already."""
    seen = 0

    def tell(done: int, loss: float) -> None:
        nonlocal seen
        for _ in range(done - seen):
            progress.advance(f"loss {loss:.3f}")
        seen = done

    return tell


def train_through(
    model: nn.Module,
    dataset: Dataset,
    stages: Sequence[Stage],
    *,
    seed: int,
    name: str,
    progress: ProgressReporter,
    teacher: Callable[[], nn.Module],
) -> None:
    """Train through one stage after the other, in place. `teacher` loads the network that is distilled, where a stage does so."""
    for stage in stages:
        part = stage.part(dataset)
        progress.begin(f"{stage.what} of {name}", stage.settings.steps_for(len(part)))

        def tell(_done: int, _all: int, loss: float) -> None:
            progress.advance(f"loss {loss:.3f}")

        taught_by = teacher() if stage.settings.distill else None
        train(model, part, stage.settings, seed=seed, progress=tell, teacher=taught_by)


def whole_training_part(dataset: Dataset) -> Part:
    """Training and holdout images together."""
    return dataset.train.joined(dataset.holdout)


def origin(path: Path) -> str:
    """The name and hash of a file of weights, as records hold them. `RunError` if the file cannot be read."""
    try:
        return f"from {path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    except OSError as exc:
        raise RunError(f"there are no weights at {path}; restore the file or give the path of another") from exc
