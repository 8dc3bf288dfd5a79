"""The user's own data: a function, given by name, that returns train and test as datasets or loaders of `torch.utils.data`.

An example is a pair (inputs, target). The inputs are a tensor or an array of any shape, or a tuple of several; all examples have
the same shapes. Of a loader, its dataset, its collate_fn and its number of workers are taken; the order of the examples and the
size of batches are the run's. Images in bytes are normalised by the run, everything else stays as the dataset gives it; integers of
32 and 64 bits are whole numbers, such as token ids, which networks get as int64.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset, default_collate

from netadapt.training.datasets import DataError
from netadapt.training.streaming import Stream, seeded
from netadapt.training.trees import shape_of, tensors_in
from netadapt.users_code import UsersError, asked_of, attribute_of, made_here, short_name

_ASKED = "train and test, two datasets or loaders of torch.utils.data whose examples are pairs (inputs, target)"
_OF_ONE = "the example of this number, a pair (inputs, target)"
_CHECKED_S = 10.0
"""Seconds for which examples are read before training starts; small datasets are read whole in this time."""
_CHECKED_AT_ONCE = 32
_PARTS = ("train", "test")


@dataclass(frozen=True, slots=True, eq=False)
class UsersSource:
    """The user's datasets, one after the other, as a source of a stream."""

    name: str
    """The name of the user's function."""
    datasets: tuple[Any, ...]
    """The dataset of train and that of test."""
    collates: tuple[Callable[[Any], Any] | None, ...]
    """The collate_fn of each; None for torch's own."""
    ends: tuple[int, ...]
    """The number of examples up to the end of each dataset."""
    classes: tuple[str, ...] = ()
    """The names of the classes; empty where targets are no labels."""
    shapes: tuple[tuple[int, ...], ...] | None = None
    """The shapes of the inputs of every example; None before they are known."""

    @property
    def users(self) -> bool:
        return True

    def __len__(self) -> int:
        return self.ends[-1]

    def place(self, index: int) -> tuple[int, int]:
        """The number of the dataset that has this example, and the example's number in it."""
        part = bisect_right(self.ends, index)
        return part, index - (self.ends[part - 1] if part else 0)

    def read(self, index: int) -> tuple[Any, Any]:
        part, number = self.place(index)
        where = f"example {number} of {_PARTS[part]} in {short_name(self.name)}"
        with asked_of(where, _OF_ONE):
            example = self.datasets[part][number]
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise UsersError(f"{where} is {_kind(example)}; it must be a pair (inputs, target)")
        if self.collates[part] is not None:
            return example[0], example[1]
        inputs, found = _as_tensors(example[0], where)
        if self.shapes is not None and found != self.shapes:
            raise UsersError(
                f"{where} has inputs of shape {_text(found)}, others have {_text(self.shapes)}; "
                "make them equal, for example by resizing or cropping"
            )
        return inputs, self._label(example[1], where) if self.classes else example[1]

    def _label(self, target: Any, where: str) -> int:
        """The number of a class, which may be in an array of one, of integers of any size."""
        if not isinstance(target, Tensor | np.ndarray | int | np.integer):
            raise UsersError(f"the target of {where} is {_kind(target)}; the task classification needs the number of a class")
        number = torch.as_tensor(target)
        if number.numel() != 1 or number.is_floating_point() or number.is_complex():
            kind = str(number.dtype).removeprefix("torch.")
            raise UsersError(
                f"the target of {where} has the shape {_text((tuple(number.shape),))} and the type {kind}; the task classification "
                "needs the number of a class as an integer, which argmax gives of one-hot rows"
            )
        if not 0 <= int(number) < len(self.classes):
            raise UsersError(f"{where} has the label {int(number)}, but there are {len(self.classes)} classes, from 0 on")
        return int(number)

    def collate(self, examples: Sequence[tuple[Any, Any]], indices: Sequence[int]) -> tuple[Any, Any]:
        part, _ = self.place(indices[0])
        own = self.collates[part]
        with asked_of(f"the batch of {_PARTS[part]} in {short_name(self.name)}", "equal shapes, or a loader with a collate_fn"):
            batch = default_collate(list(examples)) if own is None else own(list(examples))
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise UsersError(
                f"the collate_fn of {_PARTS[part]} in {short_name(self.name)} returned {_kind(batch)}; it must be (inputs, targets)"
            )
        inputs, targets = batch
        if not isinstance(inputs, Tensor):
            inputs = tuple(inputs)
            if not inputs or not all(isinstance(each, Tensor) for each in inputs):
                raise UsersError(f"the inputs of {short_name(self.name)} are {_kind(batch[0])}; they must be tensors")
        return inputs, targets


