"""Is a table the same when it is built again, and when something else runs meanwhile?

    python benchmarks/repeatability.py --runtime litert

Builds one table of MobileNetV1 three times: quiet, quiet again, and with a busy loop for the first half of the time that the first
build took. Prints how far the layers of the second are from the first, and how well each table predicts the networks as the quiet
builds measured them: a disturbed table that is wrong must say so.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from netadapt.networks import network_graph
from netadapt.silence_warnings import quiet
from profiler.layers.graph import Graph
from profiler.measure.state import MeasurementState
from profiler.progress import bar
from profiler.protocol.journal import journal_path, read_journal
from profiler.protocol.settings import Target
from profiler.tables.build import build
from profiler.tables.compare import compare
from profiler.tables.plan import make_plan
from profiler.tables.predictor import Predictor
from profiler.tables.table import Table
from profiler.tables.trust import trust_sentence


def busy() -> None:
    while True:
        pass


def main(
    runtime: Annotated[str, typer.Option()] = "litert",
    width_multiplier: Annotated[float, typer.Option()] = 0.5,
    resolution: Annotated[int, typer.Option()] = 128,
) -> None:
    with quiet():
        graph = network_graph("mobilenet_v1", width_multiplier=width_multiplier, resolution=resolution)
    with tempfile.TemporaryDirectory() as folder:
        first, second, third = (Path(folder, f"{name}.parquet") for name in ("first", "second", "disturbed"))
        before, after = built(graph, runtime, first), built(graph, runtime, second)
        told("quiet", before, before_ms := measured_ms(first))
        told("quiet again", after, before_ms)
        changes = compare(before, after).changes
        differ("all layers", [change.percent for change in changes])
        differ("layers of 50 µs and more", [change.percent for change in changes if change.before.latency_ms.value >= 0.05])
        process = multiprocessing.Process(target=busy, daemon=True)
        process.start()
        timer = threading.Timer(before.info.wall_s / 2, process.terminate)
        timer.start()
        disturbed = built(graph, runtime, third)
        timer.cancel()
        process.kill()
        told(f"busy loop for {before.info.wall_s / 2:.0f} of {disturbed.info.wall_s:.0f} s", disturbed, before_ms)


def built(graph: Graph, runtime: str, out: Path) -> Table:
    with bar() as progress:
        return build([make_plan(graph)], Target(runtime=runtime), out, progress=progress)


def measured_ms(table: Path) -> dict[str, tuple[Graph, float]]:
    """The networks held out of the fit, as they were measured."""
    results = MeasurementState.of(read_journal(journal_path(table)))
    checked = {key: graph for key, (role, graph) in results.networks.items() if role == "check"}
    return {key: (checked[key], value.latency_ms.value) for key, value in results.estimates(checked).items()}


def told(what: str, table: Table, truth: dict[str, tuple[Graph, float]]) -> None:
    predictor = Predictor(table)
    errors = np.abs([predictor.predict(graph).latency_ms.value / latency_ms - 1 for graph, latency_ms in truth.values()]) * 100
    print(f"{what}: {len(table.rows)} layers, {table.info.wall_s:.0f} s; it says: {trust_sentence(table)}")
    print(f"  against the networks of the first build: mean error {errors.mean():.1f} %, worst {errors.max():.1f} %")
    tags = ", ".join(f"{name} {count}" for name, count in table.info.disturbances.items())
    print(f"  {tags}; rows disturbed {table.disturbed_percent:.0f} %", flush=True)


def differ(what: str, percents: list[float]) -> None:
    if percents:
        middle, most = np.quantile(np.abs(percents), (0.5, 0.95))
        print(f"{what}, first against second: {len(percents)}, median {middle:.1f} %, 95th percentile {most:.1f} %")


if __name__ == "__main__":
    typer.run(main)
