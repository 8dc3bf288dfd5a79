"""Reaching devices: `open_agent("local")` and, later, ssh, adb, replay. A new kind is one file and one line in AGENTS."""

from __future__ import annotations

import difflib
from pathlib import Path

from device_agents.agent import Agent, CommandResult, Stream
from device_agents.errors import UnknownDevice
from device_agents.local import LocalAgent

__all__ = ["AGENTS", "RUNNER", "Agent", "CommandResult", "Stream", "open_agent"]

AGENTS = {"local": LocalAgent}
RUNNER = Path(__file__).parent / "on_device" / "measure.py"


def open_agent(address: str) -> Agent:
    """The agent for an address such as `local`. `UnknownDevice`, with the nearest name we know, for any other kind."""
    kind = address.split(":", 1)[0]
    if kind in AGENTS:
        return AGENTS[kind](address)
    near = difflib.get_close_matches(kind, AGENTS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(AGENTS)}"
    raise UnknownDevice(f"there is no kind of device called {kind!r}; {hint}")
