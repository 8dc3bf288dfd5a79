"""Models that stay open, because opening one takes longer than to run it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from device_agents.on_device.runner.job import Job, Model
from device_agents.on_device.runner.runtimes.interface import Opened, Runtime


class OpenModels:
    """Keeps models open within bounds on their number and memory; the least recently used are closed first."""

    MEMORY_PER_FILE_BYTE = 3  # weights, a packed copy of them, and activations

    def __init__(self, runtime: Runtime, folder: Path, job: Job) -> None:
        self.runtime, self.folder, self.seed = runtime, folder, job["seed"]
        self.max_bytes = job["memory_bytes"]
        self.max_open = job["max_open"] if runtime.many_open else job["max_open_pools"]
        self.open_models: OrderedDict[str, tuple[Opened, int]] = OrderedDict()

    def get(self, model: Model) -> Opened:
        """The open model. If it was not open, it has been run once and its outputs have been checked."""
        if model["id"] in self.open_models:
            self.open_models.move_to_end(model["id"])
            return self.open_models[model["id"]][0]
        path = Path(self.folder, model["file"])
        size = path.stat().st_size * self.MEMORY_PER_FILE_BYTE
        while self.open_models and (len(self.open_models) >= self.max_open or size + self._bytes() > self.max_bytes):
            self.open_models.popitem(last=False)
        opened = run_once(self.runtime, path, self.seed)
        self.open_models[model["id"]] = (opened, size)
        return opened

    def _bytes(self) -> int:
        return sum(size for _, size in self.open_models.values())


def run_once(runtime: Runtime, path: Path, seed: int) -> Opened:
    """An opened model that has run once. ValueError if its outputs are not finite."""
    opened = runtime.open(path, seed)
    opened.run()
    if not all(output.is_finite() for output in opened.outputs()):
        raise ValueError("its outputs are not finite")
    return opened
