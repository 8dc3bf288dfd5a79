"""`profile predict`: the latency of models by a table."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from device_agents.device_lock import waiting_by
from device_agents.support.errors import ToolError
from profiler.cli.options import ADD_WAIT, Densities, ModelFiles, Shapes, TableFile, Values, Wait, patience_s
from profiler.cli.several import each, tell
from profiler.console import Json, plain_errors, print_table, sizes, terminable
from profiler.errors import TableError
from profiler.formats.given import given_inputs
from profiler.formats.model_file import MODEL_SUFFIXES
from profiler.modelled.breakdown import Breakdown
from profiler.modelled.hardware import DATA_TYPES
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
    breakdown: Annotated[
        bool,
        typer.Option(
            "--breakdown",
            help="By a table of a modelled accelerator, print where energy goes: by layer, data type and memory, and what bounds "
            "each layer. Without it, only sums are printed.",
        ),
    ] = False,
    chart: Annotated[
        Path | None,
        typer.Option(
            help="Draw where the latency goes, layer by layer, or by a table of a modelled accelerator where the energy goes: a "
            ".png or .svg file. Without it, nothing is drawn."
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Exit with code 1 if a model is predicted to be slower than so many milliseconds, or cannot be predicted. Without "
            "it, any latency will do.",
        ),
    ] = None,
    densities: Densities = None,
    wait: Wait = False,
    shape: Shapes = [],  # noqa: B006
    input_: Values = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Predict the latency of models from a table, and say for each layer whether its share was measured or interpolated."""
    with plain_errors(), terminable(), waiting_by(ADD_WAIT):
        if table.suffix.lower() in MODEL_SUFFIXES:
            raise TableError(f"{table} is a model; the table comes first: profile predict TABLE MODEL")
        given = given_inputs(shape, input_)
        with bar() as progress:

            def foretell(model: Path) -> FilePrediction:
                return predict_file(
                    table,
                    model,
                    given,
                    measure_missing=measure_missing,
                    densities=densities,
                    progress=progress,
                    wait_s=patience_s(wait),
                )

            stale = stale_reason(table, load_table(table))
            found = each(models, foretell)
        if stale and any(isinstance(each, FilePrediction) for each in found.values()):
            print(f"warning: {table} is stale: {stale}", file=sys.stderr)
        if chart is not None:
            _draw(found, chart)

        def data(said: FilePrediction) -> dict[str, Any]:
            parts = {"breakdown": breakdown_data(said.breakdown())} if breakdown else {}
            return prediction_data(said) | {"stale": stale} | parts

        tell(found, as_json, data, _print_parts if breakdown else print_prediction)
        if max_latency_ms is not None:
            check_latencies(found, max_latency_ms)


def check_latencies(found: Mapping[Path, FilePrediction | ToolError], most_ms: float) -> None:
    """`TableError` that names the models which are predicted to be slower, or cannot be predicted."""
    said = []
    for model, result in found.items():
        if isinstance(result, ToolError):
            continue  # `tell` has told it
        if result.prediction.missing:
            said.append(f"the table lacks {len(result.prediction.missing)} of {len(result.prediction.layers)} layers of {model}")
        elif (latency_ms := result.prediction.latency_ms.value) > most_ms:
            said.append(f"{model} is predicted to take {latency_ms:.4g} ms")
    if said:
        raise TableError(f"{'; '.join(said)}; --max-latency-ms allows {most_ms:g} ms")


def _draw(found: Mapping[Path, FilePrediction | ToolError], chart: Path) -> None:
    """The chart of one model. `ToolError` for several: each would replace the one before."""
    from profiler.plotting.breakdown import write_breakdown  # matplotlib takes a second to start
    from profiler.plotting.waterfall import write_waterfall

    if len(found) > 1:
        raise ToolError(f"--chart draws one model, and {len(found)} are given; draw each with a --chart of its own")
    for said in found.values():
        if isinstance(said, FilePrediction) and said.table.info.modelled:
            write_breakdown(said.breakdown(), chart)
        elif isinstance(said, FilePrediction):
            latency = said.prediction.latency_ms.text("ms")
            write_waterfall(said.prediction, f"{said.model.name}: {latency}\nheld-out error: {trust_sentence(said.table)}", chart)


