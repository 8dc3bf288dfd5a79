"""The commands `netadapt supernet` and `netadapt supernet-check`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from netadapt.networks.options import NetworkOptions
from netadapt.pruning.importance import DEFAULT as DEFAULT_IMPORTANCE
from netadapt.pruning.settings import PruningSettings
from netadapt.search.types import AdaptSettings
from netadapt.settings import DataSettings
from netadapt.supernet.folder import RECALIBRATION_BATCHES, SuperNetworkFolder
from netadapt.supernet.ranking import RankCorrelation
from netadapt.training.recipe import RecipeOverrides
from profiler.console import Json, print_json
from profiler.progress import bar

DEFAULTS = AdaptSettings()
Folder = Annotated[Path, typer.Argument(help="The folder of a super-network made by `netadapt supernet`.")]


def supernet(
    network: options.Network,
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the super-network.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was interrupted.")] = False,
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shapes: options.Input = None,
    output: options.Output = None,
    small_input: options.SmallInput = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Trained weights to start from, whose channels are sorted by importance. Default: random weights."),
    ] = None,
    task: options.Task = None,
    data_workers: options.DataWorkers = None,
    mean: options.Mean = None,
    std: options.Std = None,
    width_step: options.WidthStep = DEFAULTS.width_step,
    min_width: options.MinWidth = DEFAULTS.min_width,
    bypass: Annotated[
        bool,
        typer.Option(
            "--bypass",
            help="Let the search remove residual branches too: width 0 leaves their shortcut, and nothing of their layers.",
        ),
    ] = False,
    importance: options.Importance = DEFAULT_IMPORTANCE,
    bn_recalibration_batches: options.BnRecalibrationBatches = RECALIBRATION_BATCHES,
    epochs: Annotated[float | None, typer.Option(help="Epochs of the training. Default: the task's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Batches of the training, in place of --epochs.")] = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    augment: options.Augment = None,
    holdout: options.Holdout = 0.15,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Train a super-network: one training for all widths of a network, for `netadapt run --search descent --supernet`.

    Every image of a batch is run through a network of its own random widths (ordered dropout). A run has to have the same network,
    data, holdout and seed, so that its holdout is new to the super-network.
    """
    with needs_torch(f"what has been trained is kept in {out}; continue with --resume", [out]):
        from netadapt.supernet.making import SuperNetworkRequest, make_supernet

        chosen = NetworkOptions.chosen(network, width_multiplier, resolution, small_input, input_shapes, output=output)
        training = RecipeOverrides(learning_rate, epochs, steps, batch_size, augment)
        request = SuperNetworkRequest(
            chosen, DataSettings.chosen(data, holdout, data_workers, mean, std), out, training, width_step, min_width,
            PruningSettings(importance, bn_recalibration_batches), seed, weights, task, bypass,
        )  # fmt: skip
        with bar() as progress:
            make_supernet(request, resume=resume, progress=progress)
        with SuperNetworkFolder.open(out) as folder:
            printing.print_supernet(folder, as_json=as_json)


def supernet_check(
    supernet: Folder,
    shapes: Annotated[int, typer.Option(help="Number of random shapes that are trained by themselves.")] = 30,
    epochs: Annotated[float | None, typer.Option(help="Epochs of each shape's training. Default: the super-network's.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the order that a super-network gives networks with the order after a training of their own.

    Random shapes are judged in it and trained from random weights; the rank correlation of the two accuracies (Kendall) is printed
    and kept in the folder, and reports of runs show it. Shapes that are trained already are not trained again.
    """
    with needs_torch("every shape that is trained is kept; the same command goes on"):
        from netadapt.supernet.check import check_supernet

        with SuperNetworkFolder.open(supernet, write=True) as folder, bar() as progress:
            found = check_supernet(folder, shapes, RecipeOverrides(epochs=epochs), progress)
        correlation = RankCorrelation.of(found)
        assert correlation is not None
        if as_json:
            print_json({"supernet": str(supernet), **asdict(correlation), "trained_shapes": [asdict(shape) for shape in found]})
        else:
            print(correlation.sentence)
