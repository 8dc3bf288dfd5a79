"""`profile predict`: the latency of models by a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.cli.options import ModelFiles, Shapes, TableFile, Values, Wait, patience_s
from profiler.cli.several import each, tell
from profiler.console import Json, interval_text, plain_errors, print_table, sizes, terminable
from profiler.formats.given import given_inputs
from profiler.progress import bar
from profiler.schedule.state import stale_reason
from profiler.tables.predicting import FilePrediction, predict_file
from profiler.tables.predictor import LayerPrediction
from profiler.tables.table import load_table
from profiler.tables.trust import trust_sentence

LATENCY_COLUMNS = ("latency_ms", "latency_ms_low", "latency_ms_high")


MeasureMissing = Annotated[
    bool,
    typer.Option(
        "--measure-missing",
        help="Ask the table's device what it executes for the model, measure the layers that the table lacks, and add them. "
        "Without it, no device is needed.",
    ),
]


def predict(
    table: TableFile,
    models: ModelFiles,
    measure_missing: MeasureMissing = False,
    wait: Wait = False,
    shape: Shapes = [],  # noqa: B006
    input_: Values = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Predict the latency of models from a table, and say for each layer whether its share was measured or interpolated."""
    with plain_errors(), terminable():
        given = given_inputs(shape, input_)
        with bar() as progress:

            def foretell(model: Path) -> FilePrediction:
                return predict_file(
                    table, model, given, measure_missing=measure_missing, progress=progress, wait_s=patience_s(wait)
                )

            stale = stale_reason(table, load_table(table))
            found = each(models, foretell)
        if stale and any(isinstance(each, FilePrediction) for each in found.values()):
            print(f"warning: {table} is stale: {stale}", file=sys.stderr)
        tell(found, as_json, lambda each: prediction_data(each) | {"stale": stale}, print_prediction)


def prediction_data(found: FilePrediction) -> dict[str, Any]:
    """Figures of the network are None where one of its layers is missing."""
    said = found.prediction
    latency_ms = said.latency_ms.to_dict("latency_ms")
    return {
        "model": str(found.model),
        **(dict.fromkeys(latency_ms) if said.missing else latency_ms),
        "naive_ms": None if said.missing else said.naive_ms,
        "from_runtime": found.from_runtime,
        "missing": [layer.layer.key for layer in said.missing],
        "verified": found.table.verified,
        "held_out": found.table.info.held_out.to_dict(),
        **(
            {} if found.table.info.modelled is None else {"modelled": dict(found.table.info.modelled), "energy_mj": found.energy_mj}
        ),
        "layers": [layer_data(layer) for layer in said.layers],
    }


def layer_data(layer: LayerPrediction) -> dict[str, Any]:
    return {
        "node": layer.node,
        "op": layer.layer.op,
        "output": list(layer.layer.output),
        **(layer.latency_ms.to_dict("latency_ms") if layer.latency_ms else dict.fromkeys(LATENCY_COLUMNS)),
        "source": layer.source,
        "key": layer.layer.key,
    }


def print_prediction(found: FilePrediction, among_several: bool = False) -> None:
    """Each layer and the sum, or one line for each of several models."""
    said = found.prediction
    if among_several:
        lacks = f"; {len(said.missing)} of {len(said.layers)} layers are missing; {found.way_out}" if said.missing else ""
        known = (
            ""
            if len(said.missing) == len(said.layers)
            else f"{'the others ' if lacks else ''}{interval_text(said.latency_ms, 'ms')}"
        )
        print(f"{found.model}: {known or 'nothing is known'}{lacks}")
        return
    cells = [
        (
            layer.node,
            layer.layer.op,
            sizes(layer.layer.output),
            None if layer.latency_ms is None else f"{layer.latency_ms.value:.4f}",
            layer.source,
        )
        for layer in said.layers
    ]
    print_table(("layer", "kind", "output", "ms", "source"), cells, right=("ms",))
    if said.missing:
        print(f"{len(said.missing)} of {len(said.layers)} layers are missing; {found.way_out}")
        if len(said.missing) < len(said.layers):
            print(f"the others of {found.model.name}: {interval_text(said.latency_ms, 'ms')}")
        if found.nearest:
            print(found.nearest)
    else:
        print(f"{found.model.name}: {interval_text(said.latency_ms, 'ms')}, plain sum of layers {said.naive_ms:.3f} ms")
    if found.energy_mj is not None:
        print(f"{found.energy_mj:.4g} mJ")
    if not found.from_runtime and not found.table.info.modelled:
        print(f"which layers are executed follows from our rules for {found.table.info.target.runtime}; the runtime was not asked")
    print(f"{'this table' if found.table.info.modelled else 'held-out error of this table'}: {trust_sentence(found.table)}")
