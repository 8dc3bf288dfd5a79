"""`profile devices`: what can be measured on."""

from __future__ import annotations

from typing import Any

from profiler.cli.options import Python
from profiler.console import Json, plain_errors, print_json
from profiler.measure.discovery import Found, roster


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
    probe = {name: value for name, value in (found.probe or {}).items() if name not in ("event", "protocol")}
    about = {"name": found.device.name, "address": found.device.address, "description": found.description}
    return about | {"usable": found.probe is not None, "obstacle": found.obstacle} | probe


def print_found(found: Found) -> None:
    name, address, probe = found.device.name, found.device.address, found.probe
    named = name if name == address else f"{name} ({address})"
    if probe is None:
        described = f" {found.description}:" if found.description else ""
        print(f"{named}:{described} {found.obstacle}")
        return
    facts, runtimes = probe["device"], probe["runtimes"]
    size_bytes = facts.get("memory_bytes")
    memory = "memory not readable" if size_bytes is None else f"{size_bytes / 2**30:.1f} GiB"
    cpu, cores = facts.get("cpu") or "processor not told", facts.get("cores") or "?"
    print(f"{named}: {cpu}, {cores} cores, {memory}, {facts.get('machine')}")
    program = f"Python {facts['python']}" if facts.get("python") else f"{probe.get('runner')} runner"
    print(f"  {facts.get('system')} {facts.get('kernel')}, {program}")
    if probe.get("load_1min") is not None:
        print(f"  governor {facts.get('governor')}, load {probe['load_1min']:.2f}")
    for runtime, state in runtimes.items():
        if not state.get("missing"):
            print(f"  {runtime}: {state.get('version') or 'broken, ' + state['broken']}")
    if missing := [runtime for runtime, state in runtimes.items() if state.get("missing")]:
        print(f"  not installed: {', '.join(missing)}")
    if not any(state.get("version") for state in runtimes.values()):
        print("  no runtime works there: install onnxruntime or ai-edge-litert in its Python and name that with --python, or name")
        print(f"  a runtime's library for the native runner in profile.toml, as libraries.litert of [devices.{name}]")
