"""Removing everything that was ever sent to a device."""

from __future__ import annotations

from device_agents.device_lock import device_lock
from device_agents.discovery import open_agent
from profiler.devices.config import find_device


def clean_device(name: str) -> int:
    """Remove models, runners and libraries; the bytes that were freed. `DeviceBusy` while another run measures there."""
    known = find_device(name)
    agent = open_agent(known.address, known.options)
    with device_lock(agent), agent:
        return agent.clean()
