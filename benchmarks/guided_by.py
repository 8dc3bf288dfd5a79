"""A network adapted to the same share of multiply-accumulates, of each accelerator's energy, and of each device's latency.

    python benchmarks/guided_by.py --data clutter:4000 --out guided --table eyeriss=model:eyeriss --table pim=model:pim_reram
    python benchmarks/guided_by.py --data cifar10:PATH --out guided --table eyeriss=model:eyeriss --table here=here.parquet

One search for each guide, by the commands a user would type: `netadapt run` with all tables and one budget. Each result is then
priced by all tables, as shares of the original: what suits one need not suit another. A table is a .parquet file, or model:NAME,
which is computed here. Everything is kept in --out, and the same command goes on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from netadapt.runs.prices import prices_by_table
from netadapt.runs.run_folder import RunFolder
from profiler.console import print_table
from profiler.tables.table import load_table


def main(
    data: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    table: Annotated[list[str], typer.Option(help="NAME=PATH or NAME=model:HARDWARE; repeatable.")],
    budget: Annotated[str, typer.Option(help="Of the quantity that guides.")] = "60%",
    network: Annotated[str, typer.Option()] = "mobilenet_v1",
    width_multiplier: Annotated[float, typer.Option()] = 0.25,
    resolution: Annotated[int, typer.Option()] = 32,
    small_input: Annotated[bool, typer.Option()] = False,
    epochs: Annotated[float, typer.Option(help="Of the original, which each search trains alike.")] = 8,
    short_term_steps: Annotated[int, typer.Option()] = 10,
    step: Annotated[float, typer.Option()] = 0.1,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    described = [network, f"--width-multiplier={width_multiplier}", f"--resolution={resolution}"]
    described += ["--small-input"] if small_input else []
    plan, tables = out / "plan.json", dict(item.split("=", 1) for item in table)
    if not plan.exists():
        command("netadapt", "plan", *described, "--classes=10", "--no-dry-run", f"--out={plan}")
    for name, source in tables.items():
        if source.startswith("model:"):
            tables[name] = str(out / f"{name}.parquet")
            if not Path(tables[name]).exists():
                command("profile", "build", plan, f"--device={source}", f"--out={tables[name]}")
    quantities = {name: "energy" if load_table(Path(path)).info.modelled else "latency" for name, path in tables.items()}
    guides = {"macs": "macs", **{f"{name} {quantity}": f"{name}.{quantity}" for name, quantity in quantities.items()}}
    rows = []
    for guide, resource in guides.items():
        folder = out / guide.replace(" ", "-")
        ends = ["--resume"] if folder.exists() else []
        command(
            "netadapt", "run", *described, f"--data={data}", *(f"--table={name}={path}" for name, path in tables.items()),
            "--allow-unverified", "--no-measure", f"--budget={resource}={budget}", f"--epochs={epochs}", f"--step={step}",
            f"--short-term-steps={short_term_steps}", f"--seed={seed}", f"--out={folder}", *ends,
        )  # fmt: skip
        rows.append((guide, *shares(folder, quantities)))
    print(f"within {budget} of the quantity in the first column; shares of the original's")
    print_table(("guided by", "MACs", *list(guides)[1:], "holdout"), rows, right=("MACs", *list(guides)[1:], "holdout"))


def command(program: str, *arguments: object) -> None:
    module = {"profile": "profiler.cli.app", "netadapt": "netadapt.cli.app"}[program]
    subprocess.run(
        [sys.executable, "-c", f"from {module} import app; app()", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
    )


def shares(folder: Path, quantities: dict[str, str]) -> list[str]:
    """The last step's MACs and prices as shares of the original's, and its accuracy on the holdout."""
    with RunFolder.open(folder) as run:
        steps, priced = run.steps, {item.table: item for item in prices_by_table(run)}
        macs = run.graph.at_widths(steps[-1].widths).macs / run.graph.macs
    found = [f"{100 * macs:.0f} %"]
    for name, quantity in quantities.items():
        figures = priced[name].energy_mj if quantity == "energy" else priced[name].latency_ms
        first, last = figures[0], figures[-1]
        found.append("" if first is None or last is None else f"{100 * last / first:.0f} %")
    return [*found, f"{100 * steps[-1].accuracy:.1f} %"]


if __name__ == "__main__":
    typer.run(main)
