"""Does it matter which runner measures? Our native one against ours in Python, the same layers, in one run, interleaved.

    python benchmarks/runners.py --layers 50

Printed for each runtime: the median of native over Python per layer, its 5th and 95th percentile, and for layers of a few
microseconds the difference itself, which is what calling from Python costs.
"""

from __future__ import annotations

import random
import statistics
from typing import Annotated

import typer
from transports import measured

from netadapt.networks import network_graph
from profiler.layers.graph import unique_layers
from profiler.layers.layer import LayerSpec, conv2d
from profiler.progress import bar
from profiler.protocol.settings import Target
from profiler.tables.plan import make_plan

TINY = [conv2d((1, 2, 2, 4), channels, 1) for channels in (1, 2, 3, 4)]


def main(
    layers: Annotated[int, typer.Option()] = 50,
    chunks: Annotated[int, typer.Option(help="Parts the layers are measured in; the order alternates.")] = 4,
    device: Annotated[str, typer.Option()] = "local",
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    plan = make_plan(network_graph("mobilenet_v1", width_multiplier=0.5, resolution=128))
    possible = list(unique_layers(layer for widths in plan.fit for layer in plan.graph.at_widths(widths).layers))
    drawn: list[LayerSpec] = [*random.Random(seed).sample(possible, layers), *TINY]
    for runtime in ("onnxruntime", "litert"):
        found: dict[str, dict[str, float]] = {"native": {}, "python": {}}
        with bar() as progress:
            progress.begin(runtime, 2 * chunks)
            for number in range(chunks):
                for runner in sorted(found, reverse=number % 2 == 0):
                    part = [*drawn[:layers][number::chunks], *TINY]
                    found[runner] |= measured(part, Target(device, runtime, runner=runner))[1]
                    progress.advance(runner)
        tiny = {layer.key for layer in TINY}
        ratios = sorted(found["native"][key] / value for key, value in found["python"].items() if key not in tiny)
        low, *_, high = statistics.quantiles(ratios, n=20)
        call_us = statistics.median(1000 * (found["python"][key] - found["native"][key]) for key in tiny)
        print(
            f"{runtime}: native over Python {statistics.median(ratios):.3f} (5 % to 95 %: {low:.3f} to {high:.3f}) over {layers}; "
            f"a call from Python costs {call_us:.2f} µs more"
        )


if __name__ == "__main__":
    typer.run(main)
