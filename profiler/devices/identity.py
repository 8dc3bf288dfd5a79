"""What must be the same for two measurements to be of one device: its hardware and system, the runtime, the runner, its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from device_agents.support.text import printable
from profiler.protocol.events import Hello, Probe

TOLD = {
    "version": "runtime version", "library_sha256": "runtime's hash", "runner": "runner", "runner_sha256": "runner's hash",
    "flags": "runtime's flags", "affinity": "cores",
}  # fmt: skip
"""Fields of a fingerprint beside the device's facts, and what people call them."""
STATE = {"build": "system build", "governors": "governors", "turbo": "turbo", "power_mode": "power mode"}
"""Fields of what conditioning has recorded."""
LONGEST = 60


@dataclass(frozen=True, slots=True)
class Identity:
    """A device with its runtime and state, as far as a table, a runner or a probe tells. Only this decides "the same device"."""

    facts: Mapping[str, Any]
    """By the names that people know them by. What was not told is left out."""

    @classmethod
    def of_fingerprint(cls, device: Mapping[str, Any]) -> Self:
        """The identity of the device that a table was made on (`TableInfo.device`)."""
        told = {name: device.get(field) for field, name in TOLD.items()}
        facts, state = device.get("device"), device.get("conditioning")
        if isinstance(facts, Mapping):
            told |= {str(name): value for name, value in facts.items()}
        if isinstance(state, Mapping):
            told |= {name: state.get(field) for field, name in STATE.items()}
        return cls({name: _plain(value) for name, value in told.items() if value is not None})

    @classmethod
    def of_hello(cls, hello: Hello, conditioning: Mapping[str, Any]) -> Self:
        """The identity of the device that a runner has started on, conditioned so."""
        return cls.of_fingerprint(fingerprint(hello, conditioning))

    @classmethod
    def of_probe(cls, probe: Probe, runtime: str, conditioning: Mapping[str, Any]) -> Self:
        """The identity of a device that was only asked: a probe does not tell the runtime's flags and hash."""
        state = probe.runtimes.get(runtime)
        version = state.version if state is not None else None
        told = {"device": asdict(probe.device), "version": version, "runner": probe.runner, "conditioning": conditioning}
        return cls.of_fingerprint(told)

    def differences(self, other: Identity) -> list[str]:
        """What both tell and tell differently, in words."""
        return [
            f"{name}: {_short(self.facts[name])} and {_short(other.facts[name])}"
            for name in self.facts
            if name in other.facts and self.facts[name] != other.facts[name]
        ]


def fingerprint(hello: Hello, conditioning: Mapping[str, Any]) -> dict[str, Any]:
    """What a table keeps of the device it was made on."""
    names = ("version", "library_sha256", "flags", "runner", "build", "runner_sha256", "affinity", "energy_source")
    told = {name: _plain(getattr(hello, name)) for name in names}
    return {"device": asdict(hello.device), **told, "conditioning": dict(conditioning)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    """Hashes are long, and what comes from a device may be anything."""
    text = str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_hash else printable(text, LONGEST)
