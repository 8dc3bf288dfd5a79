"""One sentence for people: how far a table can be trusted, and where its measurements come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiler.measure.disturbance import LIMIT_PERCENT as DISTURBED_PERCENT
from profiler.tables.table import Table


def trust_sentence(table: Table) -> str:
    """The origin and the held-out error. It begins with `unverified` for one of our own that cannot be relied on."""
    if model := table.info.model:
        said = f"{origin_of(table.info.device)}{model.sentence()}"
        if not model.vouched:
            return f"unverified: {said}; no published energy of this hardware vouches for the model"
        return f"{said}; checked against {len(model.hardware.published)} published figures (`profile hardware`)"
    sentence = origin_of(table.info.device) + table.info.held_out.sentence()
    if table.info.unlike:
        sentence += f"; our rules are wrong for {len(table.info.unlike)} of {table.info.asked} networks"
    if table.disturbed_percent <= DISTURBED_PERCENT:
        return sentence
    return f"unverified: the device was disturbed while {table.disturbed_percent:.0f} % of the layers were measured; {sentence}"


def origin_of(device: Mapping[str, Any]) -> str:
    """A warning to put before all that is said of measurements that no device of ours took; empty for those that one did.

    `device` is the fingerprint of a table or of a run.
    """
    if isinstance(device.get("modelled"), Mapping):
        return "modelled, not measured: "
    imported = device.get("imported")
    if isinstance(imported, Mapping):
        return f"imported from {imported.get('from')}, not measured by us: "
    flags = device.get("flags") or {}
    if flags.get("simulated"):
        return "simulated, not measured: "
    return f"played back from {flags['replayed']}: " if flags.get("replayed") else ""
