"""Which way to an Android device an address means: `adb:SERIAL` is through adb's server, `adb:HOST:PORT` straight to it.

A device that the server is connected to over the network has HOST:PORT for its serial; then it is through the server too, which may
have paired with it. The two ways are imported when they are needed, for their libraries take a while.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from device_agents.agent import Agent, Attached, Options

HOST_AND_PORT = re.compile(r"adb:(?:[^:\s]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")


def open_adb(address: str, options: Options) -> Agent:
    from device_agents.adb.server import AdbAgent, knows

    if HOST_AND_PORT.fullmatch(address) and not knows(address):
        from device_agents.adb.direct import AdbDirectAgent

        return AdbDirectAgent(address, options)
    return AdbAgent(address, options)


def attached_by_adb() -> Sequence[Attached]:
    """What adb's server sees."""
    from device_agents.adb.server import AdbAgent

    return AdbAgent.attached()
