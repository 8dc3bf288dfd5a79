"""Sessions for tests, without a file of devices, a lock or a device to condition."""

from __future__ import annotations

from typing import Any

from device_agents.agent import Agent
from profiler.devices.config import Device
from profiler.measure.session import Session
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners import runner_named


def a_session(agent: Agent, runtime: str, settings: TimingSettings, runner: str | None = None, **more: Any) -> Session:
    """With the runner that is named, else the one that the agent comes with, else ours in Python."""
    target = Target(agent.address, runtime)
    device = Device(agent.address, agent.address)
    return Session(agent, runner_named(runner or agent.runner or "python")(agent, device, target), target, settings, **more)
