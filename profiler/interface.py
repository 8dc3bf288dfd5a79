"""The Python interface: what the commands `profile benchmark`, `profile build` and `profile predict` do, as functions.

    import profiler

    table = profiler.load_table("phone.parquet")
    print(table.predict("model.onnx").latency_ms.value)

Errors are `profiler.ToolError`, whose message is one sentence. In a notebook a table and a prediction show themselves as figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from device_agents.device_lock import waiting_by
from device_agents.support.errors import ToolError
from profiler.errors import LayerNotMeasured
from profiler.formats.given import Given
from profiler.formats.model_file import default_runtime, usual_runtime
from profiler.latency.validation import HeldOutError
from profiler.layers.graph import Graph
from profiler.measure.benchmark import Measured, measure_files
from profiler.modelled.model import is_model
from profiler.plotting.plot import heading, held_out_html
from profiler.progress import Shown, shown
from profiler.protocol.settings import Target, TimingSettings
from profiler.runtimes import MODELLED_RUNTIME
from profiler.schedule.state import stale_reason
from profiler.tables.build import StopCriterion
from profiler.tables.build_request import BuildRequest, build_tables
from profiler.tables.predicting import predict_file
from profiler.tables.predictor import Prediction, Predictor
from profiler.tables.table import Table
from profiler.tables.table import load_table as read_table
from profiler.tables.trust import trust_sentence

__all__ = ["LatencyTable", "Measured", "Prediction", "StaleTable", "ToolError", "benchmark", "build", "load_table"]

Shapes = Mapping[str, Sequence[int]]
"""Shapes of inputs that the model file leaves open, by name and in the layout of the file."""
Inputs = Mapping[str, ArrayLike]
"""Values of inputs by name: an array of the input's shape, or one number for all elements."""
_GIVE_WAIT = "give wait_s, the seconds to wait"


class StaleTable(UserWarning):
    """The table is older than its schedule allows, or its device has changed since it was built."""


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """The latency table of one device with one runtime, and the file that it was read from."""

    path: Path
    table: Table

    @property
    def held_out(self) -> HeldOutError:
        """How well the table predicts networks that took no part in fitting it."""
        return self.table.info.held_out

    @property
    def verified(self) -> bool:
        """True if the held-out error is within the limit and the device was quiet while the table was built."""
        return self.table.verified

    @property
    def stale(self) -> str | None:
        """Why the table ought to be built again, as far as that is known without its device; None if it is fresh."""
        return stale_reason(self.path, self.table)

    @property
    def layers(self) -> pd.DataFrame:
        """A row for each measured layer: latency in ms alone on the device with its 95 % interval, multiply-accumulates, bytes."""
        return pd.read_parquet(self.path).drop(columns="layer")

    def predict(
        self,
        model: str | Path | Graph,
        *,
        shapes: Shapes | None = None,
        inputs: Inputs | None = None,
        partial: bool = False,
        measure_missing: bool = False,
        wait_s: float = 0.0,
        progress: Shown = True,
    ) -> Prediction:
        """The latency of a model file, or of a network that netadapt has traced, with the share of each layer.

        With `measure_missing` the layers that the table lacks are measured on its device and added to the file. With `partial`
        the prediction leaves them out and names them in `missing`; otherwise they are an error, `LayerNotMeasured`. A stale table
        is told as the warning `StaleTable`. `wait_s` are the seconds to wait for a device that another run is measuring.
        """
        if reason := self.stale:
            warnings.warn(f"{self.path} is stale: {reason}", StaleTable, stacklevel=2)
        if isinstance(model, Graph):
            predictor = Predictor(self.table)
            return predictor.explain(model) if partial else predictor.predict(model)
        given = _given(shapes, inputs)
        with shown(progress) as reporter, waiting_by(_GIVE_WAIT):
            found = predict_file(self.path, Path(model), given, measure_missing=measure_missing, progress=reporter, wait_s=wait_s)
        if found.prediction.missing and not partial:
            first = found.prediction.missing[0]
            raise LayerNotMeasured(
                f"{len(found.prediction.missing)} of {len(found.prediction.layers)} layers of {model} are not in {self.path}, the "
                f"first is {first.layer.key} ({first.node}); measure_missing=True adds them, partial=True leaves them out"
            )
        return found.prediction

    def _repr_html_(self) -> str:
        """What a notebook shows: where the table is from, how far it can be trusted, and predicted against measured latencies."""
        stale = f"<p>Stale: {escape(self.stale)}.</p>" if self.stale else ""
        figure = f'<div style="max-width: 36rem">{held_out_html(self.held_out)}</div>' if self.held_out.checked else ""
        return (
            f"<p><b>{escape(str(self.path))}</b>: {len(self.table.rows)} layers, {escape(heading(self.table.info))}</p>"
            f"<p>Held-out error: {escape(trust_sentence(self.table))}.</p>{stale}{figure}"
        )


