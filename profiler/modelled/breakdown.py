"""Where the energy of a network goes: by layer, data type and memory level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from profiler.errors import HardwareError
from profiler.layers.layer import WEIGHTED_OPS, LayerSpec
from profiler.modelled.hardware import DATA_TYPES
from profiler.modelled.model import LayerCost, Model


@dataclass(frozen=True, slots=True)
class LayerPart:
    """A layer of a network with its costs."""

    node: str
    layer: LayerSpec
    cost: LayerCost

    @property
    def data_mj(self) -> float:
        """Energy of moving data between all levels."""
        return sum(energy_mj for kinds in self.cost.data_mj.values() for energy_mj in kinds.values())


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A network on an accelerator, for one inference."""

    model: Model
    name: str
    layers: tuple[LayerPart, ...]

    @property
    def weighted(self) -> int:
        """The number of layers that have weights, ..."""
        return sum(part.layer.op in WEIGHTED_OPS for part in self.layers)

    @property
    def zeros_known(self) -> int:
        """... and of those among them whose zeros the model knows by name."""
        named = self.model.densities.layers if self.model.densities is not None else {}
        return sum(part.layer.op in WEIGHTED_OPS and part.node in named for part in self.layers)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that data moves through, from the outside in."""
        return tuple(dict.fromkeys(level for part in self.layers for level in part.cost.data_mj))

    @property
    def data_mj(self) -> Mapping[str, Mapping[str, float]]:
        """Of all layers, by level and data type."""
        return {
            level: {kind: sum(part.cost.data_mj.get(level, {}).get(kind, 0.0) for part in self.layers) for kind in DATA_TYPES}
            for level in self.levels
        }

    @property
    def parts_mj(self) -> Mapping[str, float]:
        """The energy by what takes it: each data type in each memory, such as `weights in dram`, and all that is no data."""
        moved = {f"{kind}s in {level}": energy_mj for level, kinds in self.data_mj.items() for kind, energy_mj in kinds.items()}
        return moved | {"computation": self.compute_mj, "clock and control": self.overhead_mj}

    @property
    def bound_ms(self) -> Mapping[str, float]:
        """The latency by what bounds the layers that take it."""
        bounds = dict.fromkeys(part.cost.bound for part in self.layers)
        return {bound: sum(part.cost.latency_ms for part in self.layers if part.cost.bound == bound) for bound in bounds}

    @property
    def compute_mj(self) -> float:
        return sum(part.cost.compute_mj for part in self.layers)

    @property
    def overhead_mj(self) -> float:
        """Of clock and control."""
        return sum(part.cost.overhead_mj for part in self.layers)

    @property
    def energy_mj(self) -> float:
        return sum(part.cost.energy_mj for part in self.layers)

    @property
    def latency_ms(self) -> float:
        return sum(part.cost.latency_ms for part in self.layers)


def breakdown(model: Model, name: str, layers: Iterable[tuple[str, LayerSpec]]) -> Breakdown:
    """The costs of a network's layers, given with the names of their nodes.

    `HardwareError` if one cannot run there, or if they cost nothing together: there are no shares of nothing.
    """
    found = Breakdown(model, name, tuple(LayerPart(node, layer, model.cost(layer, node)) for node, layer in layers))
    for what, total in (("energy", found.energy_mj), ("time", found.latency_ms)):
        if total <= 0:
            raise HardwareError(
                f"{name} takes no {what} on {model.hardware.name}; figures of its description, or densities, are 0 and must be more"
            )
    return found
