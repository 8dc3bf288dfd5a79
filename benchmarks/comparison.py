"""What the latency-guided loop is worth: accuracy at equal measured latency, over several seeds, each from its own original.

    python benchmarks/comparison.py --data cifar10:PATH --table table.parquet --out compared --seeds 3

For each seed the commands a user would type: `netadapt run` down to the lowest budget, then `netadapt baselines` for the first step
within each budget. Everything is kept in --out and gone on with by the same command; what is done is not done again, but measured
again, so that a quiet machine has the last word. At the end: accuracy, measured latency and MACs of each kind, mean and standard
deviation over the seeds, also as an image, OUT/comparison.png, and how well every step kept to what was asked of it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from netadapt.baselines import title_of
from netadapt.reporting.charts import Point, accuracy_chart
from netadapt.runs.multi_seed import Spread
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import Step
from netadapt.training.tasks import open_task
from profiler.console import print_table
from profiler.interval import Interval

OURS = {"original": "original", "latency": "guided by latency"}
NETADAPT = (sys.executable, "-c", "from netadapt.cli.app import app; app()")


@dataclass(frozen=True, slots=True)
class Compared:
    """A network of one seed within one budget."""

    fraction: float
    kind: str
    accuracy: float
    measured_ms: float
    of_original: float
    """Measured latency over the original's."""
    macs: int


def main(
    data: Annotated[str, typer.Option()],
    table: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    seeds: Annotated[int, typer.Option()] = 3,
    budget: Annotated[list[float] | None, typer.Option(help="Fractions of the original's latency; repeatable.")] = None,
    network: Annotated[str, typer.Option()] = "mobilenet_v1",
    width_multiplier: Annotated[float, typer.Option()] = 0.5,
    resolution: Annotated[int, typer.Option()] = 32,
    small_input: Annotated[bool, typer.Option("--small-input")] = False,
    long_term_epochs: Annotated[float, typer.Option()] = 2,
    kind: Annotated[list[str] | None, typer.Option()] = None,
    option: Annotated[list[str] | None, typer.Option(help="Another option of `netadapt run`: --option=--epochs=4.")] = None,
) -> None:
    budgets, found = sorted(budget or [0.6, 0.4], reverse=True), list[Compared]()
    for seed in range(1, seeds + 1):
        run = out / f"seed{seed}"
        netadapt(
            "run", network, f"--width-multiplier={width_multiplier}", f"--resolution={resolution}",
            *(["--small-input"] if small_input else []), f"--data={data}", f"--table={table}", f"--seed={seed}",
            f"--budget=latency={100 * budgets[-1]:g}%", "--resume", f"--out={run}", *(option or []),
        )  # fmt: skip
        for fraction in budgets:
            number = first_within(run, fraction)
            kinds = [f"--kind={name}" for name in kind or []]
            chosen = (f"--step={number}", f"--seed={seed}", f"--epochs={long_term_epochs}", *kinds, "--json")
            found += compared(run, fraction, number, json.loads(netadapt("baselines", run, *chosen)))
            print(f"seed {seed}, {fraction:.0%}: step {number} and its baselines are done", flush=True)
    for fraction in budgets:
        print_kinds(fraction, [item for item in found if item.fraction == fraction], task_text(out / "seed1"))
    print_kept(out / f"seed{seed}" for seed in range(1, seeds + 1))
    (out / "comparison.png").write_bytes(image(found, task_text(out / "seed1")))


def netadapt(*arguments: str | Path) -> str:
    """What the command said on standard output; its progress goes on being seen."""
    return subprocess.run([*NETADAPT, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


def first_within(run: Path, fraction: float) -> int:
    """The first step that was measured within this fraction of the original's latency."""
    with RunFolder.open(run) as folder:
        steps = folder.steps
    allowed_ms = fraction * latency_ms(steps[0])
    return next((step.iteration for step in steps if latency_ms(step) <= allowed_ms), steps[-1].iteration)


def latency_ms(step: Step) -> float:
    return step.checks["latency"].measured.value


def compared(run: Path, fraction: float, number: int, baselines: Iterable[dict[str, Any]]) -> Iterator[Compared]:
    with RunFolder.open(run) as folder:
        original_ms = folder.verified[0].measured_ms.value
        for kind, step in (("original", 0), ("latency", number)):
            measured_ms, graph = folder.verified[step].measured_ms.value, folder.graph.at_widths(folder.steps[step].widths)
            accuracy = folder.finished[step].test_accuracy
            yield Compared(fraction, kind, accuracy, measured_ms, measured_ms / original_ms, graph.macs)
        for item in baselines:
            measured_ms = item["measured_ms"]
            yield Compared(fraction, item["kind"], item["test_accuracy"], measured_ms, measured_ms / original_ms, item["macs"])


def task_text(run: Path) -> str:
    with RunFolder.open(run) as folder:
        return folder.info.settings.training.task


def image(found: list[Compared], task: str) -> bytes:
    """Each kind within each budget: mean accuracy with the standard deviation over seeds, mean latency from least to most."""
    same: dict[tuple[float, str], list[Compared]] = defaultdict(list)
    for item in found:
        same[1.0 if item.kind == "original" else item.fraction, item.kind].append(item)
    ours: list[Point] = []
    others: list[Point] = []
    for (_, kind), items in same.items():
        accuracy, ms = Spread.of([item.accuracy for item in items]), sorted(item.measured_ms for item in items)
        point = Point(Interval(statistics.mean(ms), ms[0], ms[-1]), accuracy, title(kind))
        (ours if kind in OURS else others).append(point)
    return accuracy_chart([], ours, others, open_task(task).accuracy)


def title(kind: str) -> str:
    return OURS.get(kind) or title_of(kind)


def print_kinds(fraction: float, items: list[Compared], task: str) -> None:
    by_kind: dict[str, list[Compared]] = defaultdict(list)
    for item in items:
        by_kind[item.kind].append(item)
    print(f"\nwithin {fraction:.0%} of the original's measured latency ({task}, test part, mean ± standard deviation over seeds)")
    metric = open_task(task).accuracy
    rows = [
        (
            title(kind),
            Spread.of([item.accuracy for item in same]).text(metric),
            f"{statistics.mean(item.measured_ms for item in same):.3f}",
            f"{100 * statistics.mean(item.of_original for item in same):.1f} %",
            f"{statistics.mean(item.macs for item in same) / 1e6:.2f} M",
        )
        for kind, same in by_kind.items()
    ]
    print_table(("network", metric.label, "measured ms", "of the original", "MACs"), rows, right=("measured ms", "of the original"))


def print_kept(runs: Iterable[Path]) -> None:
    """Measured latency over what the step was asked to reach, in measured terms: its target times the bias known by then."""
    kept = []
    for run in runs:
        with RunFolder.open(run) as folder:
            steps = folder.steps
        for before, step in pairwise(steps):
            kept.append(latency_ms(step) / (step.targets["latency"] * before.bias.get("latency", 1.0)))
    kept.sort()
    print(
        f"\nbudget kept, {len(kept)} steps: measured over asked for: median {statistics.median(kept):.3f}, "
        f"{kept[0]:.3f} to {kept[-1]:.3f}; {sum(value <= 1.02 for value in kept)} at most 2 % over"
    )


if __name__ == "__main__":
    typer.run(main)
