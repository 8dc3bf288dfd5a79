"""The steps of a run by each of its tables, also by those that no budget names: a network that was adapted to the energy of one
accelerator has a latency on a phone, too."""

from __future__ import annotations

from dataclasses import dataclass

from netadapt.errors import BudgetError
from netadapt.resources import open_resource
from netadapt.runs.run_folder import RunFolder
from profiler.errors import HardwareError, LayerNotMeasured
from profiler.layers.graph import Graph
from profiler.tables.predictor import Predictor
from profiler.tables.table import Table, load_table


@dataclass(frozen=True, slots=True)
class TablePrices:
    """The steps by one table, in their order; None where a layer is missing from it or, for energies, where it has none."""

    table: str
    modelled: bool
    latency_ms: tuple[float | None, ...]
    energy_mj: tuple[float | None, ...]

    @property
    def columns(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """The unit and the figures of each quantity, without energies that are not known of any step."""
        both = (("ms", self.latency_ms), ("mJ", self.energy_mj))
        return tuple((unit, figures) for unit, figures in both if unit == "ms" or any(each is not None for each in figures))


def prices_by_table(run: RunFolder) -> tuple[TablePrices, ...]:
    """By the run's own copy of each table. Tables whose copy is gone are left out."""
    graphs = [run.graph.at_widths(step.widths) for step in run.steps]
    found = []
    for name in run.info.tables:
        if run.table_path(name).exists():
            table = load_table(run.table_path(name))
            predictor = Predictor(table)
            energies = tuple(_energy_mj(table, graph) for graph in graphs)
            latencies = tuple(_latency_ms(predictor, graph) for graph in graphs)
            found.append(TablePrices(name, table.info.modelled is not None, latencies, energies))
    return tuple(found)


def _latency_ms(predictor: Predictor, graph: Graph) -> float | None:
    try:
        return predictor.predict(graph).latency_ms.value
    except LayerNotMeasured:
        return None


def _energy_mj(table: Table, graph: Graph) -> float | None:
    try:
        return open_resource("energy", table).price(graph)
    except (BudgetError, HardwareError):
        return None
