"""Errors of the profiler. Their messages are sentences for the user; see device_agents.errors."""

from __future__ import annotations

from collections.abc import Sequence

from device_agents.errors import DeviceError
from device_agents.support.errors import ToolError


class ModelError(ToolError):
    """A model file is damaged, or uses something that cannot be measured."""


class LayerError(ToolError, ValueError):
    """The shapes or parameters of a layer contradict each other."""


class PlanError(ToolError):
    """A plan file is damaged, or asks for layers that cannot exist."""


class TableError(ToolError):
    """A table is missing, damaged, of another format version, or does not fit what it is used for."""


class ExchangeError(TableError):
    """A table of another tool cannot be imported, or a table cannot be exported in another tool's format."""


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
        """The facts that differ, each with its old and its new value."""


class JournalNotWritable(JournalError):
    """A journal cannot be written, because the disk is full or another process writes it; what it holds is intact."""


class RunnerError(ToolError):
    """The runner on the device could not start, or sent an invalid message."""


class TooHot(DeviceError):
    """The device did not cool down within the time limit."""


class ServeError(ToolError):
    """The dashboard cannot be served: a package is missing, the port is in use, or the token is invalid."""


class HardwareError(ToolError):
    """A description of hardware is missing or invalid, or a layer cannot run on what it describes."""


class EngineError(ToolError):
    """The program that an engine for accelerators asks is not installed, or it has failed."""
