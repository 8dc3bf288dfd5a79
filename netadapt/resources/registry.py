"""The registry of resources. A new resource is one module and one line in RESOURCES."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from device_agents.support.text import did_you_mean
from netadapt.errors import BudgetError
from netadapt.registry import load
from netadapt.resources.base import Resource, ResourceKind

RESOURCES: Mapping[str, str] = {
    "latency": "netadapt.resources.latency:Latency",
    "macs": "netadapt.resources.macs:Macs",
    "parameters": "netadapt.resources.parameters:Parameters",
    "memory": "netadapt.resources.memory:Memory",
    "energy": "netadapt.resources.energy:Energy",
}
"""The `module:class` of each resource by name; the class is a `ResourceKind` of the same name."""


def open_resource(name: str, table: Any = None) -> Resource:
    """The resource of this name for a table, if it needs one. `BudgetError` for an unknown name or a missing table."""
    return known_resource(name).of(table)


def known_resource(name: str, tables: Collection[str] = ()) -> ResourceKind:
    """The class of the resource of this name. `BudgetError` for an unknown name; `tables` are further names to suggest."""
    if name not in RESOURCES:
        raise BudgetError(f"there is no resource {name!r}; {did_you_mean(name, [*RESOURCES, *tables])}")
    kind: ResourceKind = load(RESOURCES[name])
    return kind
