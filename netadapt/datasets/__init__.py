"""Pictures to train on and to judge by, opened by a name or a path. A new dataset is one file and one line in DATASETS.

Three parts that never mix: the training part, the holdout that is cut from the training pictures and picks among candidates,
and the test part, which is looked at when all is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from netadapt.errors import NetAdaptError
from netadapt.registry import did_you_mean, load

DATASETS: dict[str, str] = {
    "digits": "netadapt.datasets.digits:load_digits",
    "cifar10": "netadapt.datasets.cifar10:load_cifar10",
    "folder": "netadapt.datasets.folder:load_folder",
}
"""Name to module:function, from the path after the colon ("" if there is none) and a resolution to `Pictures`."""

TEST_SPLIT_SEED = 0
"""Where a dataset has no test part of its own, it is cut off with this seed, so that every run is judged by the same pictures."""
_CHUNK = 1024
_MAX_BYTES = 8 * 2**30


class DataError(NetAdaptError):
    """A dataset is missing, damaged, or too small for what is asked of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Pictures with their labels, kept as bytes and normalised in batches."""

    images: Tensor
    """uint8 (n, c, h, w)"""
    labels: Tensor
    """int64 (n,)"""
    mean: tuple[float, ...]
    """Of every channel over the training pictures, where 0 is black and 1 white."""
    std: tuple[float, ...]
    mirrored: bool
    """A mirrored picture still shows the same; not so for digits."""

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"pictures of {self.images.dtype} {tuple(self.images.shape)} with labels {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures, float32, and their labels."""
        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        pictures = self.images[indices].float()
        per_channel = (1, -1, 1, 1)
        pictures.mul_(torch.tensor(scale).view(per_channel)).add_(torch.tensor(shift).view(per_channel))
        return pictures, self.labels[indices]

    def subset(self, indices: Tensor) -> Part:
        return replace(self, images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    name: str
    classes: tuple[str, ...]
    train: Part
    holdout: Part
    test: Part


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What a loader gives: bytes (n, c, h, w) of one resolution with labels, split in two already or not."""

    name: str
    classes: tuple[str, ...]
    images: Tensor
    labels: Tensor
    is_test: Tensor | None
    """bool (n,); None lets a quarter be cut off."""
    mirrored: bool = True


def open_dataset(spec: str, *, resolution: int, seed: int, holdout_fraction: float = 0.15) -> Dataset:
    """`digits`, `cifar10:PATH`, `folder:PATH` or just a path. The seed decides which training pictures are the holdout.

    `DataError` says in one sentence what is wrong with the path, the files or the fraction.
    """
    if resolution < 1 or not 0 < holdout_fraction < 1:
        raise DataError(f"needs a resolution above 0 and a holdout between 0 and 1, got {resolution} and {holdout_fraction:g}")
    name, path = _name_and_path(spec)
    pictures: Pictures = load(DATASETS[name])(path, resolution)
    labels = pictures.labels
    if pictures.is_test is None:
        training, testing = _split(labels, torch.arange(len(labels)), 0.25, TEST_SPLIT_SEED, pictures.classes)
    else:
        training, testing = (~pictures.is_test).nonzero()[:, 0], pictures.is_test.nonzero()[:, 0]
    kept, held_out = _split(labels, training, holdout_fraction, seed, pictures.classes)
    mean, std = _mean_and_std(pictures.images, kept)
    everything = Part(pictures.images, labels, mean, std, pictures.mirrored)
    return Dataset(
        pictures.name, pictures.classes, everything.subset(kept), everything.subset(held_out), everything.subset(testing)
    )


def resized(images: Tensor, resolution: int) -> Tensor:
    """Square pictures, uint8 (n, c, s, s), bilinearly at another size; a chunk at a time, since floats take four times the room."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    check_size(len(images), images.shape[1], resolution)
    scaled = torch.empty((*images.shape[:2], resolution, resolution), dtype=torch.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].float()
        floats = functional.interpolate(chunk, (resolution, resolution), mode="bilinear", antialias=True)
        scaled[start : start + _CHUNK] = floats.round().clamp(0, 255).byte()
    return scaled


def check_size(count: int, channels: int, resolution: int) -> None:
    """Pictures are kept in memory: say so before it runs out."""
    needed = count * channels * resolution**2
    if needed > _MAX_BYTES:
        raise DataError(
            f"{count} pictures of {resolution} pixels need {needed / 2**30:.1f} GiB of memory, above {_MAX_BYTES >> 30} GiB;"
            " choose a lower resolution or fewer pictures"
        )


def _name_and_path(spec: str) -> tuple[str, str]:
    name, colon, path = spec.partition(":")
    if name in DATASETS:
        return name, path
    if not Path(spec).exists():
        if colon or "/" in spec or "." in spec:
            raise DataError(f"there is no dataset at {spec}; give a path, cifar10:PATH, folder:PATH or digits")
        raise DataError(f"there is no dataset and no path {spec!r}; {did_you_mean(spec, DATASETS)}")
    is_cifar10 = Path(spec).is_file() or any(Path(spec).glob("data_batch_*.bin"))
    return ("cifar10" if is_cifar10 else "folder"), spec


def _split(labels: Tensor, indices: Tensor, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Cut this fraction off, of every class alike and at least one picture; both parts in their old order."""
    generator = torch.Generator().manual_seed(seed)
    kept, cut = [], []
    for label, name in enumerate(classes):
        members = indices[labels[indices] == label]
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has {len(members)} training pictures, too few to set some aside for the holdout or the test"
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        cut.append(shuffled[:count])
        kept.append(shuffled[count:])
    return torch.cat(kept).sort().values, torch.cat(cut).sort().values


def _mean_and_std(images: Tensor, indices: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of every channel, on a scale from 0 to 1, from counts of the 256 values: exact and without a copy in floats."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for chunk in torch.split(indices, _CHUNK):
            counts += torch.bincount(images[chunk, channel].flatten().int(), minlength=256)
        share = counts / counts.sum()
        mean = float((share * values).sum())
        means.append(mean)
        stds.append(max(float((share * (values - mean) ** 2).sum().sqrt()), 1e-3))  # a channel may be of one value throughout
    return tuple(means), tuple(stds)
