"""How many layers an hour? Our build against a harness that starts a process for each layer, at the same width of interval.

    python benchmarks/layers_per_hour.py --layers 30

Random layers of MobileNetV1 at random widths, on LiteRT, one thread. Both sides write each layer's file, and both are done with a
layer when the same rule calls it settled: `estimate`'s 95 % interval within `TimingSettings.settle_percent`, or a microsecond.

  ours      as `profile build` does with its default settings: one process measures all layers in shuffled rounds, six to eighteen
            of them; a build of few layers waits, so that a round lasts 0.4 s
  harness   `litert-benchmark` on one layer after the other: a process counts as a round, its median as the quiet latency of
            that round; it stops at three processes if they agree, and gives up after eighteen

The layers are taken in chunks and the order of the two alternates from chunk to chunk, so that both see the machine at all times.
Small chunks make our waiting dearer than a real build of hundreds of layers does; `--layers 200 --chunks 4` comes near to one and
takes some four minutes. The latencies of the two differ by what they call: Interpreter.invoke here, CompiledModel.run_by_name
there, which takes a microsecond or two longer from Python. The machine should be otherwise idle.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from litert_tool import litert_benchmark_median_ms

from netadapt.networks import network_graph
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph, unique_layers
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate, Measurement, estimate
from profiler.measure.loop import MeasurementRun
from profiler.measure.opening import open_session
from profiler.progress import Silent, bar
from profiler.protocol.journal import Journal
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.plan import make_plan

TARGET = Target(runtime="litert")
FEWEST_PROCESSES = 3


def main(
    layers: Annotated[int, typer.Option()] = 30,
    chunks: Annotated[int, typer.Option(help="Parts the layers are measured in; the order alternates.")] = 2,
    runs: Annotated[int, typer.Option(help="Inferences in each of the harness's processes.")] = 500,
    warmup_runs: Annotated[int, typer.Option(help="And before them.")] = 50,
    width_multiplier: Annotated[float, typer.Option()] = 0.5,
    resolution: Annotated[int, typer.Option()] = 128,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    settings = TimingSettings()
    plan = make_plan(network_graph("mobilenet_v1", width_multiplier=width_multiplier, resolution=resolution))
    possible = list(unique_layers(layer for widths in plan.fit for layer in plan.graph.at_widths(widths).layers))
    drawn = random.Random(seed).sample(possible, layers)
    sides = {
        "ours": lambda part: measured_by_build(part, settings),
        "harness": lambda part: measured_one_by_one(part, settings, runs, warmup_runs),
    }
    spent_s = dict.fromkeys(sides, 0.0)
    found: dict[str, dict[str, Estimate]] = {name: {} for name in sides}
    with bar() as progress:
        progress.begin("measuring", chunks * len(sides))
        for number in range(chunks):
            for name in sorted(sides, reverse=number % 2 == 0):
                started = time.monotonic()
                found[name] |= sides[name](drawn[number::chunks])
                spent_s[name] += time.monotonic() - started
                progress.advance(name)
    print(
        f"{layers} layers of MobileNetV1 {width_multiplier:g}/{resolution} at random widths; "
        f"settled is a 95 % interval within {settings.settle_percent:g} % or {1000 * settings.settle_ms:g} µs"
    )
    per_hour = {name: 3600 * len(found[name]) / spent_s[name] for name in sides}
    for name, values in found.items():
        settled = sum(value.settled(settings) for value in values.values())
        rounds = statistics.mean(value.rounds for value in values.values())
        width = statistics.median(100 * value.latency_ms.half_width / value.latency_ms.value for value in values.values())
        print(
            f"{name:8} {len(values)} layers in {spent_s[name]:.0f} s: {per_hour[name]:.0f} layers an hour; "
            f"{settled} settled ({100 * settled / len(values):.0f} %), median interval ±{width:.1f} %, {rounds:.1f} rounds a layer"
        )
    print(f"ratio {per_hour['ours'] / per_hour['harness']:.2f}")
    pairs = [(found["ours"][key].latency_ms.value, found["harness"][key].latency_ms.value) for key in found["ours"]]
    absolute_us = statistics.median(1000 * (mine - other) for mine, other in pairs)
    relative = statistics.median(100 * (mine / other - 1) for mine, other in pairs)
    print(
        f"latencies from {1000 * min(pairs)[0]:.1f} to {1000 * max(pairs)[0]:.1f} µs; "
        f"ours less the harness's: median {absolute_us:+.2f} µs, {relative:+.1f} %"
    )


def measured_by_build(layers: Sequence[LayerSpec], settings: TimingSettings) -> Mapping[str, Estimate]:
    """As `profile build` measures layers, without whole networks; by key."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_session(TARGET, settings) as session,
        Journal(Path(folder, "journal.jsonl"), TARGET, settings, resume=False) as journal,
    ):
        run = MeasurementRun(session, Silent(), journal)
        keys = run.add_layers(layers)
        run.measure(dict.fromkeys(keys, settings.rounds), "measuring")
        run.settle(dict.fromkeys(keys, settings.max_rounds))
        return run.state.estimates(keys)


def measured_one_by_one(
    layers: Sequence[LayerSpec], settings: TimingSettings, runs: int, warmup_runs: int
) -> Mapping[str, Estimate]:
    """As a script around LiteRT's tool would; by key."""
    found: dict[str, Estimate] = {}
    with tempfile.TemporaryDirectory() as folder:
        for layer in layers:
            path = Path(folder, "layer.tflite")
            path.write_bytes(_file(layer))
            measurements: list[Measurement] = []
            while len(measurements) < FEWEST_PROCESSES or (
                len(measurements) < settings.max_rounds and not estimate(measurements).settled(settings)
            ):
                median_ms = litert_benchmark_median_ms(path, runs=runs, warmup_runs=warmup_runs, threads=TARGET.threads)
                measurements.append(Measurement(layer.key, len(measurements), 1, (round(median_ms * 1e6),)))
            found[layer.key] = estimate(measurements)
    return found


def _file(layer: LayerSpec) -> bytes:
    return FORMATS[TARGET.model_format].write(Graph.of_layer(layer))


if __name__ == "__main__":
    typer.run(main)
