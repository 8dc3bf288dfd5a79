"""The command `netadapt finetune`."""

from __future__ import annotations

from typing import Annotated

import typer

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from netadapt.training.recipe import PRECISIONS, SCHEDULES, RecipeOverrides
from profiler.console import Json, print_json
from profiler.progress import bar


def finetune(
    run: options.Run,
    step: Annotated[
        list[int] | None, typer.Option(help="A step to fine-tune; repeatable. Default: the original and the last.")
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="Train the steps' shapes from random weights instead, with the numbers of the original's training as defaults.",
        ),
    ] = False,
    epochs: Annotated[float | None, typer.Option(help="Epochs of the long-term fine-tune. Default: the task's.")] = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    augment: options.Augment = None,
    schedule: Annotated[
        str | None, typer.Option(help=f"Course of the learning rate: {', '.join(SCHEDULES)}. Default: the task's, which is cosine.")
    ] = None,
    distill: Annotated[
        float | None,
        typer.Option(
            help="Weight, from 0 to 1, of what the original network says in place of the labels: knowledge distillation, of "
            "classification only. Default: 0."
        ),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Temperature of the distillation. Default: 4.")] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="Share of the target that all classes have equally, of classification only. Default: 0.")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay per step of a moving average of the weights, which is kept, such as 0.999. Default: 0, none."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help=f"Data type that layers compute in where that is safe: {', '.join(PRECISIONS)}. Default: auto, which is 16 bits "
            "on a GPU and float32 elsewhere."
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that train a network together, each on its share of every batch, and on a GPU of its own where there "
            "are as many: PyTorch's DistributedDataParallel. The result is the same but for rounding.",
        ),
    ] = 1,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Networks that are trained at the same time, each in a process of its own with its share of the cores, or a GPU.",
        ),
    ] = 1,
    seeds: options.Seeds = 1,
    tensorboard: options.TensorBoard = False,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Long-term fine-tune: train steps to convergence and score them on the test images.

    A training that was interrupted goes on where it was when the command is given again.
    """
    with needs_torch("the steps finished so far are kept; go on with the same command"):
        from netadapt.actions import FinetuneRequest
        from netadapt.actions import finetune as finetune_steps

        long_term = RecipeOverrides(
            learning_rate, epochs, None, batch_size, augment, schedule, precision, label_smoothing, distill, temperature, ema
        )
        request = FinetuneRequest(run, step or (), long_term, seed, seeds, tensorboard, processes, workers, from_scratch)
        with bar() as progress:
            done = finetune_steps(request, progress)
        if as_json:
            print_json([printing.finished_data(item) for item in done.steps])
        else:
            print("\n".join(printing.finished_lines(done.steps, done.task)))
