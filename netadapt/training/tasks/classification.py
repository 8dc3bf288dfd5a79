"""Image classification: cross-entropy loss, scored by top-1, the share of images whose highest score is of the right class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from netadapt.training.recipe import Recipe, TrainSettings
from netadapt.training.types import Metric, Part

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_MAX_SHIFT = 1 / 8  # of the shorter side: the 4 of 32 pixels that are customary for CIFAR


class Classification:
    """The task of telling classes apart. Targets are labels, int64 (n,); outputs are scores (n, classes)."""

    name = "classification"
    accuracy = Metric("top1", "accuracy", decimals=1, unit="%", scale=100)
    metrics: tuple[Metric, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The default trainings.

        A one-cycle schedule allows a high learning rate, by which a small network learns most of it in few epochs. Candidates
        are trained at a tenth of that rate, as in the paper (0.0045 after 0.045).
        """
        return Recipe(
            from_scratch=TrainSettings(learning_rate=0.1, epochs=30, schedule="one_cycle"),
            short_term=TrainSettings(learning_rate=0.01, steps=20, schedule="constant"),
            long_term=TrainSettings(learning_rate=0.05, epochs=15, schedule="cosine"),
        )

    def accepts_targets(self, images: Tensor, targets: Tensor) -> bool:
        return targets.shape == images.shape[:1] and not targets.is_floating_point()

    def decode_targets(self, targets: Tensor) -> Tensor:
        return targets

    def accepts_outputs(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        return outputs == (images[0], classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {self.accuracy.name: outputs.argmax(dim=1) == targets}

    def augment(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return shifted(images, generator, mirrored=part.mirrored), targets


def shifted(images: Tensor, generator: torch.Generator, *, mirrored: bool) -> Tensor:
    """Normalised images (n, c, h, w), each shifted at random along both axes and, if `mirrored`, flipped with probability 1/2.

    Pixels that are shifted in are 0, the mean of the training images.
    """
    import torch
    from torch.nn import functional

    n, _, height, width = images.shape
    margin = max(1, round(min(height, width) * _MAX_SHIFT))
    shifts = torch.randint(0, 2 * margin + 1, (n, 2), generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5 if mirrored else torch.zeros(n, dtype=torch.bool)
    padded = functional.pad(images, (margin, margin, margin, margin))
    rows = shifts[:, 0, None] + torch.arange(height)  # (n, h)
    columns = shifts[:, 1, None] + torch.where(flips[:, None], torch.arange(width - 1, -1, -1), torch.arange(width))  # (n, w)
    numbers = torch.arange(n)[:, None, None]
    # one gather for the whole batch: cropping the images one by one would take longer than a step of a small network
    number, row, column = (index.to(images.device) for index in (numbers, rows[:, :, None], columns[:, None, :]))
    return padded[number, :, row, column].permute(0, 3, 1, 2)  # (n, h, w, c) to (n, c, h, w)
