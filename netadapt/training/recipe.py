"""The settings of one training, a task's recipe of three trainings, and the user's overrides of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from netadapt.errors import SettingsError

SCHEDULES = ("constant", "cosine", "one_cycle")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_WARM_UP = 0.3  # share of a one-cycle schedule in which the learning rate rises
_FIRST_RATE = 1 / 25  # what it starts from, of its highest


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The length and the hyperparameters of one training. `SettingsError` if a value is out of range."""

    learning_rate: float
    """The highest learning rate of the schedule."""
    epochs: float | None = None
    steps: int | None = None
    """The number of training steps; either this or `epochs` is given."""
    batch_size: int = 64
    schedule: str = "one_cycle"
    momentum: float = 0.9
    weight_decay: float = 4e-5
    """MobileNet's weight decay, for convolutions and linear layers only: batch normalisation needs none."""
    augment: bool = True
    """True if images are changed at random, as the task defines it."""
    precision: str = "auto"
    """The data type of layers where that is safe; weights stay float32. `auto`: 16 bits on a GPU, float32 elsewhere."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise SettingsError("training needs either a number of epochs or a number of steps")
        if (self.epochs or self.steps or 0) <= 0 or self.batch_size < 1:
            raise SettingsError(
                f"epochs, steps and batch size must be positive, got {self.epochs}, {self.steps}, {self.batch_size}"
            )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise SettingsError(
                f"learning rate {self.learning_rate:g}, momentum {self.momentum:g} or weight decay {self.weight_decay:g} is no use"
            )
        if self.schedule not in SCHEDULES:
            raise SettingsError(f"unknown schedule {self.schedule!r}; known are {', '.join(SCHEDULES)}")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"unknown precision {self.precision!r}; known are {', '.join(PRECISIONS)}")

    def steps_for(self, images: int) -> int:
        """The number of training steps on this many images, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or 0) * images / self.batch_size))

    def rate_at(self, progress: float) -> float:
        """The learning rate when this share of the training is done."""
        match self.schedule:
            case "constant":
                share = 1.0
            case "cosine":
                share = _falling(progress)
            case _:
                rising = _FIRST_RATE + (1 - _FIRST_RATE) * progress / _WARM_UP
                share = rising if progress < _WARM_UP else _falling((progress - _WARM_UP) / (1 - _WARM_UP))
        return self.learning_rate * share


@dataclass(frozen=True, slots=True)
class Recipe:
    """The three trainings of a task, unless the user overrides them."""

    from_scratch: TrainSettings
    """The original, from random weights or with an encoder that was trained for something else."""
    short_term: TrainSettings
    """A candidate, to compare it with the others of its iteration; a constant rate, because the winner goes on from here."""
    long_term: TrainSettings
    """The chosen network, to convergence: it is trained already, so a lower rate, and down to nothing for the last bit."""

    def changed(self, original: RecipeOverrides, short_term: RecipeOverrides) -> Recipe:
        """The recipe with these overrides; the long-term fine-tune has the original's batches and image changes."""
        first = original.applied_to(self.from_scratch)
        common = RecipeOverrides(batch_size=first.batch_size, augment=first.augment)
        return Recipe(first, short_term.applied_to(self.short_term), common.applied_to(self.long_term))


@dataclass(frozen=True, slots=True)
class RecipeOverrides:
    """Values that replace those of a recipe; None keeps the recipe's."""

    learning_rate: float | None = None
    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    augment: bool | None = None

    def applied_to(self, settings: TrainSettings) -> TrainSettings:
        """The settings with these values in place of their own. `SettingsError` if a value is out of range."""
        return replace(settings, **{name: value for name, value in asdict(self).items() if value is not None})


def _falling(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
