"""Energy: millijoules of one inference, as the sum over its layers, from tables built with `profile build --energy`.

The energy of a layer that was not measured is interpolated linearly between two measured layers of its family (the same layer but
for its channels), over multiply-accumulates or, for layers without any, over bytes read and written. Nothing is extrapolated. Whole
networks are not corrected, as latencies are: no calibration of energies is known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from netadapt.errors import BudgetError
from profiler.latency.interpolation import any_family_of
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.modelled.model import Model
from profiler.modelled.pricing import ENERGY, ModelledPricer


class Energy:
    """The energy of networks by the energies of a table's layers, as the table's runtime fuses them."""

    name = "energy"
    unit = "mJ"
    scales: ClassVar[Mapping[str, float]] = {"uj": 1e-3, "µj": 1e-3, "mj": 1.0, "j": 1e3}
    example = "12mJ"
    needs_table = True
    measurable = False
    named_by_table = False

    def __init__(self, energy_mj: Mapping[LayerSpec, float], rules: ExecutionRules) -> None:
        """`energy_mj` has the measured millijoules of one inference of each layer."""
        self.rules = rules
        self._known = {rules.entry(layer): millijoules for layer, millijoules in energy_mj.items()}
        points: dict[LayerSpec, dict[int, list[float]]] = {}
        for layer, millijoules in self._known.items():
            family = any_family_of(layer)
            if family is not None:
                points.setdefault(family, {}).setdefault(work(layer), []).append(millijoules)
        # for each family the points (work, mJ) of its line, by rising work; of layers of equal work the mean
        self._points = {
            family: [(amount, sum(found) / len(found)) for amount, found in sorted(by_work.items())]
            for family, by_work in points.items()
        }

    @staticmethod
    def amount_text(amount: float) -> str:
        return f"{amount:.4g} mJ"

    @classmethod
    def of(cls, table: Any) -> Self | ModelledEnergy:
        """The energy by a `Table` or a `GrowingTable`. `BudgetError` if there is none or it has no energies."""
        loaded = getattr(table, "table", table)
        if loaded is None:
            raise BudgetError(
                "an energy budget needs a table with energies; build one with `profile build --energy`, or of an accelerator with "
                "--device model:eyeriss, and name it with --table"
            )
        if loaded.info.model is not None:
            return ModelledEnergy(loaded.info.model)
        if not loaded.energy_mj:
            raise BudgetError(
                f"the table of {loaded.info.target.device} has no energies; build it with `profile build --energy` on a device "
                "that measures its energy"
            )
        return cls(loaded.energy_mj, loaded.info.rules)

    def price(self, graph: Graph) -> float:
        """The network's energy in mJ. `BudgetError` if the energy of a layer is neither measured nor can be interpolated."""
        found = [(node.name, node.layer, self.layer_mj(node.layer)) for node in self.rules.entries(graph).nodes]
        missing = [(name, layer) for name, layer, millijoules in found if millijoules is None]
        if missing:
            name, layer = missing[0]
            raise BudgetError(
                f"the energy of {layer.key} ({name} of {graph.name}) was not measured and cannot be interpolated"
                f"{f', nor can that of {len(missing) - 1} more' if len(missing) > 1 else ''}; build the table again with --energy"
            )
        return sum(millijoules for _, _, millijoules in found if millijoules is not None)

    def layer_mj(self, layer: LayerSpec) -> float | None:
        """The layer's energy in mJ, measured or interpolated; None if the table has neither."""
        layer = self.rules.entry(layer)
        if layer in self._known:
            return self._known[layer]
        family = any_family_of(layer)
        points = self._points.get(family, []) if family is not None else []
        amount = work(layer)
        above = bisect_left(points, (amount, 0.0))
        if above < len(points) and points[above][0] == amount:
            return points[above][1]
        if not 0 < above < len(points):
            return None
        (low, low_mj), (high, high_mj) = points[above - 1], points[above]
        return low_mj + (high_mj - low_mj) * (amount - low) / (high - low)


class ModelledEnergy:
    """The energy of networks on an accelerator whose inside is known: computed for any width, not interpolated."""

    name = Energy.name
    unit = Energy.unit

    def __init__(self, model: Model) -> None:
        self.model = model

    def price(self, graph: Graph) -> float:
        """The network's energy in mJ. `HardwareError` if a layer cannot run there."""
        return sum(self.model.cost(node.layer, node.name).energy_mj for node in graph.nodes)

    def pricer(self, graph: Graph) -> ModelledPricer:
        """Energies in mJ with a block at other widths."""
        return ModelledPricer(self.model, graph, ENERGY)


def work(layer: LayerSpec) -> int:
    """The amount of work that energy is interpolated over: multiply-accumulates, or bytes moved by a layer that has none."""
    return layer.macs or layer.activation_bytes
