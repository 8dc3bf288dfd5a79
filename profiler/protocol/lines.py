"""Lines of JSON and events: what a runner or a journal has written becomes a type of profiler.protocol.events, or is refused.

A line is checked once, where it comes in, by `parse_line` (a runner's, device_agents/on_device/PROTOCOL.md) or `read_event` (a
journal's, profiler/protocol/journal.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_agents.support.dataclass_json import read_as, read_value
from device_agents.support.errors import ToolError
from device_agents.support.strict_json import read_json
from profiler.errors import RunnerError
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.protocol.events import JOURNAL_EVENTS, PROTOCOL, RUNNER_EVENTS, JournalEvent, LayerAdded, NetworkAdded, RunnerEvent

NAMES: Mapping[type, str] = {kind: name for names in (RUNNER_EVENTS, JOURNAL_EVENTS) for name, kind in names.items()}


def parse_line(line: str) -> RunnerEvent | None:
    """The event in a runner's line; None for a runtime's chatter. `RunnerError` for a line of ours that makes no sense."""
    if not line.startswith("{"):
        return None
    try:
        plain = read_json(line)
    except ValueError:
        return None
    if not isinstance(plain, dict) or not isinstance(plain.get("event"), str):
        return None
    name = plain["event"]
    if name not in RUNNER_EVENTS:
        if name in JOURNAL_EVENTS or name == "crashed":
            raise RunnerError(f"the runner sent a {name!r} line, which only this host writes: {line[:120]!r}")
        return None
    if name in ("hello", "probe") and plain.get("protocol") != PROTOCOL:
        raise RunnerError(f"the runner speaks protocol {plain.get('protocol')!r}, this host {PROTOCOL}")
    try:
        event: RunnerEvent = read_as(RUNNER_EVENTS[name], _known(RUNNER_EVENTS[name], plain))
    except ValueError as exc:
        raise RunnerError(f"the runner sent an invalid {name!r} line ({exc}): {line[:120]!r}") from exc
    return event


def read_event(plain: Any) -> JournalEvent:
    """The event in a line of a journal, read as JSON. `ValueError` for a line that makes no sense."""
    if not isinstance(plain, dict) or not isinstance(plain.get("event"), str):
        raise ValueError("it is not a journal line")
    name = plain["event"]
    if name not in JOURNAL_EVENTS:
        raise ValueError(f"no journal has a {name!r:.40} line")
    kind = JOURNAL_EVENTS[name]
    try:
        if kind is LayerAdded:
            return LayerAdded(_text(plain["model"]), LayerSpec.from_dict(plain["layer"]))
        if kind is NetworkAdded:
            return NetworkAdded(
                _text(plain["model"]),
                _text(plain["role"]),
                Graph.from_dict(plain["graph"]),
                read_value(str | None, plain.get("file_sha256")),
            )
        event: JournalEvent = read_as(kind, _known(kind, plain))
    except (ValueError, KeyError, TypeError, AttributeError, ToolError) as exc:
        raise ValueError(f"a {name!r} line cannot say that ({type(exc).__name__}: {exc})") from exc
    return event


def event_data(event: JournalEvent | RunnerEvent) -> dict[str, Any]:
    """The event as a line of JSON has it: the inverse of `read_event` and of `parse_line`."""
    about: dict[str, Any] = {"event": NAMES[type(event)]}
    match event:
        case LayerAdded(model, layer):
            return about | {"model": model, "layer": layer.to_dict()}
        case NetworkAdded(model, role, graph, file_sha256):
            return about | {"model": model, "role": role, "graph": graph.to_dict(), "file_sha256": file_sha256}
    return about | {name: _plain(getattr(event, name)) for name in _stored_fields(type(event))}


def _plain(value: Any) -> Any:
    """The value as JSON has it. Dataclasses within it lose nothing; what is plain already is not copied."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in _stored_fields(type(value))}
    if isinstance(value, tuple) and value and hasattr(value[0], "__dataclass_fields__"):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _known(kind: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event in a line. What a line has beside them is of no matter."""
    return {name: plain[name] for name in _stored_fields(kind) if name in plain}


def _stored_fields(kind: Any) -> list[str]:
    return [name for name in kind.__dataclass_fields__ if name != "tags"]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:60]!r} is not a text")
    return value
