"""The images that a dataset's loader returns, and functions that loaders share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from netadapt.training.datasets import DataError
from netadapt.training.tasks import DEFAULT_TASK

CHUNK = 1024
"""The number of images that are converted to floats at once, as floats take four times the memory of bytes."""
_MAX_BYTES = 8 * 2**30


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """All images of a dataset at one resolution, with their targets."""

    name: str
    classes: tuple[str, ...]
    """The names of the classes by label; empty for a task without classes."""
    images: Tensor
    """uint8 (n, c, h, w)"""
    targets: Tensor
    """The targets as the task stores them; see `Part.targets`."""
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


def check_size(count: int, bytes_per_pixel: int, resolution: int) -> None:
    """Check that these images, which are kept in memory, do not take more than 8 GiB. `DataError` if they do."""
    needed = count * bytes_per_pixel * resolution**2
    if needed > _MAX_BYTES:
        raise DataError(
            f"{count} images of {resolution} pixels need {needed / 2**30:.1f} GiB of memory, above {_MAX_BYTES >> 30} GiB;"
            " choose a lower resolution or fewer images"
        )
