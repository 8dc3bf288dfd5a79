"""The tasks that networks are trained for, by name. A new task is one module and one line in TASKS.

A task's module imports torch where it computes, not at its top: commands that only print metrics need their names and formats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.support.text import did_you_mean
from netadapt.errors import NetAdaptError
from netadapt.registry import load
from netadapt.training.types import Metric, Scores, Task
from netadapt.users_code import absolute_name, is_name

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


def open_task(name: str, scores: tuple[Metric, ...] = ()) -> Task:
    """The task of this name; `scores` are those of a user's task. `TaskError` for an unknown name.

    The user's own code is imported when it is needed first, and not to print what a run has found.
    """
    if name in TASKS:
        task: Task = load(TASKS[name])()
        return task
    if not scores and ":" not in name and not name.endswith(".py"):
        raise TaskError(f"there is no task {name!r}; {did_you_mean(name, TASKS)}")
    users: Task = load("netadapt.training.tasks.users:UsersTask")(name, *([scores] if scores else []))
    return users


def chosen_task(text: str) -> Task:
    """The task that is written after --task: a name, `mytask.py:MyTask`, or a file or module with the functions of one.

    `TaskError` for an unknown name; `UsersError` for a user's task without its functions.
    """
    if text in TASKS:
        return open_task(text)
    if is_name(text) or text.endswith(".py"):
        name = absolute_name(text) if is_name(text) else str(Path(text).resolve())
        users: Task = load("netadapt.training.tasks.users:open_users_task")(name)
        return users
    raise TaskError(f"there is no task {text!r}; {did_you_mean(text, TASKS)}, or give your own as mytask.py:MyTask")


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
