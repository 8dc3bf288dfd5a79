"""One job at a time on a device from this host, because two at once would disturb each other's measurements.

The lock is that of a file of the device in the user's cache folder, in which it stands who holds it. It is not to be confused with
the runner's lease (`lease` in on_device/PROTOCOL.md), a file on the device that keeps two hosts apart.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from device_agents.agent import Agent
from device_agents.errors import DeviceError, DeviceLocked
from device_agents.support import locks
from device_agents.support.cache import cache_folder

POLL_S = 0.2


@contextmanager
def device_lock(agent: Agent, *, wait_s: float = 0.0, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Have the agent's device to oneself; a device that is `shared` needs no lock. The agent need not be connected.

    Waits up to `wait_s` seconds for another process to release the device, and says so once. `DeviceLocked` if it is not released
    in time, `DeviceError` if the file cannot be locked.
    """
    if agent.shared:
        yield
        return
    path, deadline = lock_path(agent.address), time.monotonic() + wait_s
    with ExitStack() as stack:
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locks.hold(path))
                break
            except BlockingIOError as exc:
                who, left_s = holder(agent.address) or "another run", deadline - time.monotonic()
                if left_s <= 0:
                    raise DeviceLocked(f"{agent.address} is measured by {who}; wait for it") from exc
            except OSError as exc:
                why = exc.strerror or exc
                raise DeviceError(f"{path} cannot be locked: {why}; set XDG_CACHE_HOME to a folder where it can be") from exc
            if say is not None:
                say(f"{agent.address} is measured by {who}; waiting for it")
                say = None
            time.sleep(min(POLL_S, left_s))
        yield


@contextmanager
def waiting_by(how: str) -> Iterator[None]:
    """Let the error of a device that is not released in time say how to wait for it, such as `add --wait`."""
    try:
        yield
    except DeviceLocked as exc:
        raise DeviceLocked(f"{exc}, or {how}") from exc


def holder(address: str) -> locks.Holder | None:
    """The process that holds the device's lock. None if none does, or it cannot be read at this moment."""
    return locks.holder(lock_path(address))


def lock_path(address: str) -> Path:
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", address)[:40]
    return cache_folder() / "locks" / f"{plain}-{hashlib.sha256(address.encode()).hexdigest()[:12]}.json"
