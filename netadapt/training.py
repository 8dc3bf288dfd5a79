"""Training and judging classifiers: stochastic gradient descent with momentum, fast enough for candidates on a processor.

Batches are cut out of tensors in memory; on two cores a worker process per batch would cost more than it saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from netadapt.datasets import Part
from netadapt.errors import NetAdaptError, SettingsError

Progress = Callable[[int, int, float], None]
"""Called after every step with the steps done, the steps to do and the loss."""

SCHEDULES = ("constant", "cosine", "one_cycle")
_WARM_UP = 0.3  # share of a one-cycle schedule in which the learning rate rises
_FIRST_RATE = 1 / 25  # what it starts from, of its highest
_SHIFT = 1 / 8  # of the side: CIFAR's customary 4 of 32 pixels


class TrainingError(NetAdaptError):
    """Training went astray."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How long and how to train. `SettingsError` if a value makes no sense."""

    learning_rate: float
    """The highest of the schedule."""
    epochs: float | None = None
    steps: int | None = None
    """Either this or `epochs`."""
    batch_size: int = 64
    schedule: str = "one_cycle"
    momentum: float = 0.9
    weight_decay: float = 4e-5
    """MobileNet's. Of convolutions and linear layers only: a batch normalisation's few numbers need none."""
    augment: bool = True
    """Shift every picture by up to an eighth of its side, and mirror half of those that may be."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise SettingsError("training needs either a number of epochs or a number of steps")
        if (self.epochs or self.steps or 0) <= 0 or self.batch_size < 1:
            raise SettingsError(
                f"epochs, steps and batch size must be positive, got {self.epochs}, {self.steps}, {self.batch_size}"
            )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise SettingsError(
                f"learning rate {self.learning_rate:g}, momentum {self.momentum:g} or weight decay {self.weight_decay:g} is no use"
            )
        if self.schedule not in SCHEDULES:
            raise SettingsError(f"unknown schedule {self.schedule!r}; known are {', '.join(SCHEDULES)}")

    def steps_for(self, pictures: int) -> int:
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or 0) * pictures / self.batch_size))

    def rate_at(self, progress: float) -> float:
        """The learning rate when this share of the training is done."""
        match self.schedule:
            case "constant":
                share = 1.0
            case "cosine":
                share = _falling(progress)
            case _:
                rising = _FIRST_RATE + (1 - _FIRST_RATE) * progress / _WARM_UP
                share = rising if progress < _WARM_UP else _falling((progress - _WARM_UP) / (1 - _WARM_UP))
        return self.learning_rate * share


# From random weights. A one-cycle schedule bears a high rate and gets a small network far in few epochs.
FROM_SCRATCH = TrainSettings(learning_rate=0.1, epochs=30, schedule="one_cycle")
# A candidate, to compare it with the others of its iteration: a tenth of the training's rate, as in the paper (0.0045 after 0.045),
# and constant, because the winner goes on from here.
SHORT_TERM = TrainSettings(learning_rate=0.01, steps=20, schedule="constant")
# The chosen network, to convergence: it is trained already, so half the rate, and down to nothing for the last bit of accuracy.
LONG_TERM = TrainSettings(learning_rate=0.05, epochs=15, schedule="cosine")


def train(
    model: nn.Module, part: Part, settings: TrainSettings, *, seed: int, progress: Progress | None = None, device: str | None = None
) -> float:
    """Train the model in place and return the mean loss of the last tenth of the steps.

    The same seed gives the same weights on the same machine. `device` is CUDA if there is one, else the processor; the model
    ends on the processor, in evaluation. `TrainingError` as soon as the loss is no number.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    steps = settings.steps_for(len(part))
    model.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = _optimizer(model, settings)
    losses = []
    with torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        torch.manual_seed(seed)  # for dropout and the like
        for step, (pictures, labels) in enumerate(_batches(part, settings, steps, seed), start=1):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate_at((step - 1) / steps)
            scores = model(pictures.to(where, memory_format=torch.channels_last))
            loss = functional.cross_entropy(scores, labels.to(where))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss became {losses[-1]} after {step} steps; lower the learning rate, now {settings.learning_rate:g}"
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            if progress is not None:
                progress(step, steps, losses[-1])
    model.cpu().eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def accuracy(model: nn.Module, part: Part, *, batch_size: int = 256, device: str | None = None) -> float:
    """The share of pictures whose highest score is that of their label. The model's mode is left as it is."""
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    was_training = model.training
    home = next(model.parameters()).device
    model.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    correct = 0
    with torch.inference_mode():
        for indices in torch.split(torch.arange(len(part)), batch_size):
            pictures, labels = part.batch(indices)
            scores = model(pictures.to(where, memory_format=torch.channels_last))
            correct += int((scores.argmax(dim=1).cpu() == labels).sum())
    model.to(home).train(was_training)
    return correct / len(part)


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.SGD:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0)


def _batches(part: Part, settings: TrainSettings, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Always full: what an epoch leaves over begins the next one's first batch."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < settings.batch_size:
            waiting = torch.cat([waiting, torch.randperm(len(part), generator=generator)])
        pictures, labels = part.batch(waiting[: settings.batch_size])
        waiting = waiting[settings.batch_size :]
        yield (augmented(pictures, generator, mirrored=part.mirrored) if settings.augment else pictures), labels


def augmented(pictures: Tensor, generator: torch.Generator, *, mirrored: bool) -> Tensor:
    """Each picture shifted on its own, what comes in being the mean (0), and each second one mirrored if it may be."""
    n, _, height, width = pictures.shape
    most = max(1, round(min(height, width) * _SHIFT))
    shifts = torch.randint(0, 2 * most + 1, (n, 2), generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5 if mirrored else torch.zeros(n, dtype=torch.bool)
    padded = functional.pad(pictures, (most, most, most, most))
    rows = shifts[:, 0, None] + torch.arange(height)  # (n, h)
    columns = shifts[:, 1, None] + torch.where(flips[:, None], torch.arange(width - 1, -1, -1), torch.arange(width))  # (n, w)
    each = torch.arange(n)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (n, h, w, c) to (n, c, h, w)


def _falling(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
