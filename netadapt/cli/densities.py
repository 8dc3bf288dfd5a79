"""The command `netadapt densities`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netadapt.cli import options
from netadapt.cli.errors import needs_torch
from netadapt.cli.source import source_with_warnings
from profiler.console import Json, print_json, print_table

if TYPE_CHECKING:
    from profiler.modelled.densities import Densities


def densities(
    network: options.NetworkOrRun,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, .json, for `profile build --densities`.")],
    data: options.DataOfRun = None,
    step: options.StepOfRun = None,
    images: Annotated[int, typer.Option(min=1, help="Number of training images, at most all.")] = 256,
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shapes: options.Input = None,
    output: options.Output = None,
    small_input: options.SmallInput = False,
    weights: options.TrainedWeights = None,
    task: options.Task = None,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Count which values of each layer are zero, on images: what modelled accelerators that leave zeros out depend on."""
    with needs_torch():
        from netadapt.errors import SettingsError
        from netadapt.pruning.pruner import sample
        from netadapt.weight_pruning.densities import measured_densities
        from netadapt.weight_pruning.source import source_request
        from profiler.modelled.densities import write_densities

        if not out.parent.is_dir():
            raise SettingsError(f"{out} cannot be written, as there is no folder {out.parent}; give another --out")
        request = source_request(
            network, step, data, width_multiplier, resolution, small_input, input_shapes, output, weights, task, seed=seed
        )
        source = source_with_warnings(request, ", so its zeros are too; give --weights")
        shown = sample(source.dataset.train, images, seed)
        found = measured_densities(source.model, source.graph, shown, source.name, source.dataset.name)
        write_densities(found, out)
        if as_json:
            print_json(found.to_dict())
        else:
            print_densities(found, {node.name for node in source.graph.nodes if node.layer.weight_shape}, out)


def print_densities(found: Densities, weighted: Collection[str], out: Path) -> None:
    """The share of zeros of each layer, in percent; those of `weighted` have weights."""

    def zeros(share: float) -> str:
        return f"{100 * (1 - share):.1f}"

    rows = [
        (name, zeros(layer.input), zeros(layer.weight) if name in weighted else None, zeros(layer.output))
        for name, layer in found.layers.items()
    ]
    columns = ("zeros in % of", "inputs", "weights", "outputs")
    print_table(columns, rows, right=columns[1:])
    print(f"{out}: {found.sentence()}; `profile build PLAN --device model:eyeriss --densities {out} --out TABLE.parquet` uses them")
