"""The published figures of a description, each beside the model's value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from device_agents.support.text import did_you_mean
from profiler.errors import HardwareError
from profiler.modelled.engines import engine_of
from profiler.modelled.hardware import Hardware, Published, Workload
from profiler.modelled.work import Assumptions, Costs, Geometry, Work, total_of

Quantity = Callable[[Hardware, Costs], float]


def _units_1e9(pj: float, hardware: Hardware) -> float:
    return pj / hardware.energy.unit_pj / 1e9


def _chip_pj(hardware: Hardware, costs: Costs) -> float:
    """Energy on the chip, without DRAM."""
    return float(total_of(hardware, costs).energy_pj[0] - costs.data_pj[0].sum())


def _level(name: str) -> Quantity:
    return lambda hardware, costs: _units_1e9(float(costs.data_pj[costs.levels.index(name)].sum()), hardware)


QUANTITIES: Mapping[str, tuple[str, Quantity]] = {
    "macs_energy": ("1e9 MAC energies", lambda hardware, costs: _units_1e9(float(costs.compute_pj[0]), hardware)),
    "unit_energy": ("1e9 MAC energies", _level("unit")),
    "dram_energy": ("1e9 MAC energies", _level("dram")),
    "active_units": ("units", lambda hardware, costs: float(costs.active_units[0])),
    "compute_time": ("ms", lambda hardware, costs: float(costs.cycles[0]) / hardware.clock_mhz / 1e3),
    "dram_traffic": ("MB", lambda hardware, costs: float(costs.dram_bytes.sum()) / 1e6),
    "chip_energy": (
        "mJ",
        lambda hardware, costs: _chip_pj(hardware, costs) / 1e9,
    ),
    "busy_power": ("mW", lambda hardware, costs: _chip_pj(hardware, costs) / float(total_of(hardware, costs).time_ns[0])),
    "peak_rate": ("GMAC/s", lambda hardware, costs: hardware.units * hardware.array.macs_per_cycle * hardware.clock_mhz / 1e3),
}
"""The unit of each quantity and how it follows from the costs of a workload, for a whole batch."""


@dataclass(frozen=True, slots=True)
class Check:
    """A published figure and the model's value of it."""

    figure: Published
    unit: str
    modelled: float

    @property
    def agrees(self) -> bool:
        return self.figure.low <= self.modelled <= self.figure.high


def checks(hardware: Hardware) -> tuple[Check, ...]:
    """All published figures of the description. `HardwareError` if one of them is of an unknown quantity."""
    return tuple(_check(hardware, figure) for figure in hardware.published)


def _check(hardware: Hardware, figure: Published) -> Check:
    if figure.what not in QUANTITIES:
        raise HardwareError(f"{hardware.name}: no figure is called {figure.what!r}; {did_you_mean(figure.what, QUANTITIES)}")
    unit, quantity = QUANTITIES[figure.what]
    engine = engine_of(hardware)
    if figure.what == "peak_rate":
        nothing = np.zeros(1)
        return Check(figure, unit, quantity(hardware, Costs((), np.zeros((0, 3, 1)), nothing, nothing, nothing, nothing, nothing)))
    layers = [workload for workload in hardware.workload if figure.layer in ("", workload.name)]
    if not layers:
        raise HardwareError(f"{hardware.name}: the figure {figure.what} is of a layer, and the description has no workload")
    return Check(figure, unit, sum(quantity(hardware, engine(work_of(layer, hardware), hardware)) for layer in layers))


def work_of(workload: Workload, hardware: Hardware) -> Work:
    """A workload of the description, at the batch and bits of the hardware."""
    padded = workload.size + 2 * workload.padding
    out = (padded - workload.kernel) // workload.stride + 1
    size, kernel, stride = workload.size, workload.kernel, workload.stride
    assumptions = Assumptions(
        hardware.batch, hardware.word_bits, workload.input_density, workload.weight_density, workload.output_density
    )
    return Work(
        Geometry(hardware.batch, size, size, out, out, kernel, kernel, stride, stride),
        np.array([float(workload.groups)]),
        np.array([workload.in_channels / workload.groups]),
        np.array([workload.out_channels / workload.groups]),
        assumptions,
        workload.mapping,
    )
