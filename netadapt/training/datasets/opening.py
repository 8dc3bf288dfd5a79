"""A dataset opened in three parts that have no image in common.

These are the training part; the holdout, which is split off the training images and scores candidates; and the test part, on
which nothing is computed until all choices are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from device_agents.support.errors import ToolError
from netadapt.errors import SettingsError
from netadapt.registry import load
from netadapt.training.datasets import DATASETS, DataError, is_users, name_and_path
from netadapt.training.datasets.images import CHUNK, ImageSource, LabelledImages, damaged
from netadapt.training.datasets.users import load_users
from netadapt.training.streaming import Stream, StreamedPart
from netadapt.training.tasks import DEFAULT_TASK, open_task
from netadapt.training.tasks.users import UsersTask, has_functions
from netadapt.training.types import Dataset, ImagesInMemory, Known, Part, Task
from netadapt.users_code import is_file, short_name

TEST_SPLIT_SEED = 0
"""The seed by which a test part is split off a dataset that has none, so that every run is tested on the same images."""
_TEST_FRACTION = 0.25
_MEAN_IMAGES = 10_000
"""Images that are read, at most, for the mean and the standard deviation."""
_READ_AT_ONCE = 64
_CHANNELS = 3
_MIN_STD = 1e-3  # of a channel that has a single value throughout, as images are divided by it


def open_dataset(
    spec: str,
    *,
    resolution: int,
    channels: int = 3,
    seed: int,
    holdout_fraction: float = 0.15,
    task: Task | None = None,
    workers: int | None = None,
    known: Known | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """The dataset of a name such as `digits`, a name with a path such as `folder:PATH`, a path, or a user's function.

    The seed decides which training images are the holdout. Images are square and have the channels of their dataset, or one, the
    mean of these; those of a user's function are as it gives them. `task` replaces the dataset's own. `workers` processes read
    what is not kept in memory; all of that is read once here, unless it is `known` from when the run began. `mean` and `std`, of
    each channel or one of all, take the place of those of the training images. `DataError` if the path, the files, the number of
    channels or the fraction is wrong.
    """
    if resolution < 1 or not 0 < holdout_fraction < 1:
        raise DataError(
            f"the resolution must be above 0 and the holdout fraction between 0 and 1, got {resolution} and {holdout_fraction:g}"
        )
    if is_users(spec):
        return _users_dataset(spec, seed, holdout_fraction, task, workers, known, mean, std)
    name, path = name_and_path(spec)
    labelled: LabelledImages = load(DATASETS[name].address)(path, resolution)
    source = labelled.images if isinstance(labelled.images, ImageSource) else None
    left_out: tuple[str, ...] = ()
    if source is not None:
        source = replace(source, grey=_is_grey(channels, _CHANNELS, spec))
        stream = Stream(source, workers)
        left_out = _unreadable(stream, source) if known is None else known.left_out
    there = torch.arange(len(labelled.images))
    if source is not None and source.name_of is not None and left_out:
        there = torch.tensor([number for number in there.tolist() if source.name_of(number) not in left_out])
    if labelled.is_test is None:
        training, testing = _split(labelled, there, _TEST_FRACTION, TEST_SPLIT_SEED)
    else:
        training, testing = there[~labelled.is_test[there]], there[labelled.is_test[there]]
    if labelled.is_holdout is None:
        kept, held_out = _split(labelled, training, holdout_fraction, seed)
    else:
        kept, held_out = training[~labelled.is_holdout[training]], training[labelled.is_holdout[training]]
    own = open_task(labelled.task)
    if isinstance(task, UsersTask):
        own = replace(task, stored_for=own)
    elif task is not None and task.name != own.name:
        raise SettingsError(f"{spec} has targets for {own.name}, not for {task.name}; leave --task out, or choose other data")
    if source is None:
        assert isinstance(labelled.images, Tensor)
        images = _with_channels(labelled.images, channels, spec)
        means, stds = _given(mean, std, channels, spec) or _mean_and_std(images, kept)
        everything: Part = ImagesInMemory(images, labelled.targets, means, stds, labelled.mirrored, own)
    else:
        means, stds = _given(mean, std, channels, spec) or (
            (known.mean, known.std) if known is not None else _mean_and_std_of_stream(stream, kept)
        )
        shape = (channels, resolution, resolution)
        everything = StreamedPart(stream, torch.arange(len(source)), (shape,), means, stds, labelled.mirrored, own)
    more = (f"{len(left_out)} images in it that cannot be read are left out, such as {left_out[0]}",) if left_out else ()
    return Dataset(
        labelled.name, labelled.classes, everything.subset(kept), everything.subset(held_out), everything.subset(testing),
        (*labelled.remarks, *more), known=Known(means, stds, _digest(source, (kept, held_out, testing)), left_out),
    )  # fmt: skip


def _digest(source: ImageSource | None, parts: Sequence[Tensor]) -> str:
    """What tells that the images of every part are still the same: from their numbers, and from the names of their files."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.numpy().tobytes())
        if source is not None and source.name_of is not None:
            found.update("\n".join(map(source.name_of, part.tolist())).encode())
    return found.hexdigest()[:16]


