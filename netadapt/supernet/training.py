"""The training of a super-network: at each step every image of the batch has widths of its own.

Widths depend on the seed and on the step's number only, so that a training that was interrupted and goes on gives the same weights
as any other.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from netadapt.supernet.dropout import OrderedDropout
from netadapt.training.interrupted import Interrupted
from netadapt.training.recipe import TrainSettings
from netadapt.training.trainer import Progress, train
from netadapt.training.types import Part

_STEP_SEED = 1_000_003  # a prime: the steps of one seed share no widths with those of the next
_OF_WIDTHS = 0x51D


def train_supernet(
    model: nn.Module,
    dropout: OrderedDropout,
    part: Part,
    settings: TrainSettings,
    checkpoint: Path,
    *,
    seed: int,
    progress: Progress,
) -> float:
    """Train all widths in place, from the checkpoint on if there is one, and return the seconds of all training steps.

    Afterwards the model is on the processor, in evaluation. `TrainingError` as soon as the loss is not finite.
    """
    unfinished, generator = Interrupted(checkpoint, "all widths of a super-network"), torch.Generator()

    def draw(step: int, images: int) -> None:
        dropout.draw(images, generator.manual_seed((seed + _STEP_SEED * step) ^ _OF_WIDTHS))

    with dropout.on(model):
        train(model, part, settings, seed=seed, progress=progress, interrupted=unfinished, before_step=draw)
    return unfinished.seconds
