"""The lines of a runner, checked before they are believed (device_agents/on_device/PROTOCOL.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from device_agents.support.strict_json import read_json
from profiler.errors import RunnerError

PROTOCOL = 5
Message = dict[str, Any]

MOST_NS = 10**13
"""No measurement takes hours."""


def parse(line: str) -> Message | None:
    """A line of the protocol, checked; None for a runtime's chatter. `RunnerError` for a line of ours that makes no sense."""
    if not line.startswith("{"):
        return None
    try:
        message = read_json(line)
    except ValueError:
        return None
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        return None
    event = message["event"]
    if event in OURS:
        raise RunnerError(f"the runner sent a {event!r} line, which only this host writes: {line[:120]!r}")
    if event in ("hello", "probe") and message.get("protocol") != PROTOCOL:
        raise RunnerError(f"the runner speaks protocol {message.get('protocol')!r}, this host {PROTOCOL}")
    if event in ABOUT_A_MODEL and not (isinstance(message.get("model"), str) and _whole(message.get("round"), 0)):
        raise RunnerError(f"the runner sent a {event!r} line without model and round: {line[:120]!r}")
    if event in CHECKS and not CHECKS[event](message):
        raise RunnerError(f"the runner sent a {event!r} line that cannot be: {line[:120]!r}")
    return message


def _hello(message: Mapping[str, Any]) -> bool:
    device, flags = message.get("device"), message.get("flags")
    return isinstance(device, dict) and isinstance(flags, dict) and isinstance(message.get("version"), str)


def _probe(message: Mapping[str, Any]) -> bool:
    runtimes = message.get("runtimes")
    return (
        isinstance(message.get("device"), dict)
        and isinstance(runtimes, dict)
        and all(isinstance(found, dict) for found in runtimes.values())
    )


def _round(message: Mapping[str, Any]) -> bool:
    numbers = ("load_1min", "temperature_c", "throttled", "thermal_status")
    return _whole(message.get("round"), 0) and all(_number_or_none(message.get(name)) for name in numbers)


def _measurement(message: Mapping[str, Any]) -> bool:
    samples, switched, clock = message.get("samples_ns"), message.get("switched"), message.get("clock_khz")
    if not isinstance(samples, list) or not samples or not isinstance(switched, list):
        return False
    whole = all(_whole(value, 1) and value < MOST_NS for value in samples)
    inside = all(_whole(place, 0) and place < len(samples) for place in switched)
    clocked = clock is None or (isinstance(clock, list) and all(value is None or type(value) is int for value in clock))
    return whole and inside and clocked and _whole(message.get("loops"), 1) and type(message.get("started_ns")) is int


def _outputs(message: Mapping[str, Any]) -> bool:
    outputs = message.get("outputs")
    return isinstance(outputs, list) and all(
        isinstance(output, dict) and isinstance(output.get("shape"), list) and isinstance(output.get("values"), list)
        for output in outputs
    )


def _idle(message: Mapping[str, Any]) -> bool:
    return _whole(message.get("duration_ns"), 1) and _whole(message.get("energy_uj"), 0)


def _energy(message: Mapping[str, Any]) -> bool:
    return _idle(message) and _whole(message.get("inferences"), 1)


def _failed(message: Mapping[str, Any]) -> bool:
    return isinstance(message.get("reason"), str)


OURS = ("crashed", "paused", "journal", "layer", "network", "refresh", "staircases", "conditioning", "error", "spent")
"""Events of the session and of the journal: they are believed without a check."""
RESULTS = ("measurement", "reference", "outputs", "energy", "failed")
"""What becomes of a model that has begun; each is acknowledged when it is recorded."""
ABOUT_A_MODEL = ("begin", *RESULTS)
CHECKS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "hello": _hello, "probe": _probe, "round": _round, "measurement": _measurement, "reference": _measurement,
    "outputs": _outputs, "idle": _idle, "energy": _energy, "failed": _failed,
}  # fmt: skip


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _number_or_none(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < 1e15)  # a NaN compares false
