"""What a runtime is to the rest of the runner."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from device_agents.on_device.runner.executed import Executed


class Output(NamedTuple):
    """An output of a model: its values flat, as a list or an array."""

    shape: list[int]
    type: str
    values: Any

    @classmethod
    def of_array(cls, array: Any) -> Output:
        flat = array.reshape(-1)
        return cls(list(array.shape), str(array.dtype), flat.view("uint8") if array.dtype.kind == "b" else flat)

    def is_finite(self) -> bool:
        if isinstance(self.values, list):
            return all(math.isfinite(value) for value in self.values)
        if self.values.dtype.kind in "iuOSU" or not len(self.values):  # numbers or text
            return True
        return bool(abs(self.values.astype("float64")).max() < math.inf)  # a NaN compares false

    def told(self, most: int) -> dict[str, Any]:
        values = self.values[:most]
        if not isinstance(values, list):
            values = (values if values.dtype.kind in "iu" else values.astype("float64")).tolist()
        return {"shape": self.shape, "type": self.type, "values": values}


class Opened(NamedTuple):
    """A model that is ready to run."""

    run: Callable[[], object]
    outputs: Callable[[], Sequence[Output]]

    def run_once(self, *, finite: bool) -> Opened:
        """The same model, run once. ValueError if its outputs must be finite and are not."""
        self.run()
        if finite and not self.is_finite():
            raise ValueError("its outputs are not finite")
        return self

    def is_finite(self) -> bool:
        """Whether all outputs of the last run are."""
        return all(output.is_finite() for output in self.outputs())


class Runtime(ABC):
    """A runtime that has been loaded."""

    package: ClassVar[str]
    """The Python package; without it the runtime is missing."""
    model: ClassVar[str]
    """The file that a probe runs."""
    version: str
    library_path: Path | None
    """The shared library that does the work, if it is known."""
    flags: dict[str, Any]
    """How it was built and set, for the record."""
    many_open: bool
    """False if each open model has a pool of spinning threads of its own."""

    @abstractmethod
    def __init__(self, threads: int, folder: Path) -> None:
        """`folder` is that of the job. ModuleNotFoundError, NotInThisBuild, or whatever a broken package raises."""

    @abstractmethod
    def open(self, path: Path, seed: int, as_it_is: bool) -> Opened:
        """A model with its inputs filled; `as_it_is` if it must not be optimised.

        Any exception of the runtime's own if it cannot be opened.
        """

    @abstractmethod
    def executed(self, path: Path, seed: int, as_it_is: bool, inferences: int) -> Executed:
        """What is executed for a model, from so many inferences under the runtime's profiler. Exceptions are those of `open`."""


class NotInThisBuild(Exception):
    """The runtime is installed, but was built without the provider that was asked for."""


def newest(folder: Path, patterns: Iterable[str]) -> Path | None:
    """The last file by name of the first pattern that any file matches."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[-1]
    return None
