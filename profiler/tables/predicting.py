"""The latency of a model file by a table file, and the source of each layer's share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from profiler.errors import TableError
from profiler.formats.model_file import format_of, read_model
from profiler.tables.predictor import Prediction, Predictor
from profiler.tables.table import Table, load_table


@dataclass(frozen=True, slots=True)
class FilePrediction:
    """A model file's predicted latency, and the table that it was predicted by."""

    model: Path
    path: Path
    """The file of the table."""
    table: Table
    prediction: Prediction

    @property
    def adding(self) -> str | None:
        """The command that measures what the table lacks; None for an imported table, to which nothing can be added."""
        if self.table.info.imported:
            return None
        return f"profile build {self.model} --runtime {self.table.info.target.runtime} --out {self.path}"


def predict_file(path: Path, model: Path) -> FilePrediction:
    """Predict a model file. Raises `TableError` or `ModelError` if a file cannot be read or the runtime cannot run the model."""
    table, wanted = load_table(path), format_of(model).name
    target = table.info.target
    if not target.reads(wanted):
        raise TableError(f"{path} is for {target.runtime}, which does not run .{wanted} files; use a table of a runtime that does")
    return FilePrediction(model, path, table, Predictor(table).explain(read_model(model)))
