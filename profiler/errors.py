"""Errors of the profiler, all of them sentences for the user; see device_agents.errors."""

from __future__ import annotations

from collections.abc import Sequence

from device_agents.errors import DeviceError
from device_agents.support.errors import ToolError


class ModelError(ToolError):
    """A model file cannot be read, or uses something that cannot be measured."""


class LayerError(ToolError, ValueError):
    """A layer whose shapes or parameters contradict each other."""


class PlanError(ToolError):
    """A plan file is damaged, or asks for layers that cannot exist."""


class TableError(ToolError):
    """A table is missing, damaged, of another format version, or does not fit what it is used for."""


class ExchangeError(TableError):
    """A table from outside is not what it is said to be, or one of ours cannot be written in a foreign form."""


class LayerNotMeasured(TableError):
    """The table has neither this layer nor neighbours to interpolate it from."""


class JournalError(ToolError):
    """A journal is damaged, or was recorded under other conditions than the ones asked for."""


class DeviceChanged(JournalError):
    """The device or its runtime is not the one that the first measurements were made on."""

    def __init__(self, differences: Sequence[str]) -> None:
        super().__init__(
            f"the device or its runtime has changed since the table was begun ({'; '.join(differences)}); build a new table"
        )
        self.differences = tuple(differences)
        """What was and what is, in words."""


class JournalNotWritable(JournalError):
    """There is no room for more, or another process writes it: nothing is wrong with what is in it."""


class RunnerError(ToolError):
    """The runner on the device could not start, or says things that make no sense."""


class TooHot(DeviceError):
    """The device did not cool down in the time allowed for it."""


class ServeError(ToolError):
    """The page cannot be served: a package is missing, the port is taken, or it would be open to everybody."""
