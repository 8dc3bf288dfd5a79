"""The settings of one training, a task's recipe of three trainings, and the user's overrides of it.

The one-cycle schedule is that of Smith and Topin, 2017 (https://arxiv.org/abs/1708.07120), with the defaults of torch's OneCycleLR.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from device_agents.support.text import did_you_mean
from netadapt.errors import SettingsError

SCHEDULES = ("constant", "cosine", "one_cycle")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_WARM_UP = 0.3  # the share of a one-cycle schedule in which the learning rate rises
_FIRST_RATE = 1 / 25  # where it starts, as a share of the highest rate


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The length and the hyperparameters of one training. `SettingsError` if a value is out of range."""

    learning_rate: float
    """The highest learning rate of the schedule."""
    epochs: float | None = None
    """The number of passes over the training images; either this or `steps` is given."""
    steps: int | None = None
    """The number of training steps; either this or `epochs` is given."""
    batch_size: int = 64
    schedule: str = "one_cycle"
    """The course of the learning rate, a name in SCHEDULES."""
    momentum: float = 0.9
    weight_decay: float = 4e-5
    """MobileNet's weight decay, for convolutions and linear layers only: batch normalisation needs none."""
    augment: bool = True
    """True if images are changed at random, as the task defines it."""
    precision: str = "auto"
    """The data type of layers where that is safe; weights stay float32. `auto`: 16 bits on a GPU, float32 elsewhere."""
    label_smoothing: float = 0.0
    """The share of the target that all classes have equally (Szegedy et al., 2016); of classification only."""
    distill: float = 0.0
    """The weight, from 0 to 1, of what the original network says in place of the labels; of classification only."""
    temperature: float = 4.0
    """What scores are divided by before the original's are compared with the network's own."""
    ema: float = 0.0
    """The decay per step of a moving average of the weights, which becomes the result (Polyak and Juditsky, 1992); 0 for none."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise SettingsError("a training takes either a number of epochs or a number of steps; give exactly one of them")
        if (self.epochs or self.steps or 0) <= 0 or self.batch_size < 1:
            raise SettingsError(
                f"epochs, steps and batch size must be positive, got {self.epochs}, {self.steps}, {self.batch_size}"
            )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise SettingsError(
                "the learning rate must be above 0, the momentum from 0 to below 1 and the weight decay at least 0, "
                f"got {self.learning_rate:g}, {self.momentum:g} and {self.weight_decay:g}"
            )
        if not (0 <= self.label_smoothing < 1 and 0 <= self.distill <= 1 and 0 < self.temperature < math.inf and 0 <= self.ema < 1):
            raise SettingsError(
                "label smoothing and the decay of averaged weights must be from 0 to below 1, the weight of distillation from 0 to "
                f"1 and its temperature above 0, got {self.label_smoothing:g}, {self.ema:g}, {self.distill:g} and "
                f"{self.temperature:g}"
            )
        if self.schedule not in SCHEDULES:
            raise SettingsError(f"unknown schedule {self.schedule!r}; {did_you_mean(self.schedule, SCHEDULES)}")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"unknown precision {self.precision!r}; {did_you_mean(self.precision, PRECISIONS)}")

    def steps_for(self, images: int) -> int:
        """The number of training steps on this many images, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or 0) * images / self.batch_size))

    def rate_at(self, progress: float) -> float:
        """The learning rate at this progress, from 0 at the first step to 1 at the end."""
        match self.schedule:
            case "constant":
                share = 1.0
            case "cosine":
                share = _cosine(progress)
            case _:
                rising = _FIRST_RATE + (1 - _FIRST_RATE) * progress / _WARM_UP
                share = rising if progress < _WARM_UP else _cosine((progress - _WARM_UP) / (1 - _WARM_UP))
        return self.learning_rate * share


@dataclass(frozen=True, slots=True)
class Recipe:
    """The three trainings of a task, unless the user overrides them."""

    from_scratch: TrainSettings
    """The training of the original network, from random weights or with an encoder that was trained for another task."""
    short_term: TrainSettings
    """The short-term fine-tune of a candidate; its rate is constant, as the winner is trained further in the next iteration."""
    long_term: TrainSettings
    """The long-term fine-tune, to convergence; the network is trained already, so the rate is lower, and it falls to 0."""

    def changed(self, original: RecipeOverrides, short_term: RecipeOverrides) -> Recipe:
        """The recipe with these overrides; the long-term fine-tune takes over the original's batch size and augmentation."""
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
    schedule: str | None = None
    precision: str | None = None
    label_smoothing: float | None = None
    distill: float | None = None
    temperature: float | None = None
    ema: float | None = None

    def applied_to(self, settings: TrainSettings) -> TrainSettings:
        """The settings with these values in place of their own; steps take the place of epochs, and epochs that of steps.

        `SettingsError` if a value is out of range.
        """
        values = {name: value for name, value in asdict(self).items() if value is not None}
        length = {"epochs": None, "steps": None} if values.keys() & {"epochs", "steps"} else {}
        return replace(settings, **length | values)


def _cosine(progress: float) -> float:
    """Half a cosine wave, from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
