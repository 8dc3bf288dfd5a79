"""Which way to an Android device an address means: `adb:SERIAL` is through adb's server, `adb:HOST:PORT` straight to it.

The two ways are imported when they are needed, for their libraries take a while.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from device_agents.agent import Agent, Attached, Options

HOST_AND_PORT = re.compile(r"adb:(?:[^:\s]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")


def open_adb(address: str, options: Options) -> Agent:
    if HOST_AND_PORT.fullmatch(address):
        from device_agents.adb_direct import AdbDirectAgent

        return AdbDirectAgent(address, options)
    from device_agents.adb import AdbAgent

    return AdbAgent(address, options)


def attached_by_adb() -> Sequence[Attached]:
    """What adb's server sees."""
    from device_agents.adb import AdbAgent

    return AdbAgent.attached()
