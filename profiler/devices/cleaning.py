"""Removing everything that was ever sent to a device."""

from __future__ import annotations

from device_agents.discovery import open_agent
from device_agents.lease import lease
from profiler.devices.config import find_device


def clean_device(name: str) -> int:
    """Remove models, runners and libraries; the bytes that were freed. `DeviceBusy` while another run measures there."""
    known = find_device(name)
    with lease(known.address), open_agent(known.address, known.options) as agent:
        return agent.clean()
