"""A predictor that measures the layers its table lacks, on the device of the table."""

from __future__ import annotations

import shutil
from pathlib import Path

from device_agents.support.atomic import whole
from profiler.errors import TableError
from profiler.layers.graph import Graph
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.journal import journal_path
from profiler.tables.build import extend
from profiler.tables.predictor import Prediction, Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.table import Table, load_table


def copy_table(source: Path, target: Path) -> None:
    """Copy a table and, if there is one, the journal beside it, without which the copy cannot grow."""
    for before, after in ((journal_path(source), journal_path(target)), (source, target)):
        if before.exists():
            with whole(after, TableError) as temporary:
                shutil.copyfile(before, temporary)


class GrowingTable:
    """Predicts by the table in `path`, which grows by the layers that a prediction lacked.

    Without the table's journal, missing layers are not measured.
    """

    def __init__(self, path: Path, progress: ProgressReporter | None = None) -> None:
        self.path = path
        self.predictor = Predictor(load_table(path))
        self._progress = progress or Silent()
        self._grows = journal_path(path).exists()

    @property
    def table(self) -> Table:
        """The table as it is by now."""
        return self.predictor.table

    def predict(self, graph: Graph) -> Prediction:
        """The network's latency, after missing layers were measured on the table's device.

        `LayerNotMeasured` if one cannot be measured; `DeviceError` or `RunnerError` if the device cannot be reached.
        """
        missing = list(dict.fromkeys(layer.layer for layer in self.predictor.explain(graph).missing))
        if missing and self._grows:
            self.predictor = Predictor(extend(self.path, missing, graph.opaques, progress=self._progress))
        return self.predictor.predict(graph)

    def pricer(self, graph: Graph) -> Pricer:
        """Prices by what is measured so far. They are NaN where a layer is missing, which `predict` would measure."""
        return Pricer(self.predictor, graph)
