"""The images that a dataset's loader returns, and functions that loaders share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from netadapt.training.datasets import DataError
from netadapt.training.tasks import DEFAULT_TASK

CHUNK = 1024
"""The number of images that are converted to floats at once, as floats take four times the memory of bytes."""
_MAX_BYTES = 8 * 2**30
SMALL_BYTES = 512 * 2**20
"""The most that images and targets may take in memory; those of a larger dataset are read while networks are trained."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """Images that are read one at a time, with their targets: the source of a stream."""

    count: int
    read_one: Callable[[int], tuple[Tensor, Tensor]]
    """From the number of an image to its pixels, uint8 (c, h, w), and its target as the task stores it. `DataError` for a file
    that cannot be read."""
    name_of: Callable[[int], str] | None = None
    """The name of an image's file within the dataset; None where images have no files of their own."""
    skip_damaged: bool = False
    """True if images that cannot be read are left out."""
    grey: bool = False
    """True if images are read in one channel, the mean of theirs."""

    @property
    def users(self) -> bool:
        return False

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.read_one(index)
        return (image.float().mean(dim=0, keepdim=True).round().byte() if self.grey else image), target

    def collate(self, examples: Sequence[tuple[Tensor, Tensor]], indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return torch.stack([image for image, _ in examples]), torch.stack([target for _, target in examples])


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """All images of a dataset at one resolution, with their targets."""

    name: str
    classes: tuple[str, ...]
    """The names of the classes by label; empty for a task without classes."""
    images: Tensor | ImageSource
    """uint8 (n, c, h, w); a source for images that are not kept in memory."""
    targets: Tensor
    """The targets as the task stores them; of a source without classes, anything of the same length."""
    is_test: Tensor | None
    """True for test images, bool (n,); None where the dataset has none, so that a quarter of the images is split off."""
    mirrored: bool = True
    """True if a mirrored image has the same target."""
    task: str = DEFAULT_TASK
    """A name in `netadapt.training.tasks.TASKS`."""
    scenes: Tensor | None = None
    """The scene of each image, int64 (n,), where there are no classes. Images of one scene are alike, so no split may part them."""
    is_holdout: Tensor | None = None
    """True for the images of the holdout, bool (n,); None where the dataset has none, so that a fraction is split off."""
    remarks: tuple[str, ...] = ()
    """Whole sentences about what was left out or understood in a certain way."""


def resized(images: Tensor, resolution: int) -> Tensor:
    """Square images, uint8 (n, c, s, s), scaled bilinearly to another resolution. `DataError` if they would not fit in memory."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    check_size(len(images), images.shape[1], resolution)
    scaled = torch.empty((*images.shape[:2], resolution, resolution), dtype=torch.uint8)
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].float()
        floats = functional.interpolate(chunk, (resolution, resolution), mode="bilinear", antialias=True)
        scaled[start : start + CHUNK] = floats.round().clamp(0, 255).byte()
    return scaled


def resized_or_streamed(images: Tensor, targets: Tensor, resolution: int) -> Tensor | ImageSource:
    """The same as `resized`, or where that would not be small a source that scales each image when it is read."""
    if is_small(len(images), images.shape[1], resolution):
        return resized(images, resolution)
    return ImageSource(len(images), lambda index: (resized(images[index : index + 1], resolution)[0], targets[index]))


def is_small(count: int, bytes_per_pixel: int, resolution: int) -> bool:
    """True if this many images of this size are kept in memory."""
    return count * bytes_per_pixel * resolution**2 <= SMALL_BYTES


def damaged(first: DataError, count: int, of: int) -> DataError:
    """The error for files that cannot be read, of which `first` tells."""
    return DataError(
        f"{first}, or leave all that cannot be read out with folder-readable:PATH ({count} of {of} images cannot be read)"
    )


def check_size(count: int, bytes_per_pixel: int, resolution: int) -> None:
    """Check that these images, which are kept in memory, do not take more than 8 GiB. `DataError` if they do."""
    needed = count * bytes_per_pixel * resolution**2
    if needed > _MAX_BYTES:
        raise DataError(
            f"{count} images of {resolution} pixels need {needed / 2**30:.1f} GiB of memory, above {_MAX_BYTES >> 30} GiB;"
            " choose a lower resolution or fewer images"
        )
