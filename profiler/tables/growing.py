"""A latency table that measures what it is asked for and lacks, on the device it was made on.

It works on a copy of its own: the table it came from stays as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from device_agents.support.atomic import whole
from profiler.errors import TableError
from profiler.layers.graph import Graph
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.journal import journal_path
from profiler.tables.build import extend
from profiler.tables.table import LatencyTable, Prediction, load_table


def copy_table(source: Path, target: Path) -> None:
    """The table and, where there is one, the journal beside it, without which it cannot grow."""
    for before, after in ((journal_path(source), journal_path(target)), (source, target)):
        if before.exists():
            with whole(after, TableError) as temporary:
                shutil.copyfile(before, temporary)


class OnDemand:
    """Predicts like the table in `path`, which grows by what was missing. Without its journal it is a table like any other."""

    def __init__(self, path: Path, progress: ProgressReporter | None = None) -> None:
        self.path = path
        self.table: LatencyTable = load_table(path)
        self._progress = progress or Silent()

    def predict(self, graph: Graph) -> Prediction:
        """`LayerNotMeasured` if a layer is missing and cannot be measured; an error of the device's if it cannot be reached."""
        missing = list(dict.fromkeys(part.layer for part in self.table.explain(graph).missing))
        if missing and journal_path(self.path).exists():
            self.table = extend(self.path, missing, graph.opaques, progress=self._progress)
        return self.table.predict(graph)

    def prices(self, graph: Graph, block: str, widths: Sequence[int]) -> list[float]:
        """Of what is measured so far; NaN where a layer is missing, for `predict` to measure it if that width is asked for."""
        return self.table.prices(graph, block, widths)
