"""A dataset opened in three parts that never mix.

The training part; the holdout, which is cut from the training images and scores candidates; and the test part, on which nothing
is computed until all choices are made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netadapt.registry import load
from netadapt.training.datasets import DATASETS, DataError, name_and_path
from netadapt.training.datasets.images import CHUNK, LabelledImages
from netadapt.training.tasks import open_task
from netadapt.training.types import Dataset, Part

TEST_SPLIT_SEED = 0
"""The seed by which a test part is cut off a dataset that has none: every run is judged by the same images."""


def open_dataset(spec: str, *, resolution: int, channels: int = 3, seed: int, holdout_fraction: float = 0.15) -> Dataset:
    """`digits`, `cifar10:PATH`, `folder:PATH`, `nyu:PATH`, `scenes` or just a path. The seed decides which training images are
    the holdout.

    Images have as many channels as their dataset gives, or one: the mean of them.

    `DataError` says in one sentence what is wrong with the path, the files or the fraction.
    """
    if resolution < 1 or not 0 < holdout_fraction < 1:
        raise DataError(f"needs a resolution above 0 and a holdout between 0 and 1, got {resolution} and {holdout_fraction:g}")
    name, path = name_and_path(spec)
    labelled: LabelledImages = load(DATASETS[name].address)(path, resolution)
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
    for start in range(0, len(images), CHUNK):
        grey[start : start + CHUNK] = images[start : start + CHUNK].float().mean(dim=1, keepdim=True).round().byte()
    return grey


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
        for chunk in torch.split(indices, CHUNK):
            counts += torch.bincount(images[chunk, channel].flatten().int(), minlength=256)
        share = counts / counts.sum()
        mean = float((share * values).sum())
        means.append(mean)
        stds.append(max(float((share * (values - mean) ** 2).sum().sqrt()), 1e-3))  # a channel may be of one value throughout
    return tuple(means), tuple(stds)
