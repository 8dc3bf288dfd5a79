"""Energy: millijoules of one inference, the sum over its layers, where the device's table has them (`profile build --energy`).

A layer that was not measured lies between two of its family that were, on the straight line in multiply-accumulates; where there
are none, in bytes read and written. Nothing is extrapolated, and no correction for whole networks is known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from netadapt.errors import BudgetError
from profiler.latency.interpolation import family_of
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec


class Energy:
    """What the table's layers took, as their runtime executes them."""

    name = "energy"
    unit = "mJ"
    scales: ClassVar[Mapping[str, float]] = {"uj": 1e-3, "µj": 1e-3, "mj": 1.0, "j": 1e3}
    example = "12mJ"
    needs_table = True
    measurable = False
    named_by_table = False

    def __init__(self, energy_mj: Mapping[LayerSpec, float], runtime: str) -> None:
        self.runtime = runtime
        self._known = dict(energy_mj)
        points: dict[LayerSpec, dict[int, list[float]]] = {}
        for layer, millijoules in energy_mj.items():
            family = family_of(layer)
            if family is not None:
                points.setdefault(family, {}).setdefault(work(layer), []).append(millijoules)
        # by family: (work, mJ) by rising work; layers of equal work share their mean
        self._points = {
            family: [(amount, sum(found) / len(found)) for amount, found in sorted(by_work.items())]
            for family, by_work in points.items()
        }

    @staticmethod
    def amount_text(amount: float) -> str:
        return f"{amount:.4g} mJ"

    @classmethod
    def of(cls, table: Any) -> Self:
        """`table` is a `Table`, or a `GrowingTable`."""
        loaded = getattr(table, "table", table)
        if loaded is None:
            raise BudgetError("an energy budget needs a table with energies; `profile build --energy` makes it, --table names it")
        if not loaded.energy_mj:
            raise BudgetError(
                f"the table of {loaded.info.target.device} has no energies; build it with `profile build --energy` where the "
                "device counts joules"
            )
        return cls(loaded.energy_mj, loaded.info.target.runtime)

    def price(self, graph: Graph) -> float:
        """`BudgetError` naming a layer whose energy the table cannot tell."""
        found = [(node.name, node.layer, self.layer_mj(node.layer)) for node in ExecutionRules(self.runtime).executed(graph).nodes]
        missing = [(name, layer) for name, layer, millijoules in found if millijoules is None]
        if missing:
            name, layer = missing[0]
            raise BudgetError(
                f"the energy of {layer.key} ({name} of {graph.name}) was not measured and lies between no two of its family"
                f"{f', nor do {len(missing) - 1} more' if len(missing) > 1 else ''}; build the table anew with --energy"
            )
        return sum(millijoules for _, _, millijoules in found if millijoules is not None)

    def layer_mj(self, layer: LayerSpec) -> float | None:
        """As measured or between measured ones; None if the table cannot tell."""
        if layer in self._known:
            return self._known[layer]
        family = family_of(layer)
        points = self._points.get(family, []) if family is not None else []
        amount = work(layer)
        above = bisect_left(points, (amount, 0.0))
        if above < len(points) and points[above][0] == amount:
            return points[above][1]
        if not 0 < above < len(points):
            return None
        (low, low_mj), (high, high_mj) = points[above - 1], points[above]
        return low_mj + (high_mj - low_mj) * (amount - low) / (high - low)


def work(layer: LayerSpec) -> int:
    """What a layer's energy follows: multiply-accumulates, or bytes moved by a layer that has none."""
    return layer.macs or layer.activation_bytes
