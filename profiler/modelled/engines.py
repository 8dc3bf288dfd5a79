"""The engines that turn a layer and a description into costs. A new engine is one module and one line in ENGINES."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from device_agents.support.loading import load
from device_agents.support.text import did_you_mean
from profiler.errors import HardwareError
from profiler.modelled.hardware import Hardware
from profiler.modelled.work import Costs, Work

Engine = Callable[[Work, Hardware], Costs]

ENGINES: Mapping[str, str] = {
    "row_stationary": "profiler.modelled.row_stationary",
    "weight_stationary": "profiler.modelled.weight_stationary",
    "output_stationary": "profiler.modelled.output_stationary",
    "no_local_reuse": "profiler.modelled.no_local_reuse",
    "compressed_matrix": "profiler.modelled.compressed_matrix",
    "crossbar": "profiler.modelled.crossbar",
    "zigzag": "profiler.modelled.zigzag",
}
"""The module of each engine by name. It has a function `cost`, an `Engine`, and a whole number `VERSION`, which rises with every
change of what it answers: tables say which one made them."""


def engine_of(hardware: Hardware) -> Engine:
    """`HardwareError` if there is no such engine, or if it is one for analog memory and the hardware is none, or the other way."""
    if hardware.engine in ENGINES and (hardware.engine == "crossbar") != (hardware.crossbar is not None):
        has = (
            "no section [crossbar]" if hardware.crossbar is None else "a section [crossbar], which is for the engine crossbar only"
        )
        raise HardwareError(f"{hardware.name} has the engine {hardware.engine}, but {has}")
    engine: Engine = load(f"{_module(hardware)}:cost")
    return engine


def version_of(hardware: Hardware) -> int:
    """The version of the engine that the description names. `HardwareError` if there is none."""
    version: int = load(f"{_module(hardware)}:VERSION")
    return version


def _module(hardware: Hardware) -> str:
    if hardware.engine not in ENGINES:
        raise HardwareError(f"{hardware.name} names an engine {hardware.engine!r}; {did_you_mean(hardware.engine, ENGINES)}")
    return ENGINES[hardware.engine]
