"""The command `netadapt finetune`."""

from __future__ import annotations

from typing import Annotated

import typer

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from netadapt.training.recipe import RecipeOverrides
from profiler.console import Json, print_json
from profiler.progress import bar


def finetune(
    run: options.Run,
    step: Annotated[
        list[int] | None, typer.Option(help="A step to fine-tune; repeatable. Default: the original and the last.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs of the long-term fine-tune. Default: the task's.")] = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    augment: options.Augment = None,
    seeds: options.Seeds = 1,
    tensorboard: options.TensorBoard = False,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Long-term fine-tune: train steps to convergence and score them on the test images."""
    with needs_torch("the steps finished so far are kept"):
        from netadapt.actions import FinetuneRequest
        from netadapt.actions import finetune as finetune_steps

        long_term = RecipeOverrides(learning_rate, epochs, None, batch_size, augment)
        with bar() as progress:
            done = finetune_steps(FinetuneRequest(run, step or (), long_term, seed, seeds, tensorboard), progress)
        if as_json:
            print_json([printing.finished_data(item) for item in done.steps])
        else:
            print("\n".join(printing.finished_lines(done.steps, done.task)))
