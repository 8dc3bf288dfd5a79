"""Does a single `profile benchmark` agree with a plain loop of the runtime?

    python benchmarks/agreement.py FOLDER_OR_FILES... --repeats 1

For each file `profile benchmark FILE` runs once with its defaults, and during the same seconds a plain loop of the runtime
(plain_loop.py) in another process: 30 ms of inferences in most seconds, as ours. A shared machine changes its speed by a third for
seconds at a time, so that two measurements that follow each other disagree by more than the two ways of measuring do. The two take
5 to 10 % of the time each, so they seldom meet. The same is taken of both: the lower quartile of the medians of the slices.
Two networks of one ReLU, of 8 numbers and of 224 x 224 x 3, show what the loop of ONNX Runtime spends on making new arrays; they
are not in the medians.

Where fewer than five files of a runtime are given, more are added: the model zoo's architectures that come with the onnx package
(their weights are constants), and MobileNetV1 with random weights, written as .tflite. It takes some five minutes; the machine
should be otherwise idle.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer

from netadapt.networks import network_graph
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.benchmark import measure_files
from profiler.measure.estimate import QUARTILE
from profiler.progress import ProgressReporter, bar
from profiler.protocol.settings import Target, TimingSettings

RUNTIMES = ("litert", "onnxruntime")
ENOUGH_FILES = 5
ZOO = ("shufflenet", "squeezenet", "inception_v2", "densenet121", "resnet50")
WRITTEN = ((0.25, 128), (0.5, 160), (0.75, 192), (1.0, 224))
"""Width multipliers and resolutions of MobileNetV1."""
PROBES = ((1, 1, 1, 8), (1, 224, 224, 3))
EVERY_MS = 450
"""How often the plain loop measures: not in step with our rounds."""


def main(
    models: Annotated[list[Path], typer.Argument(help="Model files, or folders of them.")],
    repeats: Annotated[int, typer.Option(help="How many times each file is measured.")] = 1,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    with tempfile.TemporaryDirectory() as folder, bar() as progress:
        found = {
            runtime: _compared(models, Target(runtime=runtime, threads=threads), Path(folder), repeats, progress)
            for runtime in RUNTIMES
        }
    print(f"{threads} thread(s); ms of one inference: medians of slices, their lower quartile")
    for runtime, rows in found.items():
        print(f"\n{runtime:56}     ours  plain loop  ours / plain  slices of the plain loop: number, 10th to 90th percentile")
        for path, ours_ms, slices_ms in rows:
            theirs_ms = _quiet_ms(slices_ms)
            low, high = np.percentile(slices_ms, (10, 90))
            print(
                f"{path.name:56} {ours_ms:8.4f}    {theirs_ms:8.4f}         {ours_ms / theirs_ms:5.3f}"
                f"  {len(slices_ms):4}  {low:.4f} to {high:.4f}"
            )
        differences = [
            100 * abs(ours_ms / _quiet_ms(slices_ms) - 1) for path, ours_ms, slices_ms in rows if not path.name.startswith("relu_")
        ]
        print(
            f"{len(differences)} measurements: median absolute difference {statistics.median(differences):.1f} %, "
            f"largest {max(differences):.1f} %"
        )


def _compared(
    models: Sequence[Path], target: Target, folder: Path, repeats: int, progress: ProgressReporter
) -> list[tuple[Path, float, list[float]]]:
    """For each file and repeat: our latency in ms, and those of the plain loop's slices meanwhile."""
    suffix = f".{target.model_format}"
    files = sorted(file for path in models for file in (path.iterdir() if path.is_dir() else [path]) if file.suffix == suffix)
    more = _zoo() if target.model_format == "onnx" else _written(folder, max(0, ENOUGH_FILES - len(files)))
    files += more[: max(0, ENOUGH_FILES - len(files))]
    files += [
        _write(Graph.of_layer(LayerSpec("relu", (shape,), shape)), f"relu_{shape[1]}x{shape[2]}x{shape[3]}{suffix}", folder)
        for shape in PROBES
    ]
    slice_ms = round(TimingSettings().measurement_ms)
    rows = []
    progress.begin(f"comparing on {target.runtime}", repeats * len(files))
    for path in files * repeats:
        command = [sys.executable, str(Path(__file__).with_name("plain_loop.py")), str(path)]
        command += map(str, (target.threads, slice_ms, EVERY_MS))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as loop:
            assert loop.stdout is not None
            loop.stdout.readline()  # it is open, and warm
            ours_ms = measure_files([path], target)[path].estimate.latency_ms.value
            loop.terminate()
            slices_ms = [float(line) / 1e6 for line in loop.stdout if line.endswith("\n")]
        rows.append((path, ours_ms, slices_ms))
        progress.advance(path.name)
    return rows


def _zoo() -> list[Path]:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return [path for name in ZOO if (path := folder / f"light_{name}.onnx").exists()]


def _written(folder: Path, count: int) -> list[Path]:
    return [
        _write(
            network_graph("mobilenet_v1", width_multiplier=multiplier, resolution=resolution),
            f"written_mobilenet_v1_{multiplier:g}_{resolution}_float.tflite",
            folder,
        )
        for multiplier, resolution in WRITTEN[:count]
    ]


def _write(graph: Graph, name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(FORMATS[path.suffix.lstrip(".")].write(graph))
    return path


def _quiet_ms(values: Sequence[float]) -> float:
    return float(np.quantile(values, QUARTILE))


if __name__ == "__main__":
    typer.run(main)
