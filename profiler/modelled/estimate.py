"""What networks cost on accelerators, side by side, so that it shows where multiply-accumulates and weights mislead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from profiler.layers.graph import Graph
from profiler.modelled.breakdown import breakdown
from profiler.modelled.crossbar import layout
from profiler.modelled.model import Model


@dataclass(frozen=True, slots=True)
class Arrays:
    """How a network lies on arrays of cells that hold its weights, for one image."""

    count: int
    adc_conversions: float
    dac_conversions: float
    steps: int
    """Times that arrays are read, one layer after the other."""


@dataclass(frozen=True, slots=True)
class Largest:
    """What takes most of a network's energy or latency."""

    name: str
    share: float
    """Of all of it, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """One network on one accelerator, for one inference."""

    energy_mj: float
    latency_ms: float
    utilisation: float
    """Of units that multiply, the multiply-accumulates in the whole time as a share of the most that are possible, which is more
    than 1 where zeros are skipped; of arrays of cells, the share of the cells that hold a weight."""
    arrays: Arrays | None
    """None unless the accelerator has arrays of cells."""
    bound: Largest
    """What bounds the layers that take most of the latency together (`Breakdown.bound_ms`)."""
    dearest: Largest
    """The data and memory, or else, that takes most of the energy (`Breakdown.parts_mj`)."""


def network_cost(model: Model, graph: Graph) -> NetworkCost:
    """The costs of the network's layers together. `HardwareError` if one cannot run there."""
    found = breakdown(model, graph.name, [(node.name, node.layer) for node in graph.nodes])
    hardware, most_of = model.hardware, (_largest(found.bound_ms), _largest(found.parts_mj))
    if hardware.crossbar is None:
        most = hardware.units * hardware.array.macs_per_cycle * hardware.clock_mhz * 1e3 * found.latency_ms
        return NetworkCost(found.energy_mj, found.latency_ms, graph.macs / most if most else 0.0, None, *most_of)
    works = [work for node in graph.nodes if (work := model.work(node.layer, node.name)) is not None]
    lying = [layout(work, hardware.crossbar) for work in works]
    arrays = sum(float(item.arrays[0]) for item in lying)
    cells = sum(float((work.groups * item.rows * item.columns)[0]) for work, item in zip(works, lying, strict=True))
    batch = model.assumptions.batch
    told = Arrays(
        int(arrays),
        sum(float(item.adc_conversions[0]) for item in lying) / batch,
        sum(float(item.dac_conversions[0]) for item in lying) / batch,
        sum(item.steps for item in lying) // batch,
    )
    used = cells / (arrays * hardware.crossbar.rows * hardware.crossbar.cols) if arrays else 0.0
    return NetworkCost(found.energy_mj, found.latency_ms, used, told, *most_of)


def _largest(amounts: Mapping[str, float]) -> Largest:
    name, total = max(amounts, key=lambda name: amounts[name]), sum(amounts.values())
    return Largest(name, amounts[name] / total if total else 0.0)
