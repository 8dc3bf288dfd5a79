"""Which devices there are: those that profile.toml names and those that are attached, and what stands in the way of each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from device_agents.device_lock import device_lock
from device_agents.discovery import attached, open_agent
from device_agents.support.errors import ToolError
from profiler.devices.config import Device, configured_devices
from profiler.measure.opening import choose_runner
from profiler.protocol.events import Probe
from profiler.protocol.settings import Target


@dataclass(frozen=True, slots=True)
class Found:
    """A device, and what it said or why it cannot be asked."""

    device: Device
    description: str
    obstacle: str | None
    probe: Probe | None


def roster(python: str | None = None) -> list[Found]:
    """Every device, asked side by side. A device that is being measured is left alone."""
    candidates = list(_candidates())
    with ThreadPoolExecutor(max(1, len(candidates))) as pool:
        return list(pool.map(lambda found: _asked(found, python), candidates))


def _candidates() -> Iterator[Found]:
    named = configured_devices()
    seen = {item.address: item for item in attached()}
    for device in named.values():
        item = seen.pop(device.address, None)
        yield Found(device, item.description if item else "", item.obstacle if item else None, None)
    for item in seen.values():
        yield Found(Device(item.address, item.address), item.description, item.obstacle, None)


def _asked(found: Found, python: str | None) -> Found:
    if found.obstacle is not None:
        return found
    device = found.device
    try:
        agent = open_agent(device.address, device.options)
        with device_lock(agent), agent:
            probe = choose_runner(agent, device, Target(device.name, python=python)).probe()
    except ToolError as exc:
        return Found(device, found.description, str(exc), None)
    return Found(device, found.description, None, probe)
