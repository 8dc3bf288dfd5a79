"""Which way to an Android device an address means: `adb:SERIAL` is through adb's server, `adb:HOST:PORT` straight to the device.

The serial of a device that the server is connected to over the network is HOST:PORT; then the way is through the server, which
may have paired with it. Both ways are imported when they are needed, because their libraries take a while to load.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from device_agents.agent import Agent, Attached, Options
from device_agents.remote import RemoteAgent

HOST_AND_PORT = re.compile(r"adb:(?:[^:\s]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")


class AdbKind:
    """Both ways, as one kind of device."""

    shared, has_conditions = RemoteAgent.shared, RemoteAgent.has_conditions
    address_forms: tuple[str, ...] = ("adb:SERIAL", "adb:HOST:PORT")

    def __call__(self, address: str, options: Options) -> Agent:
        from device_agents.adb.server import AdbAgent, knows

        if HOST_AND_PORT.fullmatch(address) and not knows(address):
            from device_agents.adb.direct import AdbDirectAgent

            return AdbDirectAgent(address, options)
        return AdbAgent(address, options)

    def attached(self) -> Sequence[Attached]:
        """The devices that adb's server sees."""
        from device_agents.adb.server import AdbAgent

        return AdbAgent.attached()


ADB = AdbKind()
