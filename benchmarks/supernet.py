"""What a search in a super-network costs and finds, beside the search that fine-tunes its candidates, at the same budget.

    python benchmarks/supernet.py --data cifar10.npz --out searched

For each seed the commands a user would type, all with the same data, holdout and seed:

  single, fine-tuned    `netadapt run`: its original network is trained, and each candidate fine-tuned for a short term
  descent, supernet     `netadapt supernet`, then `netadapt run --search descent`
  single, supernet      the same super-network with `--search single`: the worth of several blocks a step
  descent, plain        `--search descent` in the original network, trained without ordered dropout: the worth of the latter

The last step of each is fine-tuned for a long term, and judged on the test images. At the end `netadapt supernet-check` compares
the super-network's order with that of trainings. Beside the seconds of the clock stand those of processors (user and system, of all
processes), which say more where other programs share the machine. The budget is in MACs, unless there is a --table. Everything is
kept in --out, and the same command goes on, with whole commands: one that was interrupted is begun anew, as its time would not be
known. The defaults take some ten minutes on two cores and are too small to judge the method: --epochs 30, --samples 100,
--shapes 30 and --seeds 3 are for that.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from netadapt.runs.multi_seed import Spread
from netadapt.runs.run_folder import RunFolder
from netadapt.supernet.folder import SuperNetworkFolder
from netadapt.supernet.ranking import RankCorrelation
from netadapt.training.tasks import open_task
from profiler.console import print_table

NETADAPT = (sys.executable, "-c", "from netadapt.cli.app import app; app()")


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long something took: on the clock, and of all processors together (user and system)."""

    wall: float
    processor: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.processor + other.processor)

    def share(self, of_one: float) -> Seconds:
        """This part of it."""
        return Seconds(self.wall * of_one, self.processor * of_one)


@dataclass(frozen=True, slots=True)
class Timed:
    """When a command began, in seconds since 1970, and how long it took."""

    began: float
    seconds: float
    processor_s: float

    @property
    def took(self) -> Seconds:
        return Seconds(self.seconds, self.processor_s)


@dataclass(frozen=True, slots=True)
class Searched:
    """The last step of one search with one seed."""

    training: Seconds
    """Of the original network, or of the super-network."""
    search: Seconds
    candidate: Seconds
    """The search's time for each candidate, with pruning, scoring and whatever fine-tune there is."""
    steps: int
    holdout: float
    test: float
    macs_share: float
    """Of the original's."""


def main(
    data: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    table: Annotated[Path | None, typer.Option(help="A latency table; without one the budget is in MACs.")] = None,
    budget: Annotated[str, typer.Option(help="Of MACs or latency.")] = "60%",
    seeds: Annotated[int, typer.Option()] = 1,
    network: Annotated[str, typer.Option()] = "mobilenet_v1",
    width_multiplier: Annotated[float, typer.Option()] = 0.25,
    resolution: Annotated[int, typer.Option()] = 32,
    small_input: Annotated[bool, typer.Option()] = True,
    epochs: Annotated[float, typer.Option(help="Of the original and of the super-network.")] = 1,
    long_term_epochs: Annotated[float, typer.Option()] = 1,
    samples: Annotated[int, typer.Option()] = 20,
    step: Annotated[float, typer.Option()] = 0.1,
    shapes: Annotated[int, typer.Option()] = 3,
    shape_epochs: Annotated[float, typer.Option()] = 0.5,
    holdout: Annotated[float, typer.Option(help="1,000 of CIFAR-10's images by default.")] = 0.02,
    option: Annotated[list[str] | None, typer.Option(help="Another option of all runs: --option=--width-step=4.")] = None,
) -> None:
    found: dict[str, list[Searched]] = defaultdict(list)
    orders: list[RankCorrelation] = []
    judged_s: list[float] = []
    for seed in range(1, seeds + 1):
        folder = out / f"seed{seed}"
        common = [network, f"--width-multiplier={width_multiplier}", f"--resolution={resolution}", f"--data={data}"]
        common += [f"--holdout={holdout}", f"--seed={seed}", *(["--small-input"] if small_input else [])]
        budget_of = [f"--table={table}", f"--budget=latency={budget}"] if table else [f"--budget=macs={budget}"]
        run = ["run", *common, *budget_of, f"--step={step}", *(option or [])]
        supernet, plain, single = folder / "S", folder / "plain", folder / "single, fine-tuned"
        training = timed(supernet, "supernet", *common, f"--epochs={epochs}")
        search = timed(single, *run, f"--epochs={epochs}")
        # one command trains the original and searches: its processor seconds are shared out in proportion to the clock's
        original_share = ((single / "weights" / "000-original.pt").stat().st_mtime - search.began) / search.seconds
        original = search.took.share(original_share)
        found[single.name].append(searched(single, original, search.took.share(1 - original_share), long_term_epochs))
        if not plain.exists():
            shutil.copytree(supernet, plain)
            shutil.copyfile(single / "weights" / "000-original.pt", plain / "weights.pt")
        descent = ["--search=descent", f"--samples={samples}"]
        for name, options, trained in (
            ("descent, supernet", [*descent, f"--supernet={supernet}"], training.took),
            ("single, supernet", ["--candidates=supernet", f"--supernet={supernet}"], training.took),
            ("descent, plain", [*descent, f"--supernet={plain}"], original),
        ):
            took = timed(folder / name, *run, *options).took
            found[name].append(searched(folder / name, trained, took, long_term_epochs))
        netadapt("supernet-check", supernet, f"--shapes={shapes}", f"--epochs={shape_epochs}")
        with SuperNetworkFolder.open(supernet) as opened:
            judged_s += [shape.seconds for shape in opened.shapes]
            orders += [order for order in (RankCorrelation.of(opened.shapes),) if order]
    print_searches(found, f"within {budget} of the original's {'latency' if table else 'MACs'}")
    print(f"\na candidate's score in the super-network: {statistics.median(judged_s):.2f} s (median)")
    for order in orders:
        print(order.sentence)