def _print_parts(found: FilePrediction, among_several: bool = False) -> None:
    print_breakdown(found.breakdown())


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
        known = "" if len(said.missing) == len(said.layers) else f"{'the others ' if lacks else ''}{said.latency_ms.text('ms')}"
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
            print(f"the others of {found.model.name}: {said.latency_ms.text('ms')}")
        if found.nearest:
            print(found.nearest)
    else:
        print(f"{found.model.name}: {said.latency_ms.text('ms')}, plain sum of layers {said.naive_ms:.3f} ms")
    if found.energy_mj is not None:
        print(f"{found.energy_mj:.4g} mJ")
        _print_zeros(found.breakdown())
    if not found.from_runtime and not found.table.info.modelled:
        print(f"which layers are executed follows from our rules for {found.table.info.target.runtime}; the runtime was not asked")
    if found.parts is not None:
        print(f"modelled, not measured, as the lines say: {found.parts.model.sentence()}, and their zeros")
    print(f"{'this table' if found.table.info.modelled else 'held-out error of this table'}: {trust_sentence(found.table)}")


def _print_zeros(found: Breakdown) -> None:
    """Which layers the densities are known of, where they are not known of all."""
    if found.model.densities is not None and (known := found.zeros_known) < (weighted := found.weighted):
        print(f"zeros are known of {known} of {weighted} layers with weights; all values of the others count")


def breakdown_data(found: Breakdown) -> dict[str, Any]:
    """Energies in mJ of one inference; `macs_per_cycle` is what each limit in turn leaves of the peak."""
    return {
        "energy_mj": found.energy_mj,
        "compute_mj": found.compute_mj,
        "overhead_mj": found.overhead_mj,
        "data_mj": {level: dict(kinds) for level, kinds in found.data_mj.items()},
        "units": found.model.hardware.units,
        "layers": [
            {"node": part.node, "op": part.layer.op, "macs": part.layer.macs, **asdict(part.cost), "key": part.layer.key}
            for part in found.layers
        ],
    }


def print_breakdown(found: Breakdown) -> None:
    levels = found.levels
    cells = [
        (
            part.node,
            f"{part.cost.energy_mj:.4g}",
            f"{part.cost.compute_mj:.3g}",
            f"{part.cost.overhead_mj:.3g}",
            *(f"{sum(part.cost.data_mj.get(level, {}).values()):.3g}" for level in levels),
            f"{part.cost.latency_ms:.4f}",
            f"{part.cost.active_units:.0f}" if part.layer.macs else None,
            f"{part.cost.macs_per_cycle['DRAM bandwidth']:.3g}" if part.cost.macs_per_cycle else None,
            part.cost.bound,
        )
        for part in found.layers
    ]
    columns = ("layer", "mJ", "compute", "control", *levels, "ms", "units", "MAC/cycle", "bound by")
    print_table(columns, cells, right=columns[1:-1])
    rows = [
        (
            level,
            *(f"{100 * kinds[kind] / found.energy_mj:.1f} %" for kind in DATA_TYPES),
            f"{100 * sum(kinds.values()) / found.energy_mj:.1f} %",
        )
        for level, kinds in found.data_mj.items()
    ]
    each = [f"{100 * sum(kinds[kind] for kinds in found.data_mj.values()) / found.energy_mj:.1f} %" for kind in DATA_TYPES]
    print()
    print_table(
        ("energy by level", *(f"{kind}s" for kind in DATA_TYPES), "all"),
        [*rows, ("all levels", *each, None)],
        right=(*(f"{kind}s" for kind in DATA_TYPES), "all"),
    )
    computing, control = (100 * energy_mj / found.energy_mj for energy_mj in (found.compute_mj, found.overhead_mj))
    print(f"computation {computing:.1f} %, clock and control {control:.1f} %")
    print(
        f"{found.name}: {found.energy_mj:.4g} mJ, {found.latency_ms:.4g} ms for one inference on {found.model.hardware.units} units"
    )
    print(f"modelled, not measured: {found.model.sentence()}")
    _print_zeros(found)
