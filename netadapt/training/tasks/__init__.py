"""What networks are trained for and judged by, opened by name. A new task is one file and one line in TASKS.

A task's file imports torch where it computes, not at its top: what only prints a run's figures needs their names and formats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from device_agents.support.text import did_you_mean
from netadapt.errors import NetAdaptError
from netadapt.registry import load
from netadapt.training.types import Scores, Task

if TYPE_CHECKING:
    from torch import Tensor

TASKS: dict[str, str] = {
    "classification": "netadapt.training.tasks.classification:Classification",
    "depth": "netadapt.training.tasks.depth:Depth",
}
"""Name to module:class."""
DEFAULT_TASK = "classification"


class TaskError(NetAdaptError):
    """A task that we do not have, or a network whose outputs it cannot judge."""


def open_task(name: str) -> Task:
    """The task of this name. `TaskError` for an unknown one."""
    if name not in TASKS:
        raise TaskError(f"there is no task {name!r}; {did_you_mean(name, TASKS)}")
    task: Task = load(TASKS[name])()
    return task


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
