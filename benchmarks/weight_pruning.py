"""Pruning single weights in the order of the layers' modelled energy, beside pruning by magnitude, at equal accuracy.

    python benchmarks/weight_pruning.py --data cifar10:cifar10.npz --out pruned --seeds 3

For each seed `netadapt prune-weights` trains the network, prunes it by both methods with the same rounds and fine-tunes, and
reports the networks that kept the accuracy. An energy is that of the accelerator's model with the zeros of weights and activations.
Everything is kept in --out, and the same command goes on. By default the network is trained far too short to judge the methods:
--training-epochs 60, --epochs 5 and --rounds 8 are for that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.console import print_table

NETADAPT = (sys.executable, "-c", "from netadapt.cli.app import app; app()")


def main(
    data: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    seeds: Annotated[int, typer.Option()] = 1,
    first_seed: Annotated[int, typer.Option()] = 1,
    network: Annotated[str, typer.Option()] = "mobilenet_v1",
    width_multiplier: Annotated[float, typer.Option()] = 0.25,
    resolution: Annotated[int, typer.Option()] = 32,
    small_input: Annotated[bool, typer.Option()] = True,
    device: Annotated[str, typer.Option()] = "model:eyeriss_v2",
    training_epochs: Annotated[float, typer.Option()] = 1,
    epochs: Annotated[float, typer.Option(help="Of the fine-tune of each round.")] = 0.25,
    rounds: Annotated[int, typer.Option()] = 3,
    accuracy_loss: Annotated[str, typer.Option(help="Percentage points that may be lost on the holdout.")] = "2%",
) -> None:
    rows = []
    for seed in range(first_seed, first_seed + seeds):
        folder = out / f"seed{seed}"
        options = [f"--data={data}", f"--out={folder}", f"--seed={seed}", f"--device={device}", f"--epochs={epochs}"]
        options += [f"--width-multiplier={width_multiplier}", f"--resolution={resolution}", f"--rounds={rounds}"]
        options += [f"--training-epochs={training_epochs}", f"--accuracy-loss={accuracy_loss}", "--json"]
        options += [*(["--small-input"] if small_input else []), *(["--resume"] if folder.exists() else [])]
        command = [*NETADAPT, "prune-weights", network, *options]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rows += [(seed, *row(each, done)) for each in done["networks"]]
    columns = ("seed", "pruned", "round", "holdout", "test", "weights", "energy", "kB compressed")
    print_table(columns, rows, right=columns[2:])
    print(f"modelled, not measured: energy of one image on {device}, as a share of the original's")


def row(network: dict[str, Any], done: dict[str, Any]) -> tuple[str, ...]:
    """A reported network, with its weights and energy as shares of the original's."""
    found, original = network["round"], done["rounds"][0]
    return (
        network["name"], str(found["number"]), f"{100 * found['accuracy']:.1f} %", f"{100 * network['accuracy']:.1f} %",
        f"{100 * found['nonzero'] / done['weights']:.1f} %", f"{100 * found['energy_mj'] / original['energy_mj']:.1f} %",
        f"{network['size_bytes'] / 1e3:.1f}",
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
