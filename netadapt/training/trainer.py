"""Training and judging networks for any task: stochastic gradient descent with momentum, fast enough for candidates on a processor.

Batches are cut out of tensors in memory; on two cores a worker process per batch would cost more than it saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from netadapt.errors import NetAdaptError
from netadapt.training.memory_limit import keep_freed_memory
from netadapt.training.recipe import TrainSettings
from netadapt.training.tasks import scores_of
from netadapt.training.types import Part, Scores

Progress = Callable[[int, int, float], None]
"""Called after every step with the steps done, the steps to do and the loss."""

_AT_ONCE, _AT_ONCE_PIXELS = 256, 2**20  # images judged together: of large ones fewer, as a network keeps many values per pixel


class TrainingError(NetAdaptError):
    """The loss of a training is no longer a finite number."""


def train(
    model: nn.Module, part: Part, settings: TrainSettings, *, seed: int, progress: Progress | None = None, device: str | None = None
) -> float:
    """Train the model in place and return the mean loss of the last tenth of the steps.

    The same seed gives the same weights on the same machine. `device` is CUDA if there is one, else the processor; the model
    ends on the processor, in evaluation. `TrainingError` as soon as the loss is no number.
    """
    where, task = chosen_device(device), part.task
    steps, precision = settings.steps_for(len(part)), precision_on(where, settings.precision)
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
    """The model's scores on all images of the part, by the part's task. The model's mode is left as it is."""
    where, task = chosen_device(device), part.task
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
    """The score by which networks are chosen, from 0 to 1, on all images of the part."""
    return score(model, part, batch_size=batch_size, device=device).accuracy


def chosen_device(name: str | None = None) -> torch.device:
    """The device of this name; without a name CUDA if there is one, else the processor."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def precision_on(device: torch.device, precision: str) -> torch.dtype:
    """The data type that layers compute in on this device; `auto` is 16 bits on a GPU and float32 elsewhere."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


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
    task, generator = part.task, torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < settings.batch_size:
            waiting = torch.cat([waiting, torch.randperm(len(part), generator=generator)])
        images, targets = part.batch(waiting[: settings.batch_size], device)
        waiting = waiting[settings.batch_size :]
        yield task.augmented(images, targets, part, generator) if settings.augment else (images, targets)
