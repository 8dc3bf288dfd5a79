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
    "compressed": "netadapt.resources.compressed:Compressed",
}
"""The `module:class` of each resource by name; the class is a `ResourceKind` of the same name."""


def open_resource(name: str, table: Any = None) -> Resource:
    """The resource of this name for a table, if it needs one. `BudgetError` for an unknown name or a missing table."""
    return known_resource(name).of(table)


_FLOPS = ("flop", "flops", "mflops", "gflops", "gflop", "mflop")
_MEANT: Mapping[str, str] = {
    "mac": "macs", "mults": "macs", "madds": "macs", "multadds": "macs", "mult-adds": "macs", "multiply-adds": "macs",
    "gmacs": "macs", "mmacs": "macs", "param": "parameters", "params": "parameters", "weights": "parameters",
    "size": "parameters", "ram": "memory", "mem": "memory", "activations": "memory", "time": "latency", "ms": "latency",
    "lat": "latency", "speed": "latency", "fps": "latency", "runtime": "latency", "power": "energy", "joules": "energy",
    "mj": "energy",
}  # fmt: skip
"""The resources that are meant by other names."""


def known_resource(name: str, tables: Collection[str] = ()) -> ResourceKind:
    """The class of the resource of this name. `BudgetError` for an unknown name; `tables` are further names to suggest."""
    if name in _FLOPS:
        raise BudgetError(
            f"there is no resource {name!r}; multiply-accumulates are counted, each of which is two operations: write macs=60% or, "
            "for 600 MFLOPs, macs=300M"
        )
    if name not in RESOURCES:
        raise BudgetError(f"there is no resource {name!r}; {did_you_mean(name, [*RESOURCES, *tables], _MEANT)}")
    kind: ResourceKind = load(RESOURCES[name])
    return kind