def _unreadable(stream: Stream, source: ImageSource) -> tuple[str, ...]:
    """The names of the images that cannot be read; each is read once. `DataError` if there are any that may not be left out."""
    if source.name_of is None:
        return ()
    groups, names, first = torch.split(torch.arange(len(source)), _READ_AT_ONCE), [], None
    for group, outcome in zip(groups, stream.outcomes(groups), strict=True):
        for number in group.tolist() if isinstance(outcome, ToolError) else ():
            try:
                source.read(number)
            except DataError as exc:
                names.append(source.name_of(number))
                first = first or exc
    if first is not None and not source.skip_damaged:
        raise damaged(first, len(names), len(source)) from first
    return tuple(names)


def _users_dataset(
    name: str,
    seed: int,
    holdout_fraction: float,
    task: Task | None,
    workers: int | None,
    known: Known | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Dataset:
    """The data of the user's function, for this task, or else that of its file, or else classification."""
    where = name.rpartition(":")[0]
    if task is None:
        task = (
            UsersTask(str(Path(where).resolve()) if is_file(where) else where) if has_functions(where) else open_task(DEFAULT_TASK)
        )
    data = load_users(name, classification=task.name == DEFAULT_TASK, workers=workers)
    if data.labels is not None:
        kept, held_out = _split_classes(data.labels, data.train, holdout_fraction, seed, data.classes)
    else:
        kept, held_out = _split_scenes(torch.arange(len(data.train)), data.train, holdout_fraction, seed)
    if mean is not None and not data.in_bytes:
        raise DataError(
            f"{short_name(name)} gives inputs that are no images in bytes, which its own code normalises; leave --mean and --std "
            "out, or let it give bytes, uint8 (c, h, w)"
        )
    means, stds = _given(mean, std, data.shapes[0][0], short_name(name)) or (
        (known.mean, known.std) if known else _mean_and_std_of_stream(data.stream, kept) if data.in_bytes else ((), ())
    )
    train = StreamedPart(data.stream, kept, data.shapes, means, stds, False, task)
    return Dataset(
        short_name(name),
        data.classes,
        train,
        replace(train, indices=held_out),
        replace(train, indices=data.test),
        data.remarks,
        True,
        Known(means, stds, _digest(None, (kept, held_out, data.test))),
    )


def _given(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int, spec: str
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The mean and std that the user gave, for each channel; None where none were given. `DataError` for another number of them."""
    if mean is None or std is None:
        return None
    if len(mean) not in (1, channels):
        raise DataError(
            f"--mean and --std have {len(mean)} numbers, the images of {spec} have {channels} channels; give {channels} or 1"
        )
    times = channels if len(mean) == 1 else 1
    return tuple(mean) * times, tuple(std) * times


def _with_channels(images: Tensor, channels: int, spec: str) -> Tensor:
    """The images, uint8 (n, c, h, w), with this number of channels."""
    if not _is_grey(channels, images.shape[1], spec):
        return images
    grey = torch.empty((len(images), 1, *images.shape[2:]), dtype=torch.uint8)
    for start in range(0, len(images), CHUNK):
        grey[start : start + CHUNK] = images[start : start + CHUNK].float().mean(dim=1, keepdim=True).round().byte()
    return grey


def _is_grey(channels: int, there: int, spec: str) -> bool:
    """True if the network takes one channel of images that have more. `DataError` for any other difference."""
    if channels not in (1, there):
        raise DataError(f"the images of {spec} have {there} channels, the network takes {channels}; give it {there} or 1")
    return channels != there


def _split(labelled: LabelledImages, indices: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The indices in two parts, each in its old order; the second gets about this fraction of them."""
    if labelled.classes:
        return _split_classes(labelled.targets, indices, fraction, seed, labelled.classes)
    scenes = torch.arange(len(labelled.images)) if labelled.scenes is None else labelled.scenes
    return _split_scenes(scenes, indices, fraction, seed)


def _split_scenes(scenes: Tensor, indices: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The split by whole scenes whose number of images is nearest to the fraction; each part gets at least one scene."""
    present, sizes = torch.unique(scenes[indices], return_counts=True)
    if len(present) < 2:
        raise DataError(
            f"the training images show {len(present)} scenes, too few to set one aside for the holdout or the test; add images"
        )
    order = torch.randperm(len(present), generator=torch.Generator().manual_seed(seed))
    reached = sizes[order].cumsum(0)
    nearest = int((reached - fraction * len(indices)).abs().argmin()) + 1
    is_cut = torch.isin(scenes[indices], present[order[: min(nearest, len(present) - 1)]])
    return indices[~is_cut], indices[is_cut]


def _split_classes(labels: Tensor, indices: Tensor, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The split of every class by the same fraction; each part gets at least one image of each class."""
    generator = torch.Generator().manual_seed(seed)
    kept, cut = [], []
    for label, name in enumerate(classes):
        members = indices[labels[indices] == label]
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has {len(members)} training images, too few to set some aside for the holdout or the test; "
                "add images or remove the class"
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        cut.append(shuffled[:count])
        kept.append(shuffled[count:])
    return torch.cat(kept).sort().values, torch.cat(cut).sort().values


def _mean_and_std(images: Tensor, indices: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of every channel over the images at these indices, where 0 is black and 1 is white.

    They come from the counts of the 256 values, which is exact and needs no copy of the images in floats.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for chunk in torch.split(indices, CHUNK):
            counts += torch.bincount(images[chunk, channel].flatten().int(), minlength=256)
        share = counts / counts.sum()
        mean = float((share * values).sum())
        means.append(mean)
        stds.append(max(float((share * (values - mean) ** 2).sum().sqrt()), _MIN_STD))
    return tuple(means), tuple(stds)


def _mean_and_std_of_stream(stream: Stream, indices: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same of images that are read, of at most `_MEAN_IMAGES` of them."""
    chosen = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:_MEAN_IMAGES]]
    count, total, squares = 0, torch.zeros(0), torch.zeros(0)
    for images, _ in stream.batches(torch.split(chosen, _READ_AT_ONCE)):
        values = images.transpose(0, 1).flatten(1).long()  # (c, n * h * w)
        if not count:
            total, squares = torch.zeros(len(values), dtype=torch.int64), torch.zeros(len(values), dtype=torch.int64)
        count, total, squares = count + values.shape[1], total + values.sum(dim=1), squares + values.square().sum(dim=1)
    mean = total.double() / count / 255
    variance = squares.double() / count / 255**2 - mean.square()
    return tuple(mean.tolist()), tuple(variance.clamp(min=_MIN_STD**2).sqrt().tolist())
