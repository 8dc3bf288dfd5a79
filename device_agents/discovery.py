"""Reaching devices: `open_agent("ssh:jetson")`. A new kind is one file and one line in AGENTS."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agents.adb.address import attached_by_adb, open_adb
from device_agents.agent import Agent, Attached, Options
from device_agents.errors import UnknownDevice
from device_agents.fake import FakeAgent
from device_agents.local import LocalAgent
from device_agents.replay import ReplayAgent
from device_agents.ssh.agent import SshAgent


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """How the devices of one kind are opened and addressed."""

    open: Callable[[str, Options], Agent]
    addresses: tuple[str, ...]
    """The forms of their addresses, for people."""


AGENTS: dict[str, DeviceKind] = {
    "local": DeviceKind(LocalAgent, ("local",)),
    "ssh": DeviceKind(SshAgent, ("ssh:HOST", "ssh:USER@HOST:PORT")),
    "adb": DeviceKind(open_adb, ("adb:SERIAL", "adb:HOST:PORT")),
    "replay": DeviceKind(ReplayAgent, ("replay:JOURNAL",)),
    "fake": DeviceKind(FakeAgent, ("fake:SCRIPT.toml",)),
}
ADDRESSES = tuple(form for kind in AGENTS.values() for form in kind.addresses)
RUNNER = Path(__file__).parent / "on_device" / "measure.py"


def open_agent(address: str, options: Options | None = None) -> Agent:
    """The agent for an address such as `local`. `UnknownDevice`, with the nearest name we know, for any other kind."""
    kind = address.split(":", 1)[0]
    if kind in AGENTS:
        return AGENTS[kind].open(address, options or Options())
    near = difflib.get_close_matches(kind, AGENTS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(AGENTS)}"
    raise UnknownDevice(f"there is no kind of device called {kind!r}; {hint}")


def attached() -> Sequence[Attached]:
    """Devices that can be seen without being named."""
    return [*LocalAgent.attached(), *attached_by_adb()]
