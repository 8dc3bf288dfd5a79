"""What networks are trained for and judged by, opened by name. A new task is one file and one line in TASKS.

A task's file imports torch where it computes, not at its top: what only prints a run's figures needs their names and formats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from device_agents.support.text import did_you_mean
from netadapt.errors import NetAdaptError
from netadapt.registry import load

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from netadapt.training.datasets import Part
    from netadapt.training.trainer import Recipe

TASKS: dict[str, str] = {
    "classification": "netadapt.training.tasks.classification:Classification",
    "depth": "netadapt.training.tasks.depth:Depth",
}
"""Name to module:class."""
DEFAULT_TASK = "classification"


class TaskError(NetAdaptError):
    """A task that we do not have, or a network whose outputs it cannot judge."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that tells how good a network is, and how people read it."""

    name: str
    """Its key among a network's figures, with the unit: rmse_m."""
    label: str
    decimals: int
    unit: str = ""
    scale: float = 1.0
    """What the number is multiplied by for people: 100 for a share in percent."""
    lower_is_better: bool = False

    def text(self, value: float) -> str:
        """`96.5 %`, `0.604 m`"""
        return f"{self.scale * value:.{self.decimals}f}" + (f" {self.unit}" if self.unit else "")

    @property
    def heading(self) -> str:
        """For a column or an axis: `RMSE (m, lower is better)`."""
        remarks = [self.unit, "lower is better" if self.lower_is_better else ""]
        said = ", ".join(filter(None, remarks))
        return f"{self.label} ({said})" if said else self.label


@dataclass(frozen=True, slots=True)
class Scores:
    """How good a network is on some images."""

    accuracy: float
    """What picks among candidates, from 0 to 1."""
    metrics: Mapping[str, float]
    """The task's other figures by their names."""

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"an accuracy lies between 0 and 1, got {self.accuracy}")


class Task(Protocol):
    """What training and judging have to know of a task; without state, so that one is as good as another."""

    @property
    def name(self) -> str: ...

    @property
    def accuracy(self) -> Metric:
        """What picks, from 0 to 1."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What else is told, the most telling first."""
        ...

    @property
    def recipe(self) -> Recipe:
        """How its networks are trained by default."""
        ...

    def holds(self, images: Tensor, targets: Tensor) -> bool:
        """Whether these are targets, as they are stored, for images (n, c, h, w)."""
        ...

    def unpacked(self, targets: Tensor) -> Tensor:
        """Stored targets as `loss` and `judge` take them."""
        ...

    def fits(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        """Whether a network that turns images of this shape (n, c, h, w) into outputs of that shape can learn the task."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What training makes smaller: one number, the mean over the batch."""
        ...

    def judge(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Every figure of every image that can be judged, `accuracy` among them: each (n,) or shorter, all equally long."""
        ...

    def augmented(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch of the part, changed at random so that nothing can be learnt by heart. Draws from this generator only."""
        ...


def open_task(name: str) -> Task:
    """The task of this name. `TaskError` for an unknown one."""
    if name not in TASKS:
        raise TaskError(f"there is no task {name!r}; {did_you_mean(name, TASKS)}")
    task: Task = load(TASKS[name])()
    return task


def task_of(settings: Mapping[str, Any]) -> Task:
    """The task of a run with these settings; runs from before there were tasks classify."""
    return open_task(settings.get("task", DEFAULT_TASK))


def scores_of(task: Task, batches: Iterable[tuple[Tensor, Tensor]]) -> Scores:
    """The mean of each image's figures over all images, from outputs and targets, batch by batch.

    `TaskError` if there is no image to judge, or a figure is no number.
    """
    names = [figure.name for figure in (task.accuracy, *task.metrics)]
    sums, count = dict.fromkeys(names, 0.0), 0
    for outputs, targets in batches:
        judged = task.judge(outputs, targets)
        count += len(judged[task.accuracy.name])
        for name in names:
            sums[name] += float(judged[name].double().sum())
    if not count:
        raise TaskError(f"no image can be judged for {task.name}: every one lacks what its outputs should be compared with")
    means = {name: total / count for name, total in sums.items()}
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise TaskError(f"the network's {name} is {mean}: it was led astray in training; lower the learning rate")
    return Scores(means.pop(task.accuracy.name), means)


def scores_text(task: Task, accuracy: float, metrics: Mapping[str, float]) -> str:
    """`δ1 0.771, RMSE 0.604 m, REL 0.160`; of a task with a single figure just that, without its name: `96.5 %`."""
    if not task.metrics:
        return task.accuracy.text(accuracy)
    known = [(figure, metrics[figure.name]) for figure in task.metrics if figure.name in metrics]
    return ", ".join(f"{figure.label} {figure.text(value)}" for figure, value in ((task.accuracy, accuracy), *known))
