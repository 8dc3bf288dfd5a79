"""The kinds of devices there are: `open_agent("ssh:jetson")`. A new kind is one file and one line in AGENTS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from device_agents.agent import Agent, AgentKind, Attached, Options
from device_agents.errors import UnknownDevice
from device_agents.support.loading import load
from device_agents.support.text import did_you_mean

AGENTS: Mapping[str, str] = {
    "local": "device_agents.local:LocalAgent",
    "ssh": "device_agents.ssh.agent:SshAgent",
    "adb": "device_agents.adb.address:ADB",
    "replay": "device_agents.replay:ReplayAgent",
    "fake": "device_agents.fake:FakeAgent",
}
"""Module and name of an AgentKind, which is loaded when it is asked for, by what an address begins with."""


def agent_kind(address: str) -> AgentKind:
    """The kind of device that an address such as `local` or `ssh:jetson` names. `UnknownDevice` if it names none."""
    name = address.split(":", 1)[0]
    if name not in AGENTS:
        raise UnknownDevice(f"there is no kind of device called {name!r}; {did_you_mean(name, AGENTS)}")
    kind: AgentKind = load(AGENTS[name])
    return kind


def open_agent(address: str, options: Options | None = None) -> Agent:
    """An agent for the address, not yet connected. `UnknownDevice` for an address of no known kind."""
    return agent_kind(address)(address, options or Options())


def attached() -> Sequence[Attached]:
    """Devices that can be seen without being named."""
    return [device for name in AGENTS for device in agent_kind(name).attached()]


def address_forms() -> Sequence[str]:
    """How addresses of devices are written, for help texts: `local`, `ssh:HOST`."""
    return [form for name in AGENTS for form in agent_kind(name).address_forms]
