"""A task: the class of an image, learnt by the squared error of its scores (Brier, 1950)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from netadapt.training.tasks.classification import Classification
from netadapt.training.types import Metric


class Brier(Classification):
    name = "toy"
    accuracy = Metric("top1", "accuracy", decimals=1, unit="%", scale=100)
    metrics = (Metric("brier", "Brier score", decimals=3, lower_is_better=True),)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(outputs, targets).mean()

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"top1": outputs.argmax(dim=1) == targets, "brier": squared_error(outputs, targets)}


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each image, (n,), from scores (n, classes) and labels (n,)."""
    wanted = nn.functional.one_hot(targets, outputs.shape[1])
    return (outputs.softmax(dim=1) - wanted).square().sum(dim=1)
