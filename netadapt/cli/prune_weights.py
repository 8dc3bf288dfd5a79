"""The command `netadapt prune-weights`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netadapt.cli import options
from netadapt.cli.errors import needs_torch
from netadapt.cli.source import source_with_warnings
from profiler.console import Json, count, percent, print_json, print_table
from profiler.progress import bar

if TYPE_CHECKING:
    from netadapt.training.types import Metric
    from netadapt.weight_pruning.rounds import Pruned


def prune_weights(
    network: options.NetworkOrRun,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for weights, densities and the result.")],
    data: options.DataOfRun = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            help="The accelerator whose modelled energy orders the layers: model:NAME of those that `profile hardware` lists, or "
            "model: and the path of a description.",
        ),
    ] = "model:eyeriss_v2",
    accuracy_loss: Annotated[
        str, typer.Option(help="The accuracy on held-out images that may be lost, in percentage points.")
    ] = "1%",
    energy: Annotated[
        str | None,
        typer.Option(help="Stop when the modelled energy is this share of the original's. Default: when the accuracy is lost."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Largest number of rounds, each with a fine-tune of the whole network.")] = 8,
    first_error: Annotated[
        str, typer.Option(help="By how much the outputs of a layer may change in the first round, in percent of their variance.")
    ] = "1%",
    growth: Annotated[float, typer.Option(help="Factor of that error from one round to the next.")] = 1.6,
    images: Annotated[int, typer.Option(min=1, help="Number of training images that layers are observed on.")] = 256,
    export: Annotated[
        list[str] | None, typer.Option(help="Also write the pruned network as a model file: onnx or tflite; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last round of an interrupted command.")] = False,
    step: options.StepOfRun = None,
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shapes: options.Input = None,
    output: options.Output = None,
    small_input: options.SmallInput = False,
    weights: options.TrainedWeights = None,
    task: options.Task = None,
    epochs: Annotated[float, typer.Option(help="Epochs of each round's fine-tune.")] = 1.0,
    training_epochs: Annotated[
        float | None, typer.Option(help="Epochs of the training of a network without --weights. Default: the task's.")
    ] = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    holdout: options.Holdout = 0.15,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Set single weights to zero where most energy goes (Yang, Chen and Sze, CVPR 2017), beside pruning by magnitude.

    Both have the same rounds, fine-tunes and numbers of weights. The result has the accuracy on test images, the modelled energy
    with the zeros of weights and activations, and the size as Deep Compression stores it.
    """
    with needs_torch(f"every finished round is kept in {out}; continue with --resume", [out]):
        from netadapt.errors import SettingsError
        from netadapt.runs.measure import EXPORTERS
        from netadapt.training.recipe import RecipeOverrides
        from netadapt.weight_pruning.rounds import WeightPruning, check_folder
        from netadapt.weight_pruning.rounds import prune_weights as prune
        from netadapt.weight_pruning.source import source_request
        from profiler.modelled.model import is_model, open_model

        if unknown := [each for each in export or () if each not in EXPORTERS]:
            raise SettingsError(f"networks are exported to {' or '.join(EXPORTERS)}, not to {unknown[0]!r}")
        if not is_model(device):
            raise SettingsError(
                f"{device} is no accelerator that is modelled; give --device model:NAME (`profile hardware` lists them)"
            )
        sparsity = open_model(device).hardware.sparsity
        if "weight" not in (*sparsity.gates, *sparsity.skips):
            print(f"warning: {device} saves no multiplication for a weight that is zero", file=sys.stderr)
        check_folder(out, resume)
        request = source_request(
            network, step, data, width_multiplier, resolution, small_input, input_shapes, output, weights, task,
            holdout_fraction=holdout, seed=seed,
        )  # fmt: skip
        source = source_with_warnings(request)
        recipe = source.recipe
        training = RecipeOverrides(epochs=training_epochs, batch_size=batch_size).applied_to(recipe.from_scratch)
        source = replace(source, recipe=replace(recipe, from_scratch=training))
        asked = WeightPruning(
            device, RecipeOverrides(learning_rate, epochs, None, batch_size).applied_to(recipe.long_term),
            percent(accuracy_loss, "--accuracy-loss") / 100, None if energy is None else percent(energy, "--energy") / 100,
            rounds, percent(first_error, "--first-error") / 100, growth, images, seed,
        )  # fmt: skip
        with bar() as progress:
            done = prune(source, asked, out, progress, resume=resume, formats=tuple(dict.fromkeys(export or ())))
        if as_json:
            print_json(asdict(done))
        else:
            print_pruned(done, source.dataset.task.accuracy, out)


def print_pruned(done: Pruned, accuracy: Metric, out: Path) -> None:
    """All rounds, then the networks side by side."""
    first = done.rounds[0]
    rows: list[Sequence[object]] = [
        (
            item.number if item.number else "original", item.method if item.number else "", accuracy.text(item.accuracy),
            count(item.nonzero), f"{100 * item.nonzero / done.weights:.1f} %", f"{item.energy_mj:.4g}",
            f"{100 * item.energy_mj / first.energy_mj:.1f} %",
        )
        for item in done.rounds
    ]  # fmt: skip
    columns = ("round", "pruned by", f"{accuracy.label} on the holdout", "weights", "of all", "mJ", "of the original")
    print_table(columns, rows, right=columns[2:])
    print()
    sides: list[Sequence[object]] = [
        (
            each.name, each.round.number, accuracy.text(each.accuracy), count(each.round.nonzero), f"{each.round.energy_mj:.4g}",
            f"{each.size_bytes / 1e3:.4g}", f"{done.original_bytes / each.size_bytes:.1f}", accuracy.text(each.shared_accuracy),
        )
        for each in done.networks
    ]  # fmt: skip
    names = ("pruned", "round", accuracy.label, "weights", "mJ", "kB compressed", "times smaller", f"{accuracy.label} compressed")
    print_table(names, sides, right=names[1:])
    print(f"modelled, not measured: {done.hardware}, with the zeros of weights and activations of each network")
    print("compressed as in Deep Compression, without training the shared values; scores are those on test images")
    pruned = len(done.networks) > 1
    if not pruned:
        print("nothing is pruned, as no round kept the accuracy; allow more with --accuracy-loss, or less with --first-error")
    print(f"weights: {out / done.networks[pruned].weights}; densities: {out / 'densities.json'}")
    for path in done.files:
        print(f"exported: {path}")