@dataclass(frozen=True, slots=True, eq=False)
class UsersData:
    """What the user's function has returned."""

    stream: Stream
    train: Tensor
    """The numbers of the training examples in the stream."""
    test: Tensor
    shapes: tuple[tuple[int, ...], ...]
    """The shapes of the inputs of an example."""
    in_bytes: bool
    """True for images in bytes."""
    classes: tuple[str, ...]
    """The names of the classes; empty where the datasets have no labels that are known."""
    labels: Tensor | None
    """The label of every training example, where they are known without reading the examples."""
    remarks: tuple[str, ...]


def load_users(name: str, *, classification: bool, workers: int | None) -> UsersData:
    """The user's data, with the first example of each dataset read. `UsersError` for anything that is not what is asked for.

    With `classification`, targets must be the numbers of classes.
    """
    function = attribute_of(name, "function")
    if not callable(function):
        raise DataError(f"{short_name(name)} is {_kind(function)}; name a function that returns {_ASKED}")
    with seeded(0), asked_of(short_name(name), _ASKED):  # a random split is the same in every process
        returned = function()
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise UsersError(f"{short_name(name)} returned {_kind(returned)}; it is asked for {_ASKED}{made_here(function)}")
    datasets, collates, remarks, asked_workers = [], [], [], workers
    for part, given in zip(_PARTS, returned, strict=True):
        dataset, collate = given, None
        if isinstance(given, DataLoader):
            dataset, collate = given.dataset, None if given.collate_fn is default_collate else given.collate_fn
            asked_workers = given.num_workers or asked_workers
            if not isinstance(given.sampler, RandomSampler | SequentialSampler):
                remarks.append(f"the sampler of {part} is left out, as the run orders the examples itself")
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise UsersError(
                f"{part} of {short_name(name)} is {_kind(dataset)}, which has no examples by number; return a dataset with "
                f"__len__ and __getitem__{made_here(function)}"
            )
        with asked_of(f"the length of {part} in {short_name(name)}", "the number of examples"):
            count = len(dataset)
        if not count:
            raise UsersError(f"{part} of {short_name(name)} is empty; it must have examples{made_here(function)}")
        datasets.append((dataset, count))
        collates.append(collate)
    ends = (datasets[0][1], datasets[0][1] + datasets[1][1])
    source = UsersSource(name, tuple(dataset for dataset, _ in datasets), tuple(collates), ends)
    shapes, in_bytes = _first(source, 0)
    labels = _labels(datasets[0][0], ends[0]) if classification else None
    classes = _classes(datasets[0][0], labels) if classification else ()
    if classification and not classes:
        raise UsersError(
            f"the classes of {short_name(name)} are not known; give its training dataset an attribute `classes`, a list of names, "
            "or name another task with --task"
        )
    source = UsersSource(name, source.datasets, source.collates, ends, classes, shapes if not any(collates) else None)
    if _first(source, ends[0])[0] != shapes:
        raise UsersError(f"train and test of {short_name(name)} have inputs of other shapes; make them equal")
    everything = torch.arange(ends[1])
    return UsersData(
        Stream(source, asked_workers),
        everything[: ends[0]],
        everything[ends[0] :],
        shapes,
        in_bytes,
        classes,
        labels,
        tuple(remarks),
    )


