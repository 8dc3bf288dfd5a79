"""The tasks that networks are trained for, by name. A new task is one module and one line in TASKS.

A task's module imports torch where it computes, not at its top: commands that only print metrics need their names and formats.
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
"""The module:class of each task, by its name."""
DEFAULT_TASK = "classification"


class TaskError(NetAdaptError):
    """There is no task of this name, or a network's outputs cannot be scored by it."""


def open_task(name: str) -> Task:
    """The task of this name. `TaskError` for an unknown name."""
    if name not in TASKS:
        raise TaskError(f"there is no task {name!r}; {did_you_mean(name, TASKS)}")
    task: Task = load(TASKS[name])()
    return task


def scores_of(task: Task, batches: Iterable[tuple[Tensor, Tensor]]) -> Scores:
    """The mean of every metric over all images that can be scored, given batches of a network's outputs and decoded targets.

    `TaskError` if no image can be scored, or a mean is not a finite number.
    """
    names = [metric.name for metric in (task.accuracy, *task.metrics)]
    sums, count = dict.fromkeys(names, 0.0), 0
    for outputs, targets in batches:
        values = task.evaluate(outputs, targets)
        count += len(values[task.accuracy.name])
        for name in names:
            sums[name] += float(values[name].double().sum())
    if not count:
        raise TaskError(f"no image can be scored for {task.name}, because none has a usable target; choose another dataset")
    means = {name: total / count for name, total in sums.items()}
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise TaskError(f"the network's {name} is {mean}, because its training diverged; lower the learning rate")
    return Scores(means.pop(task.accuracy.name), means)


def scores_text(task: Task, accuracy: float, metrics: Mapping[str, float]) -> str:
    """All scores, such as `δ1 0.771, RMSE 0.604 m, REL 0.160`; without a label for a task of one metric, such as `96.5 %`."""
    if not task.metrics:
        return task.accuracy.text(accuracy)
    known = [(metric, metrics[metric.name]) for metric in task.metrics if metric.name in metrics]
    return ", ".join(f"{metric.label} {metric.text(value)}" for metric, value in ((task.accuracy, accuracy), *known))
