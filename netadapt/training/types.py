"""What training speaks of: figures and scores, the interface of a task, and images in parts.

Torch is imported where something is computed, not at the top: what only prints figures needs their names and formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from netadapt.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
        """The other figures that are reported, the most important first."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images with what a network should make of them, kept as bytes and made ready in batches."""

    images: Tensor
    """uint8 (n, c, h, w)"""
    targets: Tensor
    """As the task stores them: labels, int64 (n,); depths, int16 millimetres (n, 1, h, w)."""
    mean: tuple[float, ...]
    """Of every channel over the training images, where 0 is black and 1 white."""
    std: tuple[float, ...]
    mirrored: bool
    """A mirrored image still shows the same; not so for digits."""
    task: Task
    """What networks learn from these images."""

    def __post_init__(self) -> None:
        import torch

        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or not self.task.holds(self.images, self.targets):
            raise ValueError(
                f"images of {self.images.dtype} {tuple(self.images.shape)} with targets of {self.targets.dtype} "
                f"{tuple(self.targets.shape)} for {self.task.name}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Normalised images, float32, and what the task compares outputs with; carried to the device as bytes."""
        import torch

        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        images = self.images[indices].to(device).float()
        per_channel = (1, -1, 1, 1)
        images.mul_(torch.tensor(scale, device=device).view(per_channel))
        images.add_(torch.tensor(shift, device=device).view(per_channel))
        return images, self.task.unpacked(self.targets[indices].to(device))

    def subset(self, indices: Tensor) -> Part:
        return replace(self, images=self.images[indices], targets=self.targets[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    name: str
    classes: tuple[str, ...]
    """Empty where the task knows none."""
    train: Part
    holdout: Part
    test: Part

    @property
    def task(self) -> Task:
        return self.train.task
