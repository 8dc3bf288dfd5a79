"""How well do tables predict whole networks? Builds a MobileNetV1 table for each runtime and prints its closure and its cost.

    python benchmarks/closure.py --width-multiplier 0.5 --resolution 128

The machine should be otherwise idle; a build takes one to two minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from netadapt.networks import network_graph
from profiler.build import build
from profiler.plan import make_plan
from profiler.progress import bar
from profiler.settings import Target


def main(
    width_multiplier: Annotated[float, typer.Option()] = 0.5,
    resolution: Annotated[int, typer.Option()] = 128,
    threads: Annotated[int, typer.Option()] = 1,
    runtime: Annotated[list[str], typer.Option()] = ["onnxruntime", "litert"],  # noqa: B006  typer copies it
) -> None:
    plan = make_plan(network_graph("mobilenet_v1", width_multiplier=width_multiplier, resolution=resolution))
    print(f"MobileNetV1 {width_multiplier:g}/{resolution}, {len(plan.layers)} layers, {threads} thread(s)")
    for name in runtime:
        with tempfile.TemporaryDirectory() as folder, bar() as progress:
            table = build([plan], Target(runtime=name, threads=threads), Path(folder, "table.parquet"), progress=progress)
        info, closure = table.info, table.info.closure
        print(f"{name} {info.device['version']}: {closure.sentence()}")
        print(
            f"  bias {closure.bias_percent:+.1f} %, Spearman {closure.spearman:.3f}, "
            f"{closure.coverage_percent:.0f} % inside their 95 % interval"
        )
        print(f"  build {info.wall_s:.0f} s, samples {info.measuring_s:.0f} s, ratio {info.wall_s / info.measuring_s:.2f}")
        print(f"  speed changed by up to {info.reference_drift_percent:.0f} % during the build; {info.calibration}")


if __name__ == "__main__":
    typer.run(main)
