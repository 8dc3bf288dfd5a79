"""Which of some classes an image shows: cross-entropy, judged by the share of right answers (top-1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from netadapt.training.recipe import Recipe, TrainSettings
from netadapt.training.types import Metric, Part

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_SHIFT = 1 / 8  # of the side: CIFAR's customary 4 of 32 pixels


class Classification:
    """Targets are labels, int64 (n,); outputs are scores (n, classes)."""

    name = "classification"
    accuracy = Metric("top1", "accuracy", decimals=1, unit="%", scale=100)
    metrics: tuple[Metric, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """A one-cycle schedule bears a high rate and gets a small network far in few epochs.

        Candidates take a tenth of it, as in the paper (0.0045 after 0.045).
        """
        return Recipe(
            from_scratch=TrainSettings(learning_rate=0.1, epochs=30, schedule="one_cycle"),
            short_term=TrainSettings(learning_rate=0.01, steps=20, schedule="constant"),
            long_term=TrainSettings(learning_rate=0.05, epochs=15, schedule="cosine"),
        )

    def holds(self, images: Tensor, targets: Tensor) -> bool:
        return targets.shape == images.shape[:1] and not targets.is_floating_point()

    def unpacked(self, targets: Tensor) -> Tensor:
        return targets

    def fits(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        return outputs == (images[0], classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets)

    def judge(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {self.accuracy.name: outputs.argmax(dim=1) == targets}

    def augmented(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return shifted(images, generator, mirrored=part.mirrored), targets


def shifted(images: Tensor, generator: torch.Generator, *, mirrored: bool) -> Tensor:
    """Each image shifted on its own, what comes in being the mean (0), and each second one mirrored if it may be."""
    import torch
    from torch.nn import functional

    n, _, height, width = images.shape
    most = max(1, round(min(height, width) * _SHIFT))
    shifts = torch.randint(0, 2 * most + 1, (n, 2), generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5 if mirrored else torch.zeros(n, dtype=torch.bool)
    padded = functional.pad(images, (most, most, most, most))
    rows = shifts[:, 0, None] + torch.arange(height)  # (n, h)
    columns = shifts[:, 1, None] + torch.where(flips[:, None], torch.arange(width - 1, -1, -1), torch.arange(width))  # (n, w)
    each = torch.arange(n)[:, None, None]
    where = [index.to(images.device) for index in (each, rows[:, :, None], columns[:, None, :])]
    return padded[where[0], :, where[1], where[2]].permute(0, 3, 1, 2)  # (n, h, w, c) to (n, c, h, w)
