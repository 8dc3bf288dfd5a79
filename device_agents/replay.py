"""A recorded journal as a device: `replay:TABLE.journal.jsonl`, opened by name only.

Useful to try what a table would be with other settings, and to look into a build on a machine without its device. The journal is
read and played by profiler/runners/replay.py.
"""

from __future__ import annotations

from pathlib import Path

from device_agents.agent import Options
from device_agents.errors import DeviceError
from device_agents.memory import MemoryAgent


class ReplayAgent(MemoryAgent):
    """The path of the journal, and the models that are to be replayed."""

    runner: str | None = "replay"
    what = "a recording"

    def __init__(self, address: str, options: Options | None = None) -> None:
        """`DeviceError` if the address names no journal. It is not opened here."""
        super().__init__(address, options)
        path = address.partition(":")[2]
        if not path:
            raise DeviceError("`replay:` needs the journal of a build, as in replay:TABLE.journal.jsonl")
        self.journal = Path(path)
