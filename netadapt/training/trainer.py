"""Training and judging networks for any task: stochastic gradient descent with momentum, fast enough for candidates on a processor.

Batches are cut out of tensors in memory; on two cores a worker process per batch would cost more than it saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from netadapt.errors import NetAdaptError, SettingsError
from netadapt.training.datasets import Part
from netadapt.training.memory_limit import keep_freed_memory
from netadapt.training.tasks import Scores, open_task, scores_of

Progress = Callable[[int, int, float], None]
"""Called after every step with the steps done, the steps to do and the loss."""

SCHEDULES = ("constant", "cosine", "one_cycle")
_WARM_UP = 0.3  # share of a one-cycle schedule in which the learning rate rises
_FIRST_RATE = 1 / 25  # what it starts from, of its highest
PRECISIONS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_AT_ONCE, _AT_ONCE_PIXELS = 256, 2**20  # images judged together: of large ones fewer, as a network keeps many values per pixel


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
    """Change images at random, as the task does it."""
    precision: str = "auto"
    """What layers compute in where that is safe; weights stay float32. `auto`: 16 bits on a GPU, float32 elsewhere."""

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
        if self.precision not in PRECISIONS:
            raise SettingsError(f"unknown precision {self.precision!r}; known are {', '.join(PRECISIONS)}")

    def steps_for(self, images: int) -> int:
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or 0) * images / self.batch_size))

    def precision_on(self, device: torch.device) -> torch.dtype:
        """What layers compute in there."""
        if (chosen := PRECISIONS[self.precision]) is not None:
            return chosen
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16

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


@dataclass(frozen=True, slots=True)
class Recipe:
    """How networks are trained for a task unless somebody asks for something else."""

    from_scratch: TrainSettings
    """The original, from random weights or with an encoder that was trained for something else."""
    short_term: TrainSettings
    """A candidate, to compare it with the others of its iteration; a constant rate, because the winner goes on from here."""
    long_term: TrainSettings
    """The chosen network, to convergence: it is trained already, so a lower rate, and down to nothing for the last bit."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is asked for in place of a recipe's numbers; None leaves them."""

    learning_rate: float | None = None
    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    augment: bool | None = None

    def of(self, settings: TrainSettings) -> TrainSettings:
        """`SettingsError` if a value makes no sense."""
        return replace(settings, **{name: value for name, value in asdict(self).items() if value is not None})


def train(
    model: nn.Module, part: Part, settings: TrainSettings, *, seed: int, progress: Progress | None = None, device: str | None = None
) -> float:
    """Train the model in place and return the mean loss of the last tenth of the steps.

    The same seed gives the same weights on the same machine. `device` is CUDA if there is one, else the processor; the model
    ends on the processor, in evaluation. `TrainingError` as soon as the loss is no number.
    """
    where, task = chosen_device(device), open_task(part.task)
    steps, precision = settings.steps_for(len(part)), settings.precision_on(where)
    keep_freed_memory()
    model.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = _optimizer(model, settings)
    scaler = torch.amp.GradScaler(where.type, enabled=precision is torch.float16)  # whose small gradients would become 0
    losses = []
    with torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        torch.manual_seed(seed)  # for dropout and the like
        for step, (images, targets) in enumerate(_batches(part, settings, steps, seed, where), start=1):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate_at((step - 1) / steps)
            with torch.autocast(where.type, precision, enabled=precision is not torch.float32):
                outputs = model(images.contiguous(memory_format=torch.channels_last))
            loss = task.loss(outputs.float(), targets)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss became {losses[-1]} after {step} steps; lower the learning rate, now {settings.learning_rate:g}"
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            if progress is not None:
                progress(step, steps, losses[-1])
    model.cpu().eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def score(model: nn.Module, part: Part, *, batch_size: int | None = None, device: str | None = None) -> Scores:
    """How good the model is on all images of the part, by the part's task. The model's mode is left as it is."""
    where, task = chosen_device(device), open_task(part.task)
    was_training = model.training
    home = next(model.parameters()).device
    model.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    at_once = batch_size or max(1, min(_AT_ONCE, _AT_ONCE_PIXELS // part.images[0, 0].numel()))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.split(torch.arange(len(part)), at_once):
            images, targets = part.batch(indices, where)
            yield model(images.contiguous(memory_format=torch.channels_last)), targets

    with torch.inference_mode():
        found = scores_of(task, batches())
    model.to(home).train(was_training)
    return found


def accuracy(model: nn.Module, part: Part, *, batch_size: int | None = None, device: str | None = None) -> float:
    """That of the scores which picks, from 0 to 1."""
    return score(model, part, batch_size=batch_size, device=device).accuracy


def chosen_device(name: str | None = None) -> torch.device:
    """Where to compute: CUDA if there is one, else the processor, unless it is named."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.SGD:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0)


def _batches(part: Part, settings: TrainSettings, steps: int, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Always full: what an epoch leaves over begins the next one's first batch. What is random is drawn on the processor, so that
    every device sees the same images."""
    task, generator = open_task(part.task), torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < settings.batch_size:
            waiting = torch.cat([waiting, torch.randperm(len(part), generator=generator)])
        images, targets = part.batch(waiting[: settings.batch_size], device)
        waiting = waiting[settings.batch_size :]
        yield task.augmented(images, targets, part, generator) if settings.augment else (images, targets)


def _falling(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
