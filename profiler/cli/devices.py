"""`profile devices`: what can be measured on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from profiler.cli.options import Python
from profiler.console import Json, plain_errors, print_json
from profiler.measure.discovery import Found, roster
from profiler.protocol.events import RuntimeState


def devices(python: Python = None, as_json: Json = False) -> None:
    """List the devices that are named or attached, the runtimes that work on each, and why one cannot be measured on."""
    with plain_errors():
        found = roster(python)
        if as_json:
            print_json([found_data(item) for item in found])
        else:
            for item in found:
                print_found(item)


def found_data(found: Found) -> dict[str, Any]:
    probe: dict[str, Any] = {}
    if found.probe is not None:
        probe = {name: value for name, value in asdict(found.probe).items() if name != "protocol"}
        probe["runtimes"] = {name: runtime_data(state) for name, state in found.probe.runtimes.items()}
    about = {"name": found.device.name, "address": found.device.address, "description": found.description}
    return about | {"usable": found.probe is not None, "obstacle": found.obstacle} | probe


def runtime_data(state: RuntimeState) -> dict[str, Any]:
    """The one of version, missing and broken that is the case."""
    if state.missing:
        return {"missing": True}
    return {"broken": state.broken} if state.version is None else {"version": state.version}


def print_found(found: Found) -> None:
    name, address, probe = found.device.name, found.device.address, found.probe
    named = name if name == address else f"{name} ({address})"
    if probe is None:
        described = f" {found.description}:" if found.description else ""
        print(f"{named}:{described} {found.obstacle}")
        return
    facts, runtimes = probe.device, probe.runtimes
    memory = "memory not readable" if facts.memory_bytes is None else f"{facts.memory_bytes / 2**30:.1f} GiB"
    print(f"{named}: {facts.cpu or 'processor not told'}, {facts.cores or '?'} cores, {memory}, {facts.machine}")
    program = f"Python {facts.python}" if facts.python else f"{probe.runner} runner"
    print(f"  {facts.system} {facts.kernel}, {program}")
    if probe.load_1min is not None:
        print(f"  governor {facts.governor}, load {probe.load_1min:.2f}")
    for runtime, state in runtimes.items():
        if not state.missing:
            print(f"  {runtime}: {state.version or f'broken, {state.broken}'}")
    if missing := [runtime for runtime, state in runtimes.items() if state.missing]:
        print(f"  not installed: {', '.join(missing)}")
    if not any(state.version for state in runtimes.values()):
        print("  no runtime works there: install onnxruntime or ai-edge-litert in its Python and name that with --python, or name")
        section = "[devices.NAME]" if name == address else f"[devices.{name}]"
        print(f'  a runtime\'s library for the native runner in profile.toml: below {section}, address = "{address}" and')
        print('  libraries.litert = "PATH/libLiteRt.so"')
