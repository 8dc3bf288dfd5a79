"""The types of training: metrics and scores, the interface of a task, and images in parts.

Torch is imported where something is computed, not at the top: commands that only print metrics need their names and formats.
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
    """A measure of a network's quality, and how its values are written for people."""

    name: str
    """The key of the metric in files, with its unit, such as rmse_m."""
    label: str
    """The name that people read, such as RMSE."""
    decimals: int
    unit: str = ""
    scale: float = 1.0
    """The factor from a stored value to the written one, such as 100 for a share in percent."""
    lower_is_better: bool = False

    def text(self, value: float) -> str:
        """The value with its unit, such as `96.5 %` or `0.604 m`."""
        return f"{self.scale * value:.{self.decimals}f}" + (f" {self.unit}" if self.unit else "")

    @property
    def heading(self) -> str:
        """The heading of a column or an axis, such as `RMSE (m, lower is better)`."""
        remarks = ", ".join(filter(None, [self.unit, "lower is better" if self.lower_is_better else ""]))
        return f"{self.label} ({remarks})" if remarks else self.label


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of a network on a set of images. `ValueError` if the accuracy is not between 0 and 1."""

    accuracy: float
    """The metric by which candidates are chosen, from 0 to 1: top-1, or δ1 for depth."""
    metrics: Mapping[str, float]
    """The values of the task's other metrics, by their names."""

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"the accuracy must be between 0 and 1, got {self.accuracy}")


class Task(Protocol):
    """What networks are trained for: their loss, their metrics and the form of their targets. A task has no state."""

    @property
    def name(self) -> str: ...

    @property
    def accuracy(self) -> Metric:
        """The metric by which candidates are chosen; its values are from 0 to 1, and higher is better."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The other metrics that are reported, the most important first."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The default settings of the task's trainings."""
        ...

    def accepts_targets(self, images: Tensor, targets: Tensor) -> bool:
        """True if the targets have the data type and shape in which this task stores them for images (n, c, h, w)."""
        ...

    def decode_targets(self, targets: Tensor) -> Tensor:
        """Stored targets in the form that `loss` and `evaluate` take."""
        ...

    def accepts_outputs(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        """True if a network that maps images of this shape (n, c, h, w) to outputs of this shape can learn the task."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss, a scalar: the mean over the batch."""
        ...

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Every metric by its name, `accuracy` among them, for each image with usable targets: tensors (k,) with k <= n."""
        ...

    def augment(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch of the part, randomly transformed; all randomness comes from the generator, which is on the processor."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images with their targets, stored as bytes and normalised batch by batch. `ValueError` if the two do not fit together."""

    images: Tensor
    """uint8 (n, c, h, w)"""
    targets: Tensor
    """The targets as the task stores them: labels, int64 (n,); depths, int16 millimetres (n, 1, h, w)."""
    mean: tuple[float, ...]
    """The mean of every channel over the training images, where 0 is black and 1 is white."""
    std: tuple[float, ...]
    """The standard deviation of every channel over the training images, on the same scale."""
    mirrored: bool
    """True if a mirrored image has the same target, which a mirrored digit has not."""
    task: Task
    """The task that the targets are for."""

    def __post_init__(self) -> None:
        import torch

        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or not self.task.accepts_targets(self.images, self.targets):
            raise ValueError(
                f"images must be uint8 (n, c, h, w) with targets for {self.task.name}, got {self.images.dtype} "
                f"{tuple(self.images.shape)} with {self.targets.dtype} {tuple(self.targets.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The images at these indices, normalised float32 (k, c, h, w), and their decoded targets, both on the device."""
        import torch

        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        images = self.images[indices].to(device).float()  # moved as bytes, a quarter of the size
        per_channel = (1, -1, 1, 1)
        images.mul_(torch.tensor(scale, device=device).view(per_channel))
        images.add_(torch.tensor(shift, device=device).view(per_channel))
        return images, self.task.decode_targets(self.targets[indices].to(device))

    def subset(self, indices: Tensor) -> Part:
        """The same kind of part with only the images at these indices, (k,)."""
        return replace(self, images=self.images[indices], targets=self.targets[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A dataset in three parts that have no image in common."""

    name: str
    classes: tuple[str, ...]
    """The names of the classes by label; empty for a task without classes."""
    train: Part
    holdout: Part
    """Training images that are set aside; candidates are chosen by their scores on them."""
    test: Part
    """Images that judge a network only when all choices are made."""
    remarks: tuple[str, ...] = ()
    """Whole sentences about what was left out or understood in a certain way when the files were read."""

    @property
    def task(self) -> Task:
        return self.train.task