def load_table(path: str | Path) -> LatencyTable:
    """A latency table from its file. `TableError` for anything that is not an undamaged table."""
    return LatencyTable(Path(path), read_table(Path(path)))


def benchmark(
    model: str | Path,
    device: str = "local",
    *,
    runtime: str | None = None,
    threads: int = 1,
    shapes: Shapes | None = None,
    inputs: Inputs | None = None,
    settings: TimingSettings | None = None,
    wait_s: float = 0.0,
    progress: Shown = True,
) -> Measured:
    """The latency of a whole model file on a device, which is called as on the command line: local, adb:SERIAL, ssh:HOST or a name
    from profile.toml. Without `runtime` it is the usual one for files of this kind. `wait_s` are the seconds to wait for a device
    that another run is measuring.

    `ModelError` if the file cannot run there; errors of the device if it cannot be reached.
    """
    path = Path(model)
    target = Target(device, runtime or default_runtime(path), threads)
    with shown(progress) as reporter, waiting_by(_GIVE_WAIT):
        return measure_files([path], target, _given(shapes, inputs), settings=settings, progress=reporter, wait_s=wait_s)[path]


def build(
    plans: str | Path | Sequence[str | Path],
    out: str | Path,
    device: str = "local",
    *,
    runtime: str | None = None,
    threads: int = 1,
    settings: TimingSettings | None = None,
    stop: StopCriterion | None = None,
    shapes: Shapes | None = None,
    inputs: Inputs | None = None,
    energy: bool = False,
    densities: str | Path | None = None,
    resume: bool = False,
    wait_s: float = 0.0,
    progress: Shown = True,
) -> LatencyTable:
    """Measure the layers of plans or model files on a device, and write the latency table to `out`, a .parquet file.

    Layers that the file holds already are not measured again. Without `runtime` it is the usual one for the model files among
    `plans`. A build that was interrupted has left a journal beside `out`; `resume` goes on with it. `wait_s` are the seconds to
    wait for a device that another run is measuring. A table for a `device` such as model:eyeriss is computed, with energies and
    without a runtime, and `densities` is a file of `netadapt densities` for it.

    `TableError`, `ModelError` or `JournalError` in one sentence for what cannot be built, and errors of the device if it cannot be
    reached.
    """
    paths = tuple(map(Path, [plans] if isinstance(plans, str | Path) else plans))
    if is_model(device):
        runtime = MODELLED_RUNTIME
    request = BuildRequest(
        paths,
        (Target(device, runtime or usual_runtime(paths), threads),),
        Path(out),
        settings or TimingSettings(),
        stop or StopCriterion(),
        resume,
        energy,
        wait_s,
        given=_given(shapes, inputs),
        densities=None if densities is None else Path(densities),
    )
    with shown(progress) as reporter, waiting_by(_GIVE_WAIT):
        ((path, table),) = build_tables(request, {device: reporter}).tables.items()
    return LatencyTable(path, table)


def _given(shapes: Shapes | None, inputs: Inputs | None) -> Given:
    return Given(
        {name: tuple(shape) for name, shape in (shapes or {}).items()},
        {name: np.asarray(values) for name, values in (inputs or {}).items()},
    )
