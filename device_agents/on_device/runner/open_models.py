"""Models that stay open, because opening one takes longer than to run it."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agents.on_device.runner.job import Job, Model, measures_latency
from device_agents.on_device.runner.runtimes.interface import Opened, Runtime

MEMORY_PER_FILE_BYTE = 3
"""Weights, a packed copy of them, and activations."""


@dataclass(frozen=True)
class Copies:
    """A model that is open so many times."""

    opened: Opened
    count: int
    bytes: int
    """Of all of them."""


class OpenModels:
    """Keeps models open within bounds on their number and memory; the least recently used are closed first."""

    def __init__(self, runtime: Runtime, folder: Path, job: Job) -> None:
        self.runtime, self.folder, self.seed = runtime, folder, job["seed"]
        self.max_bytes = job["memory_bytes"]
        self.max_open = job["max_open"] if runtime.many_open else job["max_open_pools"]
        self.with_copies = measures_latency(job)
        self.open_models: OrderedDict[str, Copies] = OrderedDict()
        self.not_finite: set[str] = set()
        """The models whose outputs are not, which need not be."""

    def get(self, model: Model) -> Opened:
        """The open model. If it was not open, it has been run once, and its outputs have been checked if they must be finite."""
        if model["id"] in self.open_models:
            self.open_models.move_to_end(model["id"])
            return self.open_models[model["id"]].opened
        path, count = Path(self.folder, model["file"]), model["copies"] if self.with_copies else 1
        size = path.stat().st_size * MEMORY_PER_FILE_BYTE * count
        while self.open_models and self._is_full(count, size):
            self.open_models.popitem(last=False)
        copies = [self.runtime.open(path, self.seed, model["as_it_is"]).run_once(finite=model["finite"]) for _ in range(count)]
        if not model["finite"] and model["id"] not in self.not_finite and _is_not_finite(copies[0]):
            self.not_finite.add(model["id"])
        self.open_models[model["id"]] = Copies(in_turn(copies), count, size)
        return self.open_models[model["id"]].opened

    def _is_full(self, count: int, size: int) -> bool:
        """Whether so many copies more, of so many bytes together, would exceed a bound."""
        count += sum(each.count for each in self.open_models.values())
        size += sum(each.bytes for each in self.open_models.values())
        return count > self.max_open or size > self.max_bytes


def _is_not_finite(opened: Opened) -> bool:
    """False where that is not known."""
    try:
        return not opened.is_finite()
    except (RuntimeError, ValueError, TypeError):  # what is no tensor, or has a type that numpy lacks, cannot be looked at
        return False


def in_turn(copies: Sequence[Opened]) -> Opened:
    """A model whose runs are runs of the copies, one after the other."""
    if len(copies) == 1:
        return copies[0]
    runs = itertools.cycle([copy.run for copy in copies])
    return Opened(lambda: next(runs)(), copies[0].outputs)
