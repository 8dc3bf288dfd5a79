"""The latency of a model file, predicted from a table file."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from device_agents.support.reading import read_bytes
from device_agents.support.text import decoded
from profiler.errors import ModelError, TableError
from profiler.formats.given import NOTHING, Given
from profiler.formats.model_file import format_of
from profiler.interval import Interval
from profiler.layers.graph import Graph
from profiler.measure.executed import ask_file
from profiler.modelled.breakdown import Breakdown, LayerPart, breakdown
from profiler.modelled.densities import read_densities
from profiler.modelled.energy_page import SUFFIX, read_page
from profiler.modelled.model import Model
from profiler.modelled.work import Assumptions
from profiler.progress import ProgressReporter
from profiler.protocol.journal import journal_path
from profiler.tables.build import extend
from profiler.tables.predictor import LayerPrediction, Prediction, Predictor
from profiler.tables.table import Table, load_table


@dataclass(frozen=True, slots=True)
class FilePrediction:
    """A model file, a table, and the prediction."""

    model: Path
    path: Path
    """The path of the table."""
    table: Table
    prediction: Prediction
    from_runtime: bool
    """True if the runtime said which layers it executes for the file, False if they follow from our rules."""
    given: Given = NOTHING
    parts: Breakdown | None = None
    """Of a file of lines that say batch, bits and zeros themselves (profiler.modelled.energy_page)."""

    @property
    def way_out(self) -> str:
        """The command that measures missing layers, or why none does."""
        predictor = Predictor(self.table)
        for missing in self.prediction.missing:
            if why := predictor.why_missing(missing.layer):
                return f"{missing.layer.key} could not be measured: {why}"
        if self.table.info.modelled:
            return "nothing can be measured there; give a description of hardware that has room for them"
        if self.table.info.imported:
            return "an imported table cannot be extended"
        if not journal_path(self.path).exists():
            return "the table has no journal beside it, so it cannot be extended; build another with `profile build`"
        command = ["profile", "predict", str(self.path), str(self.model), *self.given.options, "--measure-missing"]
        return f"`{shlex.join(command)}` adds them"

    @property
    def energy_mj(self) -> float | None:
        """Energy of one inference; None unless the table is modelled and has no layer missing."""
        return None if self.table.info.modelled is None or self.prediction.missing else self.breakdown().energy_mj

    def breakdown(self) -> Breakdown:
        """Where the energy goes. `TableError` unless the table is modelled, or if a layer is missing."""
        if self.parts is not None:
            return self.parts
        model = self.table.info.model
        if model is None:
            raise TableError(
                f"{self.path} was measured, which does not tell where energy goes; build a table of an accelerator, with --device "
                "model:NAME (`profile hardware` lists them)"
            )
        if missing := self.prediction.missing:
            more = f", nor can {len(missing) - 1} more" if len(missing) > 1 else ""
            raise TableError(f"{missing[0].layer.key} cannot run there{more}: {self.way_out}")
        return breakdown(model, self.model.name, [(layer.node, layer.layer) for layer in self.prediction.layers])

    @property
    def nearest(self) -> str | None:
        """How the first missing layer differs from one in the table, if only by its activation or bias; None if by more."""
        for missing in self.prediction.missing:
            for row in self.table.rows:
                for name in ("activation", "bias"):
                    wanted, there = getattr(missing.layer, name), getattr(row, name)
                    if wanted != there and replace(row, **{name: wanted}) == missing.layer:
                        return f"{missing.node} differs from a layer of the table only in its {name}: {wanted} instead of {there}"
        return None


def predict_file(
    path: Path,
    model: Path,
    given: Given = NOTHING,
    *,
    measure_missing: bool = False,
    densities: Path | None = None,
    progress: ProgressReporter | None = None,
    wait_s: float = 0.0,
) -> FilePrediction:
    """Predict without raising for missing layers.

    A file that the table was not built from has the layers that our rules say. With `measure_missing` the table's device is asked,
    and the layers that the table lacks are measured there and added to it. A file of densities takes the place of those that a
    modelled table was computed with.

    `TableError` or `ModelError` if a file cannot be read, or if the runtime of the table does not run such models; errors of the
    device if it cannot be reached.
    """
    table = load_table(path)
    if densities is not None:
        table = _with_densities(table, path, densities)
    if model.suffix.lower() == SUFFIX:
        if (hardware := table.info.model) is None:
            raise TableError(
                f"{path} is no table of a modelled accelerator, which lines as in {model} are for; give one, or a model file"
            )
        return _predict_page(path, table, hardware, model)
    file_format = format_of(model)
    target = table.info.target
    if not target.reads(file_format.name):
        raise TableError(
            f"{path} is for {target.runtime}, which does not run .{file_format.name} files; use a table of a runtime that does"
        )
    if measure_missing and table.info.modelled:
        raise TableError(f"{path} is modelled, so nothing can be measured for it; leave --measure-missing out")
    plain = file_format.read(model, given)
    graph = table.info.files.get(hashlib.sha256(file_format.complete(model, given)).hexdigest())
    if measure_missing and table.info.imported:
        raise TableError(f"{path} was imported, so nothing can be added to it; build a table on a device of yours")
    opaques = plain.opaques
    if measure_missing and (graph is None or _lacks_files(graph)):
        asked = ask_file(model, target, given, progress=progress, wait_s=wait_s)
        graph = asked.graph if asked.from_runtime else None
        opaques = {**opaques, **asked.graph.opaques}  # those that were asked for are fed what the network feeds them
    prediction = Predictor(table).explain(graph or plain)
    if measure_missing and prediction.missing:
        layers = list(dict.fromkeys(item.layer for item in prediction.missing))
        table = extend(path, layers, opaques, progress=progress)
        prediction = Predictor(table).explain(graph or plain)
    return FilePrediction(model, path, table, prediction, graph is not None, given)


def _with_densities(table: Table, path: Path, densities: Path) -> Table:
    model = table.info.model
    if model is None:
        raise TableError(f"{path} was measured, with whatever zeros there were; leave --densities out")
    device = {**table.info.device, "modelled": model.with_densities(read_densities(densities)).to_dict()}
    return replace(table, info=replace(table.info, device=device))


def _predict_page(path: Path, table: Table, model: Model, file: Path) -> FilePrediction:
    """The layers in the lines of a file, by the table's hardware, but with the batch, bits and zeros of each line."""
    try:
        lines = read_page(decoded(read_bytes(file, ModelError)), str(file))
    except UnicodeDecodeError as exc:
        raise ModelError(f"{file} is not text in UTF-8 or UTF-16") from exc
    parts = tuple(
        LayerPart(f"line {number}", line.layer(), model.assuming(line.assumptions()).cost(line.layer()))
        for number, line in enumerate(lines, 1)
    )
    first = lines[0].assumptions()
    found = Breakdown(model.assuming(Assumptions(first.batch, first.bits)), file.name, parts)
    layers = tuple(
        LayerPrediction(part.node, part.layer, Interval.unknown(part.cost.latency_ms), "modelled") for part in found.layers
    )
    prediction = Prediction(Interval.unknown(found.latency_ms), found.latency_ms, layers)
    return FilePrediction(file, path, table, prediction, False, parts=found)


def _lacks_files(graph: Graph) -> bool:
    """True if the graph has operators that are cut out of a file, but not their files, which no table keeps."""
    return any(layer.opaque is not None and layer.opaque.digest not in graph.opaques for layer in graph.layers)
