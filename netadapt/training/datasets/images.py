"""What a dataset's module returns, and what such modules share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from netadapt.training.datasets import DataError
from netadapt.training.tasks import DEFAULT_TASK

CHUNK = 1024
"""Images that are converted at once, as floats take four times the memory of bytes."""
_MAX_BYTES = 8 * 2**30


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """What a loader gives: bytes (n, c, h, w) of one resolution, targets as the task stores them, split in two already or not."""

    name: str
    classes: tuple[str, ...]
    images: Tensor
    targets: Tensor
    is_test: Tensor | None
    """bool (n,); None lets a quarter be cut off."""
    mirrored: bool = True
    task: str = DEFAULT_TASK
    scenes: Tensor | None = None
    """int64 (n,), where there are no classes: images of one scene look so much alike that they stay in one part."""


def resized(images: Tensor, resolution: int) -> Tensor:
    """Square images, uint8 (n, c, s, s), bilinearly at another size; a chunk at a time, since floats take four times the room."""
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
    """Images are kept in memory: say so before it runs out."""
    needed = count * bytes_per_pixel * resolution**2
    if needed > _MAX_BYTES:
        raise DataError(
            f"{count} images of {resolution} pixels need {needed / 2**30:.1f} GiB of memory, above {_MAX_BYTES >> 30} GiB;"
            " choose a lower resolution or fewer images"
        )
