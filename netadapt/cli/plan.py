"""The command `netadapt plan`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from netadapt.networks.options import NetworkOptions
from netadapt.networks.planning import PlanRequest, plan_network
from profiler.console import Json, print_json


def plan(
    network: options.Network,
    out: Annotated[Path, typer.Option("--out", "-o", help="The plan to write, a .json file for `profile build`.")],
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shapes: options.Input = None,
    output: options.Output = None,
    classes: options.Classes = 1000,
    small_input: options.SmallInput = False,
    precision: options.LayerPrecision = "float32",
    seed: options.Seed = 1,
    dry_run: options.DryRun = True,
    as_json: Json = False,
) -> None:
    """Write the plan of a table that can predict every narrower version of a network, for `profile build`.

    Before that, the whole way of a run is tried in seconds: the network is narrowed, trained for a step and exported.
    """
    with needs_torch():
        chosen = NetworkOptions.chosen(network, width_multiplier, resolution, small_input, input_shapes, classes, output)
        done = plan_network(PlanRequest(chosen, out, precision, seed, dry_run))
        if as_json:
            print_json(asdict(done))
        else:
            print("\n".join(printing.plan_lines(done)))
