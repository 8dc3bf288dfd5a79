"""The settings that the result of a run depends on. They are stored in run.json and read back by the same types.

Nothing here imports torch. Messages name a setting by its option, which OPTIONS lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from netadapt.errors import SettingsError
from netadapt.networks.options import NetworkOptions
from netadapt.pruning.settings import PruningSettings
from netadapt.search.types import AdaptSettings
from netadapt.training.recipe import Recipe
from netadapt.training.tasks import open_task
from netadapt.training.types import Known, Metric, Task


@dataclass(frozen=True, slots=True)
class DataSettings:
    """The images of a run, and the part of them that selects winners."""

    source: str
    """A dataset as `--data` names it. A path is absolute, so that the run can be continued from another folder."""
    holdout_fraction: float = 0.15
    """The fraction of the training images that scores candidates; nothing is trained on it before the long-term fine-tune."""
    known: Known | None = None
    """What the run has found out about the images; None before it has."""
    workers: int | None = None
    """Processes that read examples which are not kept in memory; None for one per core where reading takes time."""
    mean: tuple[float, ...] | None = None
    """The mean that is subtracted from every channel, or from all, where 0 is black and 1 is white; None for that of the images."""
    std: tuple[float, ...] | None = None
    """The standard deviation that every channel, or all, are divided by then; None for that of the images."""

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise SettingsError("images are normalised by a mean and a std; give both --mean and --std, or neither")
        for option, values, least in (("--mean", self.mean or (), 0.0), ("--std", self.std or (), 1e-6)):
            if not all(least <= value <= 1 for value in values):
                raise SettingsError(
                    f"{option} is of values from 0 for black to 1 for white, got {value_text(values)}; divide that of bytes by 255"
                )
        if self.mean is not None and self.std is not None and (not self.mean or len(self.mean) != len(self.std)):
            raise SettingsError(
                f"--mean has {len(self.mean)} numbers and --std {len(self.std)}; give one for each channel, or one for all, to both"
            )

    @classmethod
    def chosen(cls, source: str, holdout_fraction: float, workers: int | None, mean: str | None, std: str | None) -> Self:
        """The settings from the arguments of a command. `SettingsError` for a mean or std that is no numbers."""
        return cls(source, holdout_fraction, None, workers, _numbers("--mean", mean), _numbers("--std", std))


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The training of a run's networks."""

    task: str
    """A name in `netadapt.training.tasks.TASKS`, or the user's own task by name. A path is absolute."""
    recipe: Recipe
    """The task's recipe, with the numbers that the user chose."""
    weights: str | None = None
    """The file name of the weights that the original network came with; None if it is trained from random weights."""
    threads_per_candidate: int = 1
    """PyTorch's threads for a candidate, which are stored because the last bits of results depend on them."""
    threads_original: int = 1
    """PyTorch's threads for the training of the original network."""
    scores: tuple[Metric, ...] = ()
    """The scores of the user's own task, the one that selects winners first; empty for a built-in task."""
    evaluate: str | None = None
    """The user's function that scores networks in place of the task, by name; None for the task, or for a function object."""
    fine_tune: str | None = None
    """The user's function that trains candidates, likewise."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Everything that the result of a run depends on, except its budgets and tables."""

    network: NetworkOptions
    data: DataSettings
    training: TrainingSettings
    search: AdaptSettings = field(default_factory=AdaptSettings)
    pruning: PruningSettings = field(default_factory=PruningSettings)
    measure: bool | None = None
    """True to measure winners on the tables' devices; None for those devices that can be reached."""
    seed: int = 1

    @property
    def task(self) -> Task:
        """The task that the networks learn."""
        return open_task(self.training.task, self.training.scores)


OPTIONS: Mapping[str, str] = {
    "network.name": "network",
    "network.width_multiplier": "--width-multiplier",
    "network.resolution": "--resolution",
    "network.classes": "number of classes",
    "network.small_input": "--small-input",
    "network.inputs": "--input",
    "network.output": "--output",
    "network.training_output": "output in training",
    "data.source": "--data",
    "data.holdout_fraction": "--holdout",
    "data.workers": "--data-workers",
    "data.mean": "--mean",
    "data.std": "--std",
    "training.task": "--task",
    "training.scores": "scores of the task",
    "training.evaluate": "function that evaluates",
    "training.fine_tune": "function that fine-tunes",
    "training.weights": "--weights",
    "training.recipe.from_scratch.epochs": "--epochs",
    "training.recipe.from_scratch.learning_rate": "--learning-rate",
    "training.recipe.from_scratch.batch_size": "--batch-size",
    "training.recipe.from_scratch.augment": "--augment",
    "training.recipe.short_term.steps": "--short-term-steps",
    "training.recipe.short_term.learning_rate": "--short-term-learning-rate",
    "training.recipe.short_term.augment": "--augment of candidates",
    "training.threads_per_candidate": "--threads-per-candidate",
    "training.threads_original": "threads of the original's training",
    "search.step": "--step",
    "search.decay": "--decay",
    "search.max_iterations": "--max-iterations",
    "search.width_step": "--width-step",
    "search.min_width": "--min-width",
    "search.select_by": "--select-by",
    "search.if_no_candidate": "--if-no-candidate",
    "search.successive_halving": "--successive-halving",
    "search.method": "--search",
    "search.samples": "--samples",
    "search.blocks": "--blocks",
    "search.candidates": "--candidates",
    "pruning.importance": "--importance",
    "pruning.bn_recalibration_batches": "--bn-recalibration-batches",
    "measure": "--measure",
    "seed": "--seed",
}
"""The option, or another name for people, of each setting that can be chosen, by the path of its field."""


def values_of(settings: RunSettings) -> dict[str, Any]:
    """The value of every setting by the path of its field, such as "search.step"; those in OPTIONS come first, in its order."""

    def leaves(prefix: str, plain: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in plain.items():
            if isinstance(value, dict):
                yield from leaves(f"{prefix}{name}.", value)
            else:
                yield f"{prefix}{name}", value

    found = dict(leaves("", asdict(replace(settings, data=replace(settings.data, known=None)))))
    del found["data.known"]  # nobody chooses it
    found["measure"] = "where a device can be reached" if settings.measure is None else settings.measure
    return {path: found[path] for path in OPTIONS} | found


def value_text(value: Any) -> str:
    """A setting's value as text: none, on, off, 1x3x224x224, 0.04, 0.485,0.456,0.406."""
    if value is None or value in ("", (), []):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return ", ".join(str(item["name"]) for item in value)
    if isinstance(value, list | tuple):
        return ("," if any(isinstance(item, float) for item in value) else "x").join(map(str, value))
    return str(value)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as exc:
        raise SettingsError(f"{option} must be a number or several, such as 0.485,0.456,0.406, got {text!r}") from exc
