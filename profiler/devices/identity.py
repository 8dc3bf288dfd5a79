"""The identity of a measured device: its hardware and system, the runtime, the runner and the conditioned state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from device_agents.support.text import printable
from profiler.protocol.events import Hello, Probe

FIELDS = {
    "version": "runtime version", "library_sha256": "runtime's hash", "runner": "runner", "runner_sha256": "runner's hash",
    "flags": "runtime's flags", "affinity": "cores",
}  # fmt: skip
"""Fields of a fingerprint beside the facts of the device, with their names for people."""
STATE = {"build": "system build", "governors": "governors", "turbo": "turbo", "power_mode": "power mode"}
"""Fields of the recorded conditioning, with their names for people."""
LONGEST = 60
"""The number of characters of a value that are shown."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A device with its runtime and state, as far as a table, a runner or a probe knows them.

    It alone decides whether two measurements come from the same device.
    """

    facts: Mapping[str, Any]
    """Known values by their names for people; unknown ones are left out."""

    @classmethod
    def of_fingerprint(cls, device: Mapping[str, Any]) -> Self:
        """The identity of the device that a table was made on (`TableInfo.device`)."""
        values = {name: device.get(field) for field, name in FIELDS.items()}
        facts = device.get("device")
        if isinstance(facts, Mapping):
            values |= {str(name): value for name, value in facts.items()}
        state = device.get("conditioning")
        if isinstance(state, Mapping):
            values |= {name: state.get(field) for field, name in STATE.items()}
        return cls({name: _plain(value) for name, value in values.items() if value is not None})

    @classmethod
    def of_hello(cls, hello: Hello, conditioning: Mapping[str, Any]) -> Self:
        """The identity of the device on which a runner has started, with the recorded conditioning."""
        return cls.of_fingerprint(fingerprint(hello, conditioning))

    @classmethod
    def of_probe(cls, probe: Probe, runtime: str, conditioning: Mapping[str, Any]) -> Self:
        """The identity of a device that was only probed; a probe does not know the flags and the hash of the runtime."""
        state = probe.runtimes.get(runtime)
        version = state.version if state is not None else None
        known = {"device": asdict(probe.device), "version": version, "runner": probe.runner, "conditioning": conditioning}
        return cls.of_fingerprint(known)

    def differences(self, other: Identity) -> list[str]:
        """A line for each value that both know and that differs, such as `turbo: True and False`; empty for the same device."""
        return [
            f"{name}: {_short(self.facts[name])} and {_short(other.facts[name])}"
            for name in self.facts
            if name in other.facts and self.facts[name] != other.facts[name]
        ]


def fingerprint(hello: Hello, conditioning: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON-ready description of its device that a table keeps (`TableInfo.device`)."""
    names = ("version", "library_sha256", "flags", "runner", "build", "runner_sha256", "affinity", "energy_source")
    values = {name: _plain(getattr(hello, name)) for name in names}
    return {"device": asdict(hello.device), **values, "conditioning": dict(conditioning)}


def _plain(value: Any) -> Any:
    """The value as it looks when it is read back from JSON, so that both kinds compare equal."""
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    """The value as a short text: hashes are abbreviated, and what would confuse a terminal is replaced."""
    text = str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_hash else printable(text, LONGEST)
