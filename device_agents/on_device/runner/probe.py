"""Which runtimes work on this device."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from device_agents.on_device.runner.device import Device
from device_agents.on_device.runner.host import say, told
from device_agents.on_device.runner.job import PROTOCOL
from device_agents.on_device.runner.runtimes import RUNTIMES
from device_agents.on_device.runner.runtimes.interface import NotInThisBuild, Runtime

PROBE_S = 60
"""A runtime that has not run the probe's model within this time is reported as broken."""


def probe(folder: Path) -> None:
    device = Device(Path("/"))
    found = {name: try_runtime(name, folder) for name in RUNTIMES if name != "fake"}
    source = device.energy and device.energy.name
    conditions = device.conditions()
    say("probe", protocol=PROTOCOL, runner="python", device=device.facts(), energy_source=source, runtimes=found, **conditions)


def try_runtime(name: str, folder: Path) -> dict[str, Any]:
    """The runtime's version, or why it cannot be used. It is tried in a child process, because it may crash or hang."""
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(PROBE_S)
        try:
            os.write(answer, json.dumps(answer_of(RUNTIMES[name], folder)).encode())
        finally:
            os._exit(0)
    os.close(answer)
    with os.fdopen(answers, "rb") as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"broken": f"it crashes the process by {signal.Signals(os.WTERMSIG(status)).name}"}
    return dict(json.loads(said)) if said else {"broken": "it ends the process"}


def answer_of(kind: type[Runtime], folder: Path) -> dict[str, Any]:
    try:
        runtime = kind(1, folder)
        runtime.open(folder / kind.model, seed=1, as_it_is=False).run_once(finite=True)
    except ModuleNotFoundError as exc:
        return {"missing": True} if exc.name == kind.package else {"broken": told(exc)}
    except NotInThisBuild:
        return {"missing": True}
    except Exception as exc:  # a broken runtime may raise anything; it is reported
        return {"broken": told(exc)}
    return {"version": runtime.version}
