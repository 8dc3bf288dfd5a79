"""Images to train on and to judge by, opened by a name or a path. A new dataset is one file and one line in DATASETS.

Three parts that never mix: the training part, the holdout that is cut from the training images and picks among candidates,
and the test part, which is looked at when all is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from netadapt.errors import NetAdaptError
from netadapt.registry import did_you_mean, load
from netadapt.training.tasks import DEFAULT_TASK, open_task
from netadapt.training.types import Dataset, Part

DATASETS: dict[str, str] = {
    "digits": "netadapt.training.datasets.digits:load_digits",
    "cifar10": "netadapt.training.datasets.cifar10:load_cifar10",
    "folder": "netadapt.training.datasets.folder:load_folder",
    "nyu": "netadapt.training.datasets.nyu:load_nyu",
    "scenes": "netadapt.training.datasets.scenes:load_scenes",
}
"""Name to module:function, from the path after the colon ("" if there is none) and a resolution to `LabelledImages`."""

TEST_SPLIT_SEED = 0
"""Where a dataset has no test part of its own, it is cut off with this seed, so that every run is judged by the same images."""
_CHUNK = 1024
_MAX_BYTES = 8 * 2**30


class DataError(NetAdaptError):
    """A dataset is missing, damaged, or too small for what is asked of it."""


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


def open_dataset(spec: str, *, resolution: int, channels: int = 3, seed: int, holdout_fraction: float = 0.15) -> Dataset:
    """`digits`, `cifar10:PATH`, `folder:PATH`, `nyu:PATH`, `scenes` or just a path. The seed decides which training images are
    the holdout.

    Images have as many channels as their dataset gives, or one: the mean of them.

    `DataError` says in one sentence what is wrong with the path, the files or the fraction.
    """
    if resolution < 1 or not 0 < holdout_fraction < 1:
        raise DataError(f"needs a resolution above 0 and a holdout between 0 and 1, got {resolution} and {holdout_fraction:g}")
    name, path = _name_and_path(spec)
    labelled: LabelledImages = load(DATASETS[name])(path, resolution)
    images = _with_channels(labelled.images, channels, spec)
    if labelled.is_test is None:
        training, testing = _split(labelled, torch.arange(len(labelled.images)), 0.25, TEST_SPLIT_SEED)
    else:
        training, testing = (~labelled.is_test).nonzero()[:, 0], labelled.is_test.nonzero()[:, 0]
    kept, held_out = _split(labelled, training, holdout_fraction, seed)
    mean, std = _mean_and_std(images, kept)
    everything = Part(images, labelled.targets, mean, std, labelled.mirrored, open_task(labelled.task))
    return Dataset(
        labelled.name, labelled.classes, everything.subset(kept), everything.subset(held_out), everything.subset(testing)
    )


def _with_channels(images: Tensor, channels: int, spec: str) -> Tensor:
    if channels == images.shape[1]:
        return images
    if channels != 1:
        raise DataError(f"the images of {spec} have {images.shape[1]} channels, the network takes {channels}; give it 3 or 1")
    grey = torch.empty((len(images), 1, *images.shape[2:]), dtype=torch.uint8)
    for start in range(0, len(images), _CHUNK):
        grey[start : start + _CHUNK] = images[start : start + _CHUNK].float().mean(dim=1, keepdim=True).round().byte()
    return grey


def resized(images: Tensor, resolution: int) -> Tensor:
    """Square images, uint8 (n, c, s, s), bilinearly at another size; a chunk at a time, since floats take four times the room."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    check_size(len(images), images.shape[1], resolution)
    scaled = torch.empty((*images.shape[:2], resolution, resolution), dtype=torch.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].float()
        floats = functional.interpolate(chunk, (resolution, resolution), mode="bilinear", antialias=True)
        scaled[start : start + _CHUNK] = floats.round().clamp(0, 255).byte()
    return scaled


def check_size(count: int, bytes_per_pixel: int, resolution: int) -> None:
    """Images are kept in memory: say so before it runs out."""
    needed = count * bytes_per_pixel * resolution**2
    if needed > _MAX_BYTES:
        raise DataError(
            f"{count} images of {resolution} pixels need {needed / 2**30:.1f} GiB of memory, above {_MAX_BYTES >> 30} GiB;"
            " choose a lower resolution or fewer images"
        )


def _name_and_path(spec: str) -> tuple[str, str]:
    name, colon, path = spec.partition(":")
    if name in DATASETS:
        return name, path
    if not Path(spec).exists():
        if colon or "/" in spec or "." in spec:
            raise DataError(f"there is no dataset at {spec}; give a path, cifar10:PATH, folder:PATH, nyu:PATH, digits or scenes")
        raise DataError(f"there is no dataset and no path {spec!r}; {did_you_mean(spec, DATASETS)}")
    is_cifar10 = Path(spec).is_file() or any(Path(spec).glob("data_batch_*.bin"))
    return ("cifar10" if is_cifar10 else "folder"), spec


def _split(labelled: LabelledImages, indices: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """What is kept and what is cut off, both in their old order."""
    if labelled.classes:
        return _split_classes(labelled.targets, indices, fraction, seed, labelled.classes)
    scenes = torch.arange(len(labelled.images)) if labelled.scenes is None else labelled.scenes
    return _split_scenes(scenes, indices, fraction, seed)


def _split_scenes(scenes: Tensor, indices: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Cut whole scenes off, as many as bring the images nearest to this fraction, but at least one and never all."""
    present, sizes = torch.unique(scenes[indices], return_counts=True)
    if len(present) < 2:
        raise DataError(f"the training images show {len(present)} scenes, too few to set one aside for the holdout or the test")
    order = torch.randperm(len(present), generator=torch.Generator().manual_seed(seed))
    reached = sizes[order].cumsum(0)
    nearest = int((reached - fraction * len(indices)).abs().argmin()) + 1
    is_cut = torch.isin(scenes[indices], present[order[: min(nearest, len(present) - 1)]])
    return indices[~is_cut], indices[is_cut]


def _split_classes(labels: Tensor, indices: Tensor, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Cut this fraction off, of every class alike and at least one image; both parts in their old order."""
    generator = torch.Generator().manual_seed(seed)
    kept, cut = [], []
    for label, name in enumerate(classes):
        members = indices[labels[indices] == label]
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has {len(members)} training images, too few to set some aside for the holdout or the test"
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
