"""How long does one NetAdapt step take to price? Every width of every block of a network, which is narrowed between steps.

    python benchmarks/pricing.py [TABLE] [--network resnet18] [--block 16]

Without a table one is made up, with as many rows as a real one has: what a price is does not change how long it takes to look up.
`--block` makes it one of onnxruntime on a processor with blocks of so many channels.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from netadapt.networks import network_graph
from netadapt.silence_warnings import quiet
from profiler.interval import Interval
from profiler.latency.staircase import Staircase, Staircases
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.plan import make_plan
from profiler.tables.predictor import Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.sampling import asked_for, corners_of
from profiler.tables.table import Table, TableInfo, load_table

STAIRCASES: Staircases = {("conv2d 1x1", "out"): Staircase(32, False), ("depthwise_conv2d 3x3", "in"): Staircase(16, False)}
STEPS = 20
NARROWER = 0.9
"""The part of its width that a block keeps in a step."""


def main(
    table: Annotated[Path | None, typer.Argument(help="A table of the network.")] = None,
    network: Annotated[str, typer.Option(help="A network by name, as `netadapt networks` lists them.")] = "mobilenet_v1",
    block: Annotated[int, typer.Option(help="Channels in a block of the layout of a made-up table; 1 for LiteRT.")] = 1,
) -> None:
    with quiet():
        graph = network_graph(network)
    predictor = Predictor(load_table(table) if table else made_up(graph, block))
    step, taken_ms = graph, []
    for number in range(STEPS):
        narrowed = list(graph.widths)[number % len(graph.widths)]
        step = step.at_widths({narrowed: max(8, int(NARROWER * step.widths[narrowed]) // 8 * 8)})
        before = time.perf_counter()
        pricer = Pricer(predictor, step)  # one of its own each time, as every step of the loop has one
        prices = [pricer.prices(name, range(8, width + 1, 8)) for name, width in step.widths.items()]
        taken_ms.append((time.perf_counter() - before) * 1e3)
    missing = sum(math.isnan(price) for found in prices for price in found)
    rows = len(predictor.table.rows)
    print(f"{sum(map(len, prices))} prices of {len(prices)} blocks from a table of {rows} rows; {missing} missing")
    rest = sorted(taken_ms[1:])
    print(
        f"  first step {taken_ms[0]:.1f} ms; the other {STEPS - 1}: median {statistics.median(rest):.1f}, worst {rest[-1]:.1f} ms"
    )


def made_up(graph: Graph, block: int) -> Table:
    """The corners of a plan, and what random networks have that these do not tell, as a build measures it first."""
    target = Target(runtime="onnxruntime" if block > 1 else "litert")
    rules, plan = ExecutionRules(target.runtime, block), make_plan(graph)
    info = TableInfo(target, {}, TimingSettings(), "2026-01-01T00:00:00+00:00", staircases=STAIRCASES, block=block)
    known = Table({layer: estimate(layer) for layer in corners_of(replace(plan, graph=rules.entries(graph)), STAIRCASES)}, info)
    predictor = Predictor(known)
    others = [missing.layer for network in asked_for(plan) for missing in predictor.explain(network).missing]
    return replace(known, rows={**known.rows, **{rules.entry(layer): estimate(layer) for layer in others}})


def estimate(layer: LayerSpec) -> Estimate:
    ms = 1e-3 + 1e-7 * (layer.macs or 0)
    return Estimate(Interval(ms, 0.99 * ms, 1.01 * ms), 6, 60, 6)


if __name__ == "__main__":
    typer.run(main)