def netadapt(*arguments: str | Path) -> str:
    """What the command said on standard output; its progress goes on being seen."""
    return subprocess.run([*NETADAPT, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


def timed(target: Path, *arguments: str) -> Timed:
    """The command with this --out, and its time; one that has ended before is not run again."""
    record = target.with_name(f"{target.name}.json")
    if not record.exists():
        shutil.rmtree(target, ignore_errors=True)
        began, before_s = time.time(), children_s()
        netadapt(*arguments, f"--out={target}")
        record.write_text(json.dumps(asdict(Timed(began, time.time() - began, children_s() - before_s))))
    return Timed(**json.loads(record.read_text()))


def children_s() -> float:
    """The processor seconds, user and system, of all commands that have ended, and of the processes that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def searched(run: Path, training: Seconds, search: Seconds, epochs: float) -> Searched:
    """What the search in this run folder found, after a long-term fine-tune of its last step."""
    with RunFolder.open(run) as folder:
        steps, graph = folder.steps, folder.graph
    last = steps[-1]
    netadapt("finetune", run, f"--step={last.iteration}", f"--epochs={epochs}")
    with RunFolder.open(run) as folder:
        test = folder.finished[last.iteration].test_accuracy
    judged = sum(len(step.results) for step in steps[1:])
    share = graph.at_widths(last.widths).macs / graph.macs
    return Searched(training, search, search.share(1 / judged), len(steps) - 1, last.accuracy, test, share)


def print_searches(found: dict[str, list[Searched]], title: str) -> None:
    print(f"\n{title} (mean ± standard deviation over seeds; seconds by the clock / of processors)")
    metric = open_task("classification").accuracy
    rows = []
    for name, items in found.items():
        rows.append(
            (
                name,
                mean_text([item.training for item in items], 0),
                mean_text([item.search for item in items], 0),
                mean_text([item.training + item.search for item in items], 0),
                mean_text([item.candidate for item in items], 2),
                f"{statistics.mean(item.steps for item in items):.1f}",
                Spread.of([item.holdout for item in items]).text(metric),
                Spread.of([item.test for item in items]).text(metric),
                f"{100 * statistics.mean(item.macs_share for item in items):.1f} %",
            )
        )
    columns = ("search", "training s", "search s", "total s", "s a candidate", "steps", "holdout", "test, fine-tuned", "MACs")
    print_table(columns, rows, right=columns[1:])


def mean_text(times: list[Seconds], digits: int) -> str:
    """The mean by the clock and that of processors."""
    wall, processor = (statistics.mean(values) for values in zip(*((each.wall, each.processor) for each in times), strict=True))
    return f"{wall:.{digits}f} / {processor:.{digits}f}"


if __name__ == "__main__":
    typer.run(main)
