"""A simulated device: `fake:SCRIPT.toml` (device_agents/fake_script.py describes the script), opened by name only.

The agent is the link to it and its store, with the faults of both that the script asks for. What is measured there, and every
other fault, is made up by profiler/runners/simulated.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from device_agents.agent import Options
from device_agents.errors import DeviceError, DeviceUnreachable, LinkLost, StoreFailed
from device_agents.fake_script import EXAMPLE, Fault, read_script
from device_agents.memory import MemoryAgent

PUSHES = 3
"""Attempts at a push, as agents of real devices make."""


class FakeAgent(MemoryAgent):
    """The state of the link, with pushes counted, lasts as long as the agent."""

    runner: str | None = "simulated"
    what = "simulated"

    def __init__(self, address: str, options: Options | None = None) -> None:
        """`DeviceError` if there is no script or it makes no sense."""
        super().__init__(address, options)
        path = address.partition(":")[2]
        if not path:
            raise DeviceError(f"`fake:` needs a script, as in fake:SCRIPT.toml, which says {EXAMPLE}")
        self.script = read_script(Path(path))
        self.pushes = 0
        """Attempts at pushes so far, those that arrived short included."""
        self._stores = 0
        self._lost, self._failing_reconnects = False, 0

    def reach(self) -> None:
        """`LinkLost` while the connection is broken."""
        if self._lost:
            raise LinkLost(f"the connection to {self.address} broke off")

    def break_link(self, fault: Fault) -> NoReturn:
        """Let a `link_lost` or a `reboot` happen, which empties the store as well: `LinkLost`."""
        self._lost, self._failing_reconnects = True, fault.reconnects
        if fault.kind == "reboot":
            self.files.clear()
        raise LinkLost(f"the connection to {self.address} broke off")

    def reconnect(self) -> None:
        if self._failing_reconnects > 0:
            self._failing_reconnects -= 1
            raise DeviceUnreachable(f"{self.address} cannot be reached now; its script says so")
        self._lost = False

    def store(self, files: Mapping[str, bytes]) -> str:
        self.reach()
        if not files.keys() <= self.files.keys():
            self._push()
        return super().store(files)

    def _push(self) -> None:
        self._stores += 1
        short = sum(fault.attempts for fault in self.script.faults if fault.push == self._stores)
        self.pushes += min(PUSHES, short + 1)
        if short >= PUSHES:
            raise StoreFailed(
                f"files could not be put on {self.address} in {PUSHES} attempts, they arrived short; its script says so"
            )

    def clean(self) -> int:
        self.reach()
        return super().clean()
