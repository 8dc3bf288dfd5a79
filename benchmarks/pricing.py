"""How long does one NetAdapt step take to price? Every width of every block of MobileNetV1 1.0/224, from a table.

    python benchmarks/pricing.py [TABLE]

Without a table one is made up, with as many rows as a real one has: what a price is does not change how long it takes to look up.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import typer

from netadapt.networks import network_graph
from netadapt.silence_warnings import quiet
from profiler.interval import Interval
from profiler.latency.staircase import Staircase, Staircases
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.plan import make_plan
from profiler.tables.predictor import Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.sampling import corners_of
from profiler.tables.table import Table, TableInfo, load_table

STAIRCASES: Staircases = {("conv2d 1x1", "out"): Staircase(32, False), ("depthwise_conv2d 3x3", "in"): Staircase(16, False)}
REPEATS = 20


def main(table: Annotated[Path | None, typer.Argument(help="A table of MobileNetV1 1.0/224.")] = None) -> None:
    with quiet():
        graph = network_graph("mobilenet_v1")
    predictor = Predictor(load_table(table) if table else made_up(graph))
    widths = {block: list(range(8, full + 1, 8)) for block, full in graph.widths.items()}
    taken_ms = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        # a pricer of its own each time, as every step of the loop has one
        step = graph.at_widths({})
        pricer = Pricer(predictor, step)
        prices = [pricer.prices(block, choices) for block, choices in widths.items()]
        taken_ms.append((time.perf_counter() - before) * 1e3)
    print(f"{sum(map(len, prices))} prices of {len(widths)} blocks from a table of {len(predictor.table.rows)} rows")
    print(f"  first {taken_ms[0]:.1f} ms, median of the other {REPEATS - 1}: {statistics.median(taken_ms[1:]):.1f} ms")
    before = time.perf_counter()
    for block, choices in list(widths.items())[:3]:
        for width in choices:
            predictor.explain(graph.at_widths({block: width}))
    count = sum(len(choices) for choices in list(widths.values())[:3])
    print(f"  one network after the other: {(time.perf_counter() - before) * 1e3 / count:.2f} ms each")


def made_up(graph: object) -> Table:
    layers = corners_of(make_plan(graph), STAIRCASES)  # type: ignore[arg-type]
    rows = {
        layer: Estimate(Interval(ms, 0.99 * ms, 1.01 * ms), 6, 60, 6) for layer in layers if (ms := 1e-3 + 1e-7 * (layer.macs or 0))
    }
    return Table(rows, TableInfo(Target(), {}, TimingSettings(), "2026-01-01T00:00:00+00:00", staircases=STAIRCASES))


if __name__ == "__main__":
    typer.run(main)
