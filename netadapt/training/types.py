"""The types of training: metrics and scores, the interface of a task, and images in parts.

Torch is imported where something is computed, not at the top: commands that only print metrics need their names and formats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

from netadapt.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from netadapt.training.trees import Inputs


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
    """The metrics of a network on a set of images. `ValueError` if the accuracy is not a finite number."""

    accuracy: float
    """The metric by which candidates are chosen, higher is better: top-1, δ1 for depth, or the first score of a user's task."""
    metrics: Mapping[str, float]
    """The values of the task's other metrics, by their names."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.accuracy):
            raise ValueError(f"the accuracy must be a finite number, got {self.accuracy}")


class Task(Protocol):
    """What networks are trained for: their loss, their metrics and the form of their targets. A task has no state."""

    @property
    def name(self) -> str: ...

    @property
    def accuracy(self) -> Metric:
        """The metric by which candidates are chosen; higher is better."""
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


class Part(ABC):
    """Inputs with their targets, read in batches of any order. Images in bytes are normalised batch by batch."""

    __slots__ = ()
    mean: tuple[float, ...]
    """The mean that is subtracted from every channel, where 0 is black and 1 is white; empty where inputs stay as they are."""
    std: tuple[float, ...]
    """The standard deviation that every channel is divided by then; empty where inputs stay as they are given."""
    mirrored: bool
    """True if a mirrored image has the same target, which a mirrored digit has not."""
    task: Task
    """The task that the targets are for."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each input of one example, without the batch: (c, h, w) of an image."""

    @abstractmethod
    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Inputs, Tensor]:
        """The inputs at these indices, normalised float32 (k, c, h, w), and their decoded targets, both on the device."""

    @abstractmethod
    def subset(self, indices: Tensor) -> Self:
        """The same kind of part with only the examples at these indices, (k,)."""

    @abstractmethod
    def in_raw_values(self) -> Self:
        """The same part with images as values from 0 to 255, not normalised."""

    @abstractmethod
    def of_task(self, task: Task) -> Self:
        """The same part for another task of the same targets."""

    @abstractmethod
    def joined(self, other: Part) -> Self:
        """The examples of both parts, which come from the same dataset; this part's come first."""

    def batches(
        self,
        groups: Iterable[Tensor],
        device: torch.device | str = "cpu",
        *,
        seed: int | None = None,
        after: int = 0,
        offset: int = 0,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """The batch of each group of indices, in their order.

        What an example draws at random depends on the seed and its place, or without a seed on its number. There were `after`
        groups before these, and `offset` examples stand before each group in its batch.
        """
        for indices in groups:
            yield self.batch(indices, device)


@dataclass(frozen=True, slots=True, eq=False)
class ImagesInMemory(Part):
    """Images with their targets, stored as bytes. `ValueError` if the two do not fit together."""

    images: Tensor
    """uint8 (n, c, h, w)"""
    targets: Tensor
    """The targets as the task stores them: labels, int64 (n,); depths, int16 millimetres (n, 1, h, w)."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool
    task: Task

    def __post_init__(self) -> None:
        import torch

        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or not self.task.accepts_targets(self.images, self.targets):
            raise ValueError(
                f"images must be uint8 (n, c, h, w) with targets for {self.task.name}, got {self.images.dtype} "
                f"{tuple(self.images.shape)} with {self.targets.dtype} {tuple(self.targets.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(self.images.shape[1:]),)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        images = normalised(self.images[indices].to(device), self.mean, self.std)  # moved as bytes, a quarter of the size
        return images, self.task.decode_targets(self.targets[indices].to(device))

    def subset(self, indices: Tensor) -> Self:
        return replace(self, images=self.images[indices], targets=self.targets[indices])

    def in_raw_values(self) -> Self:
        return replace(self, mean=(), std=())

    def of_task(self, task: Task) -> Self:
        return replace(self, task=task)

    def joined(self, other: Part) -> Self:
        import torch

        assert isinstance(other, ImagesInMemory)
        return replace(self, images=torch.cat([self.images, other.images]), targets=torch.cat([self.targets, other.targets]))


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images (n, c, …) in bytes or floats as float32, with this mean and standard deviation of each channel; white is 255, or 1."""
    import torch

    white = 1 if images.is_floating_point() else 255
    floats = images.float()
    if not mean:
        return floats
    per_channel = (1, -1, *(1,) * (images.ndim - 2))
    scale = torch.tensor([1 / (white * each) for each in std], device=images.device).view(per_channel)
    shift = torch.tensor([-middle / each for middle, each in zip(mean, std, strict=True)], device=images.device).view(per_channel)
    return floats.mul_(scale).add_(shift) if floats is not images else floats * scale + shift


@dataclass(frozen=True, slots=True)
class Known:
    """What a run stores of its data, so that it goes on with the same images and need not read all of them again."""

    mean: tuple[float, ...]
    """The mean that is subtracted from every channel, where 0 is black and 1 is white; empty where inputs stay as they are."""
    std: tuple[float, ...]
    """The standard deviation that every channel is divided by then."""
    digest: str
    """What tells that the images of each part, the holdout among them, are still the same."""
    left_out: tuple[str, ...] = ()
    """The names of the files that cannot be read."""

    @property
    def normalisation(self) -> str:
        """What is done to images before a network sees them, as a clause for people."""
        if not self.mean:
            return "as the data gives them"
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        return f"normalised with mean {mean} and std {std} of 0 to 1"


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
    users: bool = False
    """True if it is the user's own, whose examples are changed at random, where they are, by the user's code."""
    known: Known | None = None
    """What a run stores of it."""

    @property
    def task(self) -> Task:
        return self.train.task

    @property
    def in_memory(self) -> bool:
        """True if all images are in this object, so that it can be sent to another machine."""
        return isinstance(self.train, ImagesInMemory)
