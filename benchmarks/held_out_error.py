"""How well do tables predict whole networks? Builds a table for every combination asked for and prints one row for each.

    python benchmarks/held_out_error.py                                            MobileNetV1 at 128 and 224 px, both runtimes
    python benchmarks/held_out_error.py --network resnet18 --resolution 128 --threads 1 --threads 2 --precision int8

The machine should be otherwise idle; a build takes one to four minutes. Errors are those on networks held out of every fit.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from netadapt.networks import network_graph
from netadapt.silence_warnings import quiet
from profiler.progress import bar
from profiler.protocol.settings import Target
from profiler.tables.build import StopCriterion, build
from profiler.tables.plan import make_plan
from profiler.tables.table import Table

COLUMNS = (
    "network",
    "runtime",
    "threads",
    "precision",
    "layers",
    "minutes",
    "wall/samples",
    "mean %",
    "worst %",
    "bias %",
    "Spearman",
    "coverage %",
    "plain sum, mean %",
    "disturbed %",
)


def main(
    network: Annotated[list[str], typer.Option()] = ["mobilenet_v1"],  # noqa: B006  typer copies it
    resolution: Annotated[list[int], typer.Option()] = [128, 224],  # noqa: B006
    width_multiplier: Annotated[float, typer.Option()] = 1.0,
    runtime: Annotated[list[str], typer.Option()] = ["onnxruntime", "litert"],  # noqa: B006
    threads: Annotated[list[int], typer.Option()] = [1],  # noqa: B006
    precision: Annotated[list[str], typer.Option()] = ["float32"],  # noqa: B006
    until: Annotated[float, typer.Option(help="Per cent.")] = StopCriterion().target_error_percent,
    details: Annotated[bool, typer.Option("--details", help="Print every held-out network.")] = False,
) -> None:
    print("| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), sep="\n", flush=True)
    for name, size, kind in product(network, resolution, precision):
        with quiet():
            graph = network_graph(name, width_multiplier=width_multiplier, resolution=size).with_precision(kind)
        for which, count in product(runtime, threads):
            with tempfile.TemporaryDirectory() as folder, bar() as progress:
                target = Target(runtime=which, threads=count)
                stop = StopCriterion(target_error_percent=until)
                table = build([make_plan(graph)], target, Path(folder, "table.parquet"), stop=stop, progress=progress)
            cells = (f"{name} {width_multiplier:g}/{size}", f"{which} {table.info.device['version']}", count, kind, *row(table))
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
            if details:
                for checked in table.info.held_out.checked:
                    print(f"    {checked.error_percent:+.1f} %  {checked.measured_ms:.3f} ms  {checked.name}")


def row(table: Table) -> tuple[object, ...]:
    info, held_out = table.info, table.info.held_out
    figures = (held_out.mean_error_percent, held_out.worst_error_percent, held_out.bias_percent)
    return (
        len(table.rows),
        f"{info.wall_s / 60:.1f}",
        f"{info.wall_s / info.measuring_s:.2f}",
        *("–" if figure is None else f"{figure:.1f}" for figure in figures),
        "–" if held_out.spearman is None else f"{held_out.spearman:.3f}",
        "–" if held_out.coverage_percent is None else f"{held_out.coverage_percent:.0f}",
        "–" if held_out.naive_mean_error_percent is None else f"{held_out.naive_mean_error_percent:.1f}",
        f"{table.disturbed_percent:.0f}",
    )


if __name__ == "__main__":
    typer.run(main)
