"""The training of a super-network: at each step every image of the batch has widths of its own.

The narrower a width is, the later it is drawn, as in the progressive shrinking of Once-for-All (Cai et al., 2020): from random
weights, a deep network in which some block is always narrow learns nothing for a long time. MobileNetV1 0.25 reached 74 % on the
digits after 300 steps so, and 12 % with all widths from the beginning, both at full width.

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
WARM_UP = 0.3
"""The share of a training from random weights in which all images have full widths."""
_SHRINKING = 0.4  # the share after it in which more and more widths are drawn from


def train_supernet(
    model: nn.Module,
    dropout: OrderedDropout,
    part: Part,
    settings: TrainSettings,
    checkpoint: Path,
    *,
    seed: int,
    progress: Progress,
    warm_up: float = WARM_UP,
) -> float:
    """Train all widths in place, from the checkpoint on if there is one, and return the seconds of all training steps.

    `warm_up` is the share of the training at full width, which trained weights have no need of. Afterwards the model is on the
    processor, in evaluation. `TrainingError` as soon as the loss is not finite.
    """
    unfinished, generator = Interrupted(checkpoint, "all widths of a super-network"), torch.Generator()
    steps = settings.steps_for(len(part))

    def draw(step: int, images: int) -> None:
        share = min(1.0, max(0.0, ((step - 1) / steps - warm_up) / _SHRINKING))
        dropout.draw(images, generator.manual_seed((seed + _STEP_SEED * step) ^ _OF_WIDTHS), share)

    with dropout.on(model):
        train(model, part, settings, seed=seed, progress=progress, interrupted=unfinished, before_step=draw)
    return unfinished.seconds
