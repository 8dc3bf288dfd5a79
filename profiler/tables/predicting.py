"""The latency of a model file, predicted from a table file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from profiler.errors import TableError
from profiler.formats.model_file import format_of, read_model
from profiler.tables.predictor import Prediction, Predictor
from profiler.tables.table import Table, load_table


@dataclass(frozen=True, slots=True)
class FilePrediction:
    """A model file, a table, and the prediction."""

    model: Path
    path: Path
    """The path of the table."""
    table: Table
    prediction: Prediction

    @property
    def adding(self) -> str | None:
        """The command that measures missing layers; None for an imported table, to which nothing can be added."""
        if self.table.info.imported:
            return None
        return f"profile build {self.model} --runtime {self.table.info.target.runtime} --out {self.path}"


def predict_file(path: Path, model: Path) -> FilePrediction:
    """Predict without raising for missing layers.

    `TableError` or `ModelError` if a file cannot be read, or if the runtime of the table does not run such models.
    """
    table, wanted = load_table(path), format_of(model).name
    target = table.info.target
    if not target.reads(wanted):
        raise TableError(f"{path} is for {target.runtime}, which does not run .{wanted} files; use a table of a runtime that does")
    return FilePrediction(model, path, table, Predictor(table).explain(read_model(model)))
