"""What must be the same for two measurements to be of one device: its system, the runtime, the governor, the runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_agents.support.text import printable

TOLD = {
    "version": "runtime version", "library_sha256": "runtime's hash", "runner": "runner", "runner_sha256": "runner's hash",
    "flags": "runtime's flags", "affinity": "cores",
}  # fmt: skip
STATE = {"build": "system build", "governors": "governors", "turbo": "turbo", "power_mode": "power mode"}
"""Of what conditioning the device has recorded."""


def fingerprint(device: Mapping[str, Any]) -> dict[str, Any]:
    """By the names people know them by; of a table's or a runner's account of its device. What it does not tell is left out."""
    told = {name: device.get(word) for word, name in TOLD.items()}
    facts, state = device.get("device"), device.get("conditioning")
    if isinstance(facts, Mapping):
        told |= {str(name): value for name, value in facts.items()}
    if isinstance(state, Mapping):
        told |= {name: state.get(word) for word, name in STATE.items()}
    return {name: value for name, value in told.items() if value is not None}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What both tell and tell differently, in words."""
    one, two = fingerprint(before), fingerprint(after)
    return [f"{name}: {_short(one[name])} and {_short(two[name])}" for name in one if name in two and one[name] != two[name]]


def _short(value: Any) -> str:
    """Hashes are long, and what comes from a device may be anything."""
    text = str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_hash else printable(text, 60)