def check_examples(stream: Stream) -> int:
    """Read examples in an order of chance, all of them if this takes no longer than some seconds; the number of those read.

    `UsersError` for the first that is not as it should be.
    """
    order = torch.randperm(len(stream.source), generator=torch.Generator().manual_seed(0))
    source, done, began = stream.source, 0, time.monotonic()
    assert isinstance(source, UsersSource)
    part_of = torch.tensor([source.place(int(index))[0] for index in order])
    groups = [group for part in range(len(_PARTS)) for group in torch.split(order[part_of == part], _CHECKED_AT_ONCE)]
    mixed = [groups[place] for place in torch.randperm(len(groups), generator=torch.Generator().manual_seed(0)).tolist()]
    for group, (inputs, _) in zip(mixed, stream.batches(mixed), strict=False):
        for each in tensors_in(inputs):
            if each.is_floating_point() and not bool(each.isfinite().all()):
                bad = [int(index) for index, values in zip(group, each, strict=False) if not bool(values.isfinite().all())]
                part, number = source.place(bad[0] if bad else int(group[0]))
                raise UsersError(
                    f"example {number} of {_PARTS[part]} in {short_name(source.name)} has inputs that are not finite numbers; "
                    "remove or mend it"
                )
        done += len(group)
        if time.monotonic() - began > _CHECKED_S:
            break
    return done


def _first(source: UsersSource, index: int) -> tuple[tuple[tuple[int, ...], ...], bool]:
    """The shapes of the inputs of this example, and whether they are an image in bytes."""
    with seeded(0):
        inputs, _ = source.collate([source.read(index)], [index])
    tensors = list(tensors_in(inputs))
    return tuple(shape_of(each[0]) for each in tensors), isinstance(inputs, Tensor) and inputs.dtype is torch.uint8


def _as_tensors(inputs: Any, where: str) -> tuple[Any, tuple[tuple[int, ...], ...]]:
    """The inputs of an example with arrays as tensors, and their shapes."""
    several = inputs if isinstance(inputs, tuple | list) else (inputs,)
    tensors = [torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in several]
    for each in tensors:
        if not isinstance(each, Tensor):
            raise UsersError(
                f"the inputs of {where} are {_kind(each)}; they must be a tensor, an array, or a tuple of these, so let "
                "the dataset convert them"
            )
    shapes = tuple(map(shape_of, tensors))
    return tuple(tensors) if isinstance(inputs, tuple | list) else tensors[0], shapes


def _labels(dataset: Any, count: int) -> Tensor | None:
    """The labels of a dataset that has them as `targets` or `labels`, or as the last tensor of a TensorDataset."""
    tensors = getattr(dataset, "tensors", None)
    for found in (getattr(dataset, "targets", None), getattr(dataset, "labels", None), tensors[-1] if tensors else None):
        try:
            labels = torch.as_tensor(found) if found is not None else None
        except (TypeError, ValueError, RuntimeError):
            continue
        if labels is not None and labels.shape == (count,) and not labels.is_floating_point() and not labels.is_complex():
            return labels.long()
    return None


def _classes(dataset: Any, labels: Tensor | None) -> tuple[str, ...]:
    if names := _class_names(dataset):
        return names
    return () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))


def _class_names(dataset: Any) -> tuple[str, ...]:
    """The names of the classes: of the dataset, of that which it is a part of, or of those that it joins; empty for none."""
    if isinstance(dataset, Subset):
        return _class_names(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        found = {_class_names(part) for part in dataset.datasets}
        return found.pop() if len(found) == 1 else ()
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def _text(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("x".join(map(str, shape)) or "a single number" for shape in shapes)


def _kind(value: object) -> str:
    if value is None:
        return "nothing (None)"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
