"""A run made up from end to end through the public interface, for tests and for looking at the report. No number in it is real."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from graphs import mobilenet_v1

from netadapt.networks.options import NetworkOptions
from netadapt.resources import Goal, Latency, parse_budget
from netadapt.runs.records import (
    Baseline,
    Finished,
    LayerLatency,
    NetworkSize,
    RunInfo,
    TableFacts,
    TargetName,
    Trained,
    Verified,
)
from netadapt.runs.run_folder import RunFolder, weights_name
from netadapt.search.bias import Checked
from netadapt.search.candidates import Candidate
from netadapt.search.loop import adapt
from netadapt.search.types import AdaptSettings, Check, Evaluate, Result, Step
from netadapt.settings import DataSettings, RunSettings, TrainingSettings
from netadapt.training.recipe import TrainSettings
from netadapt.training.tasks import open_task
from profiler.interval import Interval
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec

GRAPH = mobilenet_v1(0.5, 128, classes=10)
BUDGET = "latency=60%"
SETTINGS = AdaptSettings()


@dataclass(frozen=True)
class Milliseconds:
    latency_ms: Interval


class MadeUpTable:
    """Charges for multiply-accumulates and bytes what no device does, in steps of 16 channels."""

    def layer_ms(self, layer: LayerSpec) -> float:
        tiles = -(-layer.out_channels // 16) * 16 / layer.out_channels
        return (layer.macs or 0) * tiles * 1e-7 + layer.activation_bytes * 2e-8 + 0.01

    def predict(self, graph: Graph) -> Milliseconds:
        return Milliseconds(Interval.unknown(sum(self.layer_ms(layer) for layer in graph.layers)))

    def pricer(self, graph: Graph) -> OneByOne:
        return OneByOne(self, graph)


@dataclass(frozen=True)
class OneByOne:
    table: MadeUpTable
    graph: Graph

    def prices(self, block: str, widths: Sequence[int]) -> list[float]:
        return [self.table.predict(self.graph.at_widths({block: width})).latency_ms.value for width in widths]


HERE = TargetName("local", "onnxruntime")
LONG_TERM = TrainSettings(0.05, epochs=10)
TABLE = MadeUpTable()
GOALS = (Goal(Latency(TABLE), parse_budget(BUDGET)),)
FACTS = TableFacts(
    path="tables/made-up.parquet", sha256="0" * 64, device="local", runtime="onnxruntime", runtime_version="1.31.0", threads=1,
    cpu="Made-up CPU at 1 GHz", created_utc="2025-01-01T09:00:00+00:00", verified=True,
    held_out="10 held-out networks: mean error 0.9 %, worst 2.3 % (plain sum of layers: mean 26.0 %)",
    mean_error_percent=0.9, worst_error_percent=2.3,
)  # fmt: skip
INFO = RunInfo(
    settings=RunSettings(
        NetworkOptions("mobilenet_v1", 0.5, 128, 10), DataSettings("digits"),
        TrainingSettings("classification", open_task("classification").recipe), SETTINGS,
    ),
    budgets=(BUDGET,), created_utc="2025-01-03T10:00:00+00:00", tables={"": FACTS},
    versions={"netadapt-profiler": "0.1.0"},
)  # fmt: skip


def made_up_training(run: RunFolder, seed: int = 1) -> Evaluate:
    """Stands for training: a file of weights for each candidate and an accuracy that falls with its price."""
    rng = random.Random(seed)
    initial = TABLE.predict(GRAPH).latency_ms.value

    def evaluate(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        for candidate in candidates:
            name = weights_name(candidate.iteration, candidate.block)
            run.weights_path(name).write_bytes(b"weights")
            lost = 0.06 * (1 - candidate.price / initial) ** 1.5 + (rng.random() * 0.004 if candidate.block else 0)
            yield Result(candidate, 0.965 - lost, name)

    return evaluate


def made_up_device(seed: int = 3) -> Check:
    """Stands for a device in the loop: it takes a little longer than predicted, once a lot."""
    rng = random.Random(seed)

    def check(step: Step) -> dict[str, Checked]:
        found = step.price * (1.05 if step.iteration == 5 else rng.uniform(1.0, 1.015))
        return {"latency": Checked(around(found, 0.01), around(step.price, 0.02))}

    return check


def adapted_run(path: Path) -> RunFolder:
    """A run that reached its budget, with nothing finished or measured."""
    shutil.copytree(_made(_adapted), path, dirs_exist_ok=True)
    return RunFolder.open(path, write=True)


def complete_run(path: Path) -> RunFolder:
    """The same with its long-term fine-tunes, measurements and baselines."""
    shutil.copytree(_made(_complete), path, dirs_exist_ok=True)
    return RunFolder.open(path, write=True)


@cache
def _made(make: Callable[[Path], RunFolder]) -> Path:
    """Made once in a process, since a search takes seconds."""
    path = Path(tempfile.mkdtemp(prefix="sample_run_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    make(path).close()
    return path


def _adapted(path: Path, check: Check | None = None) -> RunFolder:
    run = RunFolder.create(path, INFO, GRAPH)
    for step in adapt(GRAPH, GOALS, run.recorded(made_up_training(run)), SETTINGS, check=check):
        run.add_step(step)
    return run


def _complete(path: Path) -> RunFolder:
    run = _adapted(path, made_up_device())
    rng = random.Random(2)
    steps, last = run.steps, run.steps[-1]
    for step, accuracy in ((steps[0], 0.971), (last, 0.9635)):
        name = f"{step.iteration:03d}-finished.pt"
        run.add_finished(Finished(step.iteration, LONG_TERM, ("made up",), _seeds(name, accuracy)))
    run.write_verified(_verified(step, rng) for step in steps)
    thinner = [_thinner(multiplier, accuracy) for multiplier, accuracy in ((0.25, 0.942), (0.375, 0.9545), (0.45, 0.963))]
    run.write_baselines([*thinner, *_baselines(last)])
    before, after = GRAPH, GRAPH.at_widths(last.widths)
    layers = (
        (node.name, TABLE.layer_ms(node.layer), TABLE.layer_ms(new.layer))
        for node, new in zip(before.nodes, after.nodes, strict=True)
    )
    run.write_layers(LayerLatency(*layer) for layer in layers)
    return run


def _verified(step: Step, rng: random.Random) -> Verified:
    measured = step.price * rng.uniform(0.975, 1.02)
    return Verified(step.iteration, HERE, around(measured, 0.01), around(step.price, 0.02))


def _seeds(name: str, accuracy: float) -> tuple[Trained, ...]:
    return tuple(Trained(seed, f"{seed}-{name}", accuracy + off) for seed, off in ((1, 0.0), (2, 0.0021), (3, -0.0015)))


def _thinner(multiplier: float, accuracy: float) -> Baseline:
    """Found for the first step."""
    return _baseline(f"MobileNetV1 {multiplier:g}", "multiplier", 1, mobilenet_v1(multiplier, 128, classes=10), accuracy, 1.01)


def _baselines(step: Step) -> list[Baseline]:
    """Of all kinds, with three seeds each, for a step."""
    thin, prune, same = (
        mobilenet_v1(0.4, 128, classes=10),
        GRAPH.at_widths({"pw6": 128, "pw12": 256, "pw13": 256}),
        GRAPH.at_widths(step.widths),
    )
    made_up = (
        ("multiplier", thin, 0.9571, 1.01), ("uniform", thin, 0.9588, 1.02),
        ("torch-pruning", prune, 0.9595, 0.98), ("macs", prune, 0.9602, 0.99), ("scratch", same, 0.9564, 1.0),
    )  # fmt: skip
    return [
        _baseline(
            f"{kind}-as-step{step.iteration:03d}", kind, step.iteration, graph, accuracy,
            share * step.price / TABLE.predict(graph).latency_ms.value,
        )
        for kind, graph, accuracy, share in made_up
    ]  # fmt: skip


def _baseline(name: str, kind: str, step: int, graph: Graph, accuracy: float, slower: float) -> Baseline:
    ms, size = TABLE.predict(graph).latency_ms.value, NetworkSize(graph.widths, graph.macs, graph.parameters)
    runs = _seeds(f"{name}.pt", accuracy)
    return Baseline(name, kind, step, HERE, size, ("made up",), runs, around(slower * ms, 0.01), around(ms, 0.02))


def around(value: float, share: float) -> Interval:
    """An interval of this share of the value on either side."""
    return Interval(value, value * (1 - share), value * (1 + share))
