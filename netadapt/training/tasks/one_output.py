"""A task for networks that return several tensors, one of which is scored and trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from netadapt.training.recipe import Recipe
from netadapt.training.tasks import TaskError
from netadapt.training.types import Dataset, Metric, Part, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class OneOutput:
    """The same task, given everything that a network returns. Tensors are named as `netadapt.outputs` names them."""

    task: Task
    scored: str
    """The name of the tensor that is scored; '' for a lone tensor."""
    trained: str
    """The name of the tensor that is trained; '' for a lone tensor."""

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def accuracy(self) -> Metric:
        return self.task.accuracy

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return self.task.metrics

    @property
    def recipe(self) -> Recipe:
        return self.task.recipe

    def accepts_targets(self, images: Tensor, targets: Tensor) -> bool:
        return self.task.accepts_targets(images, targets)

    def decode_targets(self, targets: Tensor) -> Tensor:
        return self.task.decode_targets(targets)

    def accepts_outputs(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        return self.task.accepts_outputs(outputs, images, classes)

    def loss(self, outputs: object, targets: Tensor) -> Tensor:
        return self.task.loss(_named(outputs, self.trained).float(), targets)

    def evaluate(self, outputs: object, targets: Tensor) -> Mapping[str, Tensor]:
        return self.task.evaluate(_named(outputs, self.scored), targets)

    def augment(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.task.augment(images, targets, part, generator)


def of_one_output(dataset: Dataset, scored: str | None, trained: str | None) -> Dataset:
    """The dataset for a network whose outputs have these names; as it is if both are None, for a network with one output."""
    if scored is None and trained is None:
        return dataset
    task = OneOutput(dataset.task, scored or "", trained or "")
    train, holdout, test = (part.of_task(task) for part in (dataset.train, dataset.holdout, dataset.test))
    return replace(dataset, train=train, holdout=holdout, test=test)


def trained_of(task: Task, outputs: object) -> Tensor:
    """The tensor that is trained, of what a network returns in training."""
    return _named(outputs, task.trained if isinstance(task, OneOutput) else "")


def scored_of(task: Task, outputs: object) -> Tensor:
    """The tensor that is scored, of what a network returns in evaluation."""
    return _named(outputs, task.scored if isinstance(task, OneOutput) else "")


def _named(outputs: object, name: str) -> Tensor:
    """The tensor of this name. A lone tensor, such as an exported file's, needs none. `TaskError` if there is none."""
    from torch import Tensor

    from netadapt.outputs import named_outputs

    if isinstance(outputs, Tensor):
        return outputs
    found = named_outputs(outputs)
    if name not in found:
        raise TaskError(
            f"the network returned {', '.join(found) or 'no tensor'} and no {name!r}; let it return the same every time"
        )
    return found[name]
