"""Examples that are read while a network is trained, by worker processes where reading takes time, instead of kept in memory.

Neither the order of examples nor what is drawn at random for them depends on the number of workers: the groups of indices come from
the reader of the stream, and all generators of random numbers are seeded anew for each example. The workers of a stream stay as
long as the process, so that all trainings in it share them.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from device_agents.support.errors import ToolError
from netadapt.training.trees import WHOLE_NUMBERS, Inputs, mapped
from netadapt.training.types import Part, Task, normalised

_WORTH_WORKERS_S = 0.0003
"""Seconds for reading one example above which workers read them: handing a batch over takes a fraction of this for each."""
_AHEAD = 2
"""Batches that each worker reads ahead, which bounds the memory of a stream."""


class Source(Protocol):
    """What a stream reads from: examples by number."""

    @property
    def users(self) -> bool:
        """True if the user's code makes the examples, which may draw random numbers; targets are then as the task takes them."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Any, Any]:
        """Input and target of one example. `ToolError` if it cannot be read."""
        ...

    def collate(self, examples: Sequence[tuple[Any, Any]], indices: Sequence[int]) -> tuple[Any, Any]:
        """The batch of these examples."""
        ...


@dataclass(frozen=True, slots=True)
class _Group:
    """The examples of one batch, and the seed of its first; None for a seed of each example by its number."""

    indices: Sequence[int]
    seed: int | None


class _Fetch(torch.utils.data.Dataset[Any]):
    """The source as a dataset whose items are whole batches. An error is an item too, as it has to come through from a worker."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitem__(self, group: _Group) -> tuple[Any, Any] | ToolError:
        try:
            if not self._source.users:
                return self._source.collate([self._source.read(index) for index in group.indices], group.indices)
            with seeded(0):
                examples = []
                for place, index in enumerate(group.indices):
                    _seed(index if group.seed is None else group.seed + place)
                    examples.append(self._source.read(index))
                return self._source.collate(examples, group.indices)
        except ToolError as exc:
            return exc


class _Order:
    """The groups of the iteration that is going on, as the sampler of a loader that outlives it."""

    def __init__(self) -> None:
        self.groups: Iterator[_Group] = iter(())

    def __iter__(self) -> Iterator[_Group]:
        return self.groups


class Stream:
    """Batches of a source. One iteration at a time: the next one ends that before."""

    def __init__(self, source: Source, workers: int | None = None) -> None:
        """`workers` is the number of processes that read; None for one per core if reading takes time, else none."""
        self.source, self._fetch, self._order = source, _Fetch(source), _Order()
        self._asked, self._turn = workers, 0
        self._loader: DataLoader[Any] | None = None
        self._seconds: float | None = None

    def batch(self, indices: Tensor) -> tuple[Any, Any]:
        """The batch of these examples, read in this process. Errors as for the source."""
        return _raised(self._fetch[_Group(indices.tolist(), None)])

    def batches(
        self, groups: Iterable[Tensor], *, seed: int | None = None, after: int = 0, offset: int = 0
    ) -> Iterator[tuple[Any, Any]]:
        """The batches of these groups of indices, in their order. Errors as for the source, when their batch is reached.

        What an example draws at random depends on the seed and its place, or without a seed on its number; `Part.batches` says
        what `after` and `offset` are.
        """
        return map(_raised, self.outcomes(groups, seed=seed, after=after, offset=offset))

    def outcomes(
        self, groups: Iterable[Tensor], *, seed: int | None = None, after: int = 0, offset: int = 0
    ) -> Iterator[tuple[Any, Any] | ToolError]:
        """The same with errors of the source in the places of their batches."""
        self._turn += 1
        turn, size = self._turn, 1 << 20  # no batch is larger, so that all examples have seeds of their own
        numbered = (
            _Group(group.tolist(), None if seed is None else (seed << 40) + number * size + offset)
            for number, group in enumerate(groups, start=after)
        )
        if self._seconds is None and self._asked is None:
            first = next(numbered, None)
            if first is None:
                return
            began = time.perf_counter()
            batch = self._fetch[first]
            self._seconds = (time.perf_counter() - began) / max(1, len(first.indices))
            yield batch
        loader = self._loader_of(self._workers())
        if loader is None:
            yield from (self._fetch[group] for group in numbered)
            return
        self._order.groups = numbered
        for batch in loader:
            yield batch
            if turn != self._turn:
                raise RuntimeError("two iterations of a stream at the same time")

    def _workers(self) -> int:
        if not hasattr(os, "fork") or sys.platform == "darwin":  # elsewhere workers would have to unpickle the dataset
            return 0
        if self._asked is not None:
            return self._asked
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cores if cores > 1 and (self._seconds or 0) > _WORTH_WORKERS_S else 0

    def _loader_of(self, workers: int) -> DataLoader[Any] | None:
        """The loader with this number of workers, which is made again where a process has got other cores; None without workers."""
        if self._loader is None or self._loader.num_workers != workers:
            # a generator of its own, or else what networks draw at random would depend on the number of workers
            self._loader = None if not workers else DataLoader(
                self._fetch, batch_size=None, sampler=self._order, num_workers=workers, collate_fn=_as_it_is,
                prefetch_factor=_AHEAD, persistent_workers=True, multiprocessing_context="fork", generator=torch.Generator(),
            )  # fmt: skip
        return self._loader


@dataclass(frozen=True, slots=True, eq=False)
class StreamedPart(Part):
    """A part whose examples are read when they are needed."""

    stream: Stream
    indices: Tensor
    """The numbers of its examples in the stream, int64 (n,)."""
    of_example: tuple[tuple[int, ...], ...]
    """The shapes of the inputs of one example."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool
    task: Task

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.of_example

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Inputs, Tensor]:
        return self._finished(self.stream.batch(self.indices[indices]), device)

    def subset(self, indices: Tensor) -> Self:
        return replace(self, indices=self.indices[indices])

    def in_raw_values(self) -> Self:
        return replace(self, mean=(), std=())

    def of_task(self, task: Task) -> Self:
        return replace(self, task=task)

    def joined(self, other: Part) -> Self:
        assert isinstance(other, StreamedPart) and other.stream is self.stream
        return replace(self, indices=torch.cat([self.indices, other.indices]))

    def batches(
        self,
        groups: Iterable[Tensor],
        device: torch.device | str = "cpu",
        *,
        seed: int | None = None,
        after: int = 0,
        offset: int = 0,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        for batch in self.stream.batches((self.indices[group] for group in groups), seed=seed, after=after, offset=offset):
            yield self._finished(batch, device)

    def _finished(self, batch: tuple[Any, Any], device: torch.device | str) -> tuple[Inputs, Tensor]:
        inputs, targets = mapped(batch[0], lambda each: each.to(device)), mapped(batch[1], lambda each: each.to(device))
        inputs = mapped(inputs, lambda each: each.long() if each.dtype in WHOLE_NUMBERS else each)
        if not isinstance(inputs, Tensor):
            inputs = tuple(inputs)
        elif inputs.dtype is not torch.int64:
            inputs = normalised(inputs, self.mean, self.std)
        return inputs, targets if self.stream.source.users else self.task.decode_targets(targets)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all generators of random numbers inside the with statement; afterwards they go on as before."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=()):
        _seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed % (1 << 63))
    random.seed(seed)
    np.random.seed(seed % (1 << 32))


def _raised(batch: tuple[Any, Any] | ToolError) -> tuple[Any, Any]:
    if isinstance(batch, ToolError):
        raise batch
    return batch


def _as_it_is(batch: Any) -> Any:
    return batch
