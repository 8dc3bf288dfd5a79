"""Does `profile benchmark` agree with independent tools? LiteRT's own litert-benchmark, and a plain loop around ONNX Runtime.

    python benchmarks/agreement.py FOLDER_OR_FILES... --passes 4 --seconds 1

Every pass measures every file with every tool in shuffled order, each measurement in a process of its own, with the same warm-up
and for about the same time, so that a shared machine's changes of speed hit all alike. The same number is taken from all: the
median of the times of single inferences, and of that the lower quartile of the passes. The inputs are random numbers for all,
though not the same ones. Beside it stands what a single `profile benchmark FILE` with its defaults says of each file, one call a
file, made between the other measurements of one of the passes.

What each time includes beyond the inference:
  ours, LiteRT        Interpreter.invoke; inputs set beforehand, outputs never fetched
  litert-benchmark    CompiledModel.run_by_name; inputs written beforehand, outputs never read
  ours, ONNX Runtime  run_with_iobinding; inputs and outputs bound beforehand, nothing is copied or allocated
  plain loop          InferenceSession.run; takes numpy inputs, allocates and fills new numpy outputs
Two networks of one ReLU, of 8 numbers and of 224 x 224 x 3, show what that comes to; they are not in the medians.

Where fewer than five files of a runtime are given, more are added: the model zoo's architectures that come with the onnx package
(their weights are constants), and MobileNetV1 with random weights, written as .tflite. It takes some four
minutes; the machine should be otherwise idle.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from litert_tool import litert_benchmark_median_ms

from netadapt.networks import network_graph
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.benchmark import measure_files
from profiler.measure.estimate import QUARTILE
from profiler.progress import ProgressReporter, bar
from profiler.protocol.settings import Target, TimingSettings

TOOLS = {"litert": "litert-benchmark", "onnxruntime": "plain loop"}
ENOUGH_FILES = 5
ZOO = ("shufflenet", "squeezenet", "inception_v2", "densenet121", "resnet50")
WRITTEN = ((0.25, 128), (0.5, 160), (0.75, 192), (1.0, 224))
"""Width multipliers and resolutions of MobileNetV1."""
PROBES = ((1, 1, 1, 8), (1, 224, 224, 3))
WARMUP_MS = 50.0
MIN_RUNS = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file, what runs it, and how many inferences fill a measurement."""

    path: Path
    target: Target
    runs: int
    warmup_runs: int
    probe: bool

    def ours_ms(self, seconds: float) -> float:
        settings = TimingSettings(
            network_rounds=1,
            quiet_rounds=0,
            settle_percent=1e9,
            min_round_s=0.0,
            measurement_ms=1000 * seconds,
            warmup_ms=WARMUP_MS,
            sample_ms=0.0,
            min_samples=MIN_RUNS,
        )
        return measure_files([self.path], self.target, settings=settings)[self.path].estimate.latency_ms.value

    def theirs_ms(self) -> float:
        if self.target.runtime == "litert":
            return litert_benchmark_median_ms(self.path, runs=self.runs, warmup_runs=self.warmup_runs, threads=self.target.threads)
        numbers = (self.warmup_runs, self.runs, self.target.threads)
        command = [sys.executable, str(Path(__file__).with_name("onnx_loop.py")), str(self.path), *map(str, numbers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return statistics.median(json.loads(done.stdout)) / 1e6


def main(
    models: Annotated[list[Path], typer.Argument(help="Model files, or folders of them.")],
    passes: Annotated[int, typer.Option()] = 4,
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 1.0,
    threads: Annotated[int, typer.Option()] = 1,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    with tempfile.TemporaryDirectory() as folder, bar() as progress:
        candidates = [
            item
            for runtime in TOOLS
            for item in _candidates(models, Target(runtime=runtime, threads=threads), Path(folder), seconds)
        ]
        ours, theirs, defaults = _measure(candidates, passes, seconds, random.Random(seed), progress)
    print(f"{passes} passes of {seconds:g} s, {threads} thread(s); ms of one inference: median, lower quartile of the passes")
    for runtime, tool in TOOLS.items():
        print(f"\n{runtime:56}     ours   theirs  ratio  spread of passes, %  defaults  ratio")
        differences: list[tuple[float, float]] = []
        for item in (item for item in candidates if item.target.runtime == runtime):
            mine, other, default = _quiet_ms(ours[item.path]), _quiet_ms(theirs[item.path]), defaults[item.path]
            spreads = f"{_spread_percent(ours[item.path]):9.1f} {_spread_percent(theirs[item.path]):9.1f}"
            same_statistic = f"{mine:8.4f} {other:8.4f} {mine / other:6.3f}"
            print(f"{item.path.name:56} {same_statistic}  {spreads}  {default:8.4f} {default / other:6.3f}")
            if not item.probe:
                differences.append((100 * abs(mine / other - 1), 100 * abs(default / other - 1)))
        same, usual = zip(*differences, strict=True)
        print(
            f"ours against {tool}, {len(differences)} files: median absolute difference {statistics.median(same):.1f} %, "
            f"largest {max(same):.1f} %; with our defaults {statistics.median(usual):.1f} %, largest {max(usual):.1f} %"
        )


def _measure(
    candidates: Sequence[Candidate], passes: int, seconds: float, draws: random.Random, progress: ProgressReporter
) -> tuple[Mapping[Path, list[float]], Mapping[Path, list[float]], Mapping[Path, float]]:
    """Milliseconds by file: ours in each pass, theirs in each pass, and ours with the default settings."""
    ours: dict[Path, list[float]] = {item.path: [] for item in candidates}
    theirs: dict[Path, list[float]] = {item.path: [] for item in candidates}
    defaults: dict[Path, float] = {}
    progress.begin("comparing", (passes * 2 + 1) * len(candidates))
    for number in range(passes):
        measurements = [(item, tool) for item in candidates for tool in ("ours", "theirs")]
        measurements += [(item, "defaults") for item in candidates[number::passes]]
        draws.shuffle(measurements)
        for item, tool in measurements:
            if tool == "ours":
                ours[item.path].append(item.ours_ms(seconds))
            elif tool == "theirs":
                theirs[item.path].append(item.theirs_ms())
            else:
                defaults[item.path] = measure_files([item.path], item.target)[item.path].estimate.latency_ms.value
            progress.advance(item.path.name)
    return ours, theirs, defaults


def _candidates(models: Sequence[Path], target: Target, folder: Path, seconds: float) -> list[Candidate]:
    """The given files of this runtime, more if they are few, and the probes. A short first run says how many fill one."""
    suffix = f".{target.model_format}"
    files = sorted(file for path in models for file in (path.iterdir() if path.is_dir() else [path]) if file.suffix == suffix)
    more = _zoo() if target.model_format == "onnx" else _written(folder, max(0, ENOUGH_FILES - len(files)))
    files += more[: max(0, ENOUGH_FILES - len(files))]
    probes = [
        _write(Graph.of_layer(LayerSpec("relu", (shape,), shape)), f"relu_{shape[1]}x{shape[2]}x{shape[3]}{suffix}", folder)
        for shape in PROBES
    ]
    settings = TimingSettings(network_rounds=1, quiet_rounds=0, settle_percent=1e9, min_round_s=0.0)
    first = measure_files([*files, *probes], target, settings=settings)
    return [
        Candidate(
            path,
            target,
            runs=max(MIN_RUNS, round(1000 * seconds / value.estimate.latency_ms.value)),
            warmup_runs=max(2, round(WARMUP_MS / value.estimate.latency_ms.value)),
            probe=path in probes,
        )
        for path, value in first.items()
    ]


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


def _spread_percent(values: Sequence[float]) -> float:
    return 100 * (max(values) / min(values) - 1)


if __name__ == "__main__":
    typer.run(main)
