"""What does the way to a device cost? The same layers over several devices, in one run, interleaved.

    python benchmarks/transports.py --device local --device ssh:HOST --device adb:SERIAL --device adb:HOST:PORT --layers 200

Random layers of MobileNetV1 at random widths, on LiteRT, one thread, as `profile build` measures them. They are taken in chunks,
and each device has its turn with every chunk. Printed for each: layers an hour, the part of the wall time that was not spent in
samples, and its layers' latencies against those of the first device (median ratio), which says something where the devices are one
machine reached in different ways. The first chunk finds each device's store as it is: `profile clean` before gives cold figures.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from netadapt.networks import network_graph
from profiler.layers.graph import unique_layers
from profiler.layers.layer import LayerSpec
from profiler.measure.loop import MeasurementRun
from profiler.measure.opening import open_session
from profiler.progress import Silent, bar
from profiler.protocol.journal import Journal
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.plan import make_plan


def main(
    device: Annotated[list[str], typer.Option(help="Devices, by name or address.")],
    layers: Annotated[int, typer.Option()] = 200,
    chunks: Annotated[int, typer.Option()] = 4,
    runtime: Annotated[str, typer.Option()] = "litert",
    runner: Annotated[str | None, typer.Option()] = None,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    plan = make_plan(network_graph("mobilenet_v1", width_multiplier=0.5, resolution=128))
    possible = list(unique_layers(layer for widths in plan.fit for layer in plan.graph.at_widths(widths).layers))
    drawn = random.Random(seed).sample(possible, layers)
    spent: dict[str, dict[str, float]] = {name: {"wall_s": 0.0, "samples_s": 0.0} for name in device}
    found: dict[str, dict[str, float]] = {name: {} for name in device}
    with bar() as progress:
        progress.begin("measuring", chunks * len(device))
        for number in range(chunks):
            for name in device[number % len(device) :] + device[: number % len(device)]:
                started = time.monotonic()
                run, latencies_ms = measured(drawn[number::chunks], Target(name, runtime, runner=runner))
                spent[name]["wall_s"] += time.monotonic() - started
                spent[name]["samples_s"] += run.state.measuring_ns / 1e9
                found[name] |= latencies_ms
                progress.advance(name)
    for name, times in spent.items():
        outside = 100 * (1 - times["samples_s"] / times["wall_s"])
        ratio = statistics.median(found[name][key] / found[device[0]][key] for key in found[name] if key in found[device[0]])
        print(
            f"{name}: {3600 * len(found[name]) / times['wall_s']:.0f} layers an hour ({times['wall_s']:.0f} s), "
            f"{outside:.0f} % of it not in samples; latencies {ratio:.3f} of {device[0]}'s (median)"
        )


def measured(layers: list[LayerSpec], target: Target) -> tuple[MeasurementRun, dict[str, float]]:
    """The run, and each layer's latency in ms by key."""
    settings = TimingSettings()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_session(target, settings) as session,
        Journal(Path(folder, "journal.jsonl"), target, settings, resume=False) as journal,
    ):
        run = MeasurementRun(session, Silent(), journal)
        keys = run.add_layers(layers)
        run.measure(dict.fromkeys(keys, settings.rounds), "measuring")
        run.settle(dict.fromkeys(keys, settings.max_rounds))
        return run, {key: value.latency_ms.value for key, value in run.state.estimates(keys).items()}


if __name__ == "__main__":
    typer.run(main)
