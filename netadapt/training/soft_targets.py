"""Classification with soft targets: label smoothing, and distillation from a trained network.

Distillation is that of Hinton et al., 2015 (https://arxiv.org/abs/1503.02531): the Kullback-Leibler divergence of the two networks'
probabilities at a temperature, times the temperature squared, so that its gradients do not shrink with it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from netadapt.errors import SettingsError
from netadapt.training.recipe import TrainSettings
from netadapt.training.tasks import DEFAULT_TASK
from netadapt.training.tasks.one_output import scored_of, trained_of
from netadapt.training.types import Task
from netadapt.users_code import short_name


def require_classes(task: Task, settings: TrainSettings) -> None:
    """`SettingsError` if soft targets are asked for of a task that has no classes, or whose loss is the user's own."""
    if (settings.distill or settings.label_smoothing) and task.name != DEFAULT_TASK:
        raise SettingsError(
            f"--distill and --label-smoothing change the loss of {DEFAULT_TASK}, and this run's task is {short_name(task.name)}; "
            "leave them out"
        )


def loss_of(task: Task, settings: TrainSettings, outputs: Any, targets: Tensor, taught: Any = None) -> Tensor:
    """The loss of a batch, a scalar: the task's, or that of soft targets as the settings say.

    `outputs` are the network's, in training, and `taught` those of the network that it learns from, in evaluation, if there is one.
    """
    if taught is None and not settings.label_smoothing:
        return task.loss(outputs, targets)
    scores = trained_of(task, outputs).float()
    loss = functional.cross_entropy(scores, targets, label_smoothing=settings.label_smoothing)
    if taught is None:
        return loss
    wanted = functional.log_softmax(scored_of(task, taught).float() / settings.temperature, dim=1)
    found = functional.log_softmax(scores / settings.temperature, dim=1)
    soft = functional.kl_div(found, wanted, reduction="batchmean", log_target=True) * settings.temperature**2
    return (1 - settings.distill) * loss + settings.distill * soft
