"""From the name of a device to a session on it: leased, connected, conditioned, and left as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from device_agents.agent import Agent
from device_agents.device_lock import device_lock
from device_agents.discovery import open_agent
from device_agents.errors import DeviceError
from device_agents.support.errors import ToolError
from profiler.devices.conditioning import Conditioned, conditioned, wait_until_cool
from profiler.devices.config import Device, find_device
from profiler.measure.session import Session
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners import Runner, runner_named
from profiler.runners.program import ProgramRunner

PATIENCE_S = 3600.0
"""Work that takes hours waits so long for a device that somebody else is measuring on, rather than do without it."""


@contextmanager
def open_session(
    target: Target, settings: TimingSettings | None = None, *, progress: ProgressReporter | None = None, wait_s: float = 0.0
) -> Iterator[Session]:
    """A session that has the device to itself. `DeviceBusy` if that takes longer than `wait_s`."""
    device, say = find_device(target.device), (progress or Silent()).say
    with ExitStack() as stack:
        agent = open_agent(device.address, device.options)
        stack.enter_context(device_lock(agent, wait_s=wait_s, say=say))
        stack.enter_context(agent)
        if not agent.has_conditions:
            yield Session(agent, choose_runner(agent, device, target), target, settings or TimingSettings())
            return
        conditioning = stack.enter_context(conditioned(agent, fixed_performance=device.fixed_performance))
        cpus, runner, cores = _cpus(device, conditioning), choose_runner(agent, device, target), conditioning.cores
        if target.threads > 1 and not target.oversubscribe:
            cores = runner.probe().device.cores if cores is None else cores
            # vendors' tools stay on no cores
            _check_threads(device, target.threads, cores, cpus if isinstance(runner, ProgramRunner) else None)
        yield Session(
            agent,
            runner,
            target,
            settings or TimingSettings(),
            cpus=cpus,
            conditioning=conditioning,
            cooling=device.cool,
            cool=partial(wait_until_cool, agent, device.cool, say, told=set()),
        )


def _check_threads(device: Device, threads: int, cores: int | None, cpus: tuple[int, ...] | None) -> None:
    """`ToolError` for more threads than cores: they take turns, spin while they wait, and can bring a machine to a standstill."""
    if cores is not None and threads > cores:
        raise ToolError(
            f"{device.name} has {cores} core{'s' if cores > 1 else ''} for us, which {threads} threads would share; "
            f"give --threads {cores}, or add --oversubscribe if that is meant"
        )
    if cpus is not None and threads > len(cpus):
        kept = f"core{'s' if len(cpus) > 1 else ''} {', '.join(map(str, cpus))}"
        raise ToolError(
            f"{threads} threads would share {kept} of {device.name}, to which `cpus` keeps them; give --threads {len(cpus)}, "
            'write cpus = "all" in profile.toml, or add --oversubscribe if that is meant'
        )


def choose_runner(agent: Agent, device: Device, target: Target) -> Runner:
    """The one asked for on the command line, else in the file, else the one that the kind of device comes with, else ours.

    Ours is the one in Python where the device has an interpreter, and the native one elsewhere.
    """
    name = target.runner or device.runner or agent.runner or _own(agent, device, target)
    return runner_named(name)(agent, device, target)


def _own(agent: Agent, device: Device, target: Target) -> str:
    if target.python or device.python:
        return "python"
    try:
        agent.interpreter()
    except DeviceError:
        return "native"
    return "python"


def _cpus(device: Device, conditioning: Conditioned) -> tuple[int, ...] | None:
    """The cores to stay on; None for any, also where they are all alike or cannot be told apart."""
    if isinstance(device.cpus, tuple):
        return device.cpus
    big = conditioning.state["big_cores"] if device.cpus == "big" else None
    return tuple(big) if big else None
