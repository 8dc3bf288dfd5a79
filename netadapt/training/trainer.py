"""Training and scoring of networks for any task, by stochastic gradient descent with momentum.

Small datasets are indexed out of tensors in memory; `netadapt.training.streaming` reads the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from netadapt.errors import NetAdaptError
from netadapt.outputs import MISFITS, forget_graph, training_branches
from netadapt.training.interrupted import Interrupted
from netadapt.training.memory_limit import keep_freed_memory
from netadapt.training.recipe import TrainSettings
from netadapt.training.soft_targets import loss_of, require_classes
from netadapt.training.tasks import scores_of
from netadapt.training.together import ALONE, Share
from netadapt.training.trees import Inputs, each_of, mapped, tensors_in
from netadapt.training.types import Part, Scores

Progress = Callable[[int, int, float], None]
"""Called after every step with the number of steps done, the number of all steps and the loss."""

_OF_AUGMENTATION = 0xA06
"""What makes the seed of the augmentation another than that of the order."""
_OF_RANK = 0x9E3779B1
"""What makes the seeds of random layers in processes that train together far apart."""
_SCORED_IMAGES, _SCORED_PIXELS = 256, 2**20  # of one batch in `score`; large images limit it, as activations grow with pixels
_SCORED_IMAGES_ON_PROCESSORS = 64  # whose activations fit into caches: MobileNetV1 0.5 at 32 pixels takes 0.7 of the time of 256


class TrainingError(NetAdaptError):
    """The loss of a training is no longer a finite number."""


def train(
    model: nn.Module,
    part: Part,
    settings: TrainSettings,
    *,
    seed: int,
    progress: Progress | None = None,
    device: str | None = None,
    teacher: nn.Module | None = None,
    share: Share = ALONE,
    interrupted: Interrupted | None = None,
    before_step: Callable[[int, int], None] | None = None,
) -> float:
    """Train the model in place and return the mean loss of the last tenth of the steps.

    The same seed gives the same weights on the same machine. `device` is a device of torch, by default CUDA if there is one, else
    the processor; afterwards the model is on the processor, in evaluation. `teacher` is the network that is distilled, if the
    settings give it a weight. `share` is the place of this process among several that train together. A training that was
    `interrupted` goes on; it is saved now and then, and at Ctrl-C, which ends it after the step that runs. `before_step` is called
    with the number of each step, from 1 on, and that of the examples of its batch.

    `TrainingError` as soon as the loss is not finite, `SettingsError` as for `require_classes` and for batches that
    cannot be shared.
    """
    require_classes(part.task, settings)
    share.require(settings.batch_size)
    if settings.distill and teacher is None:
        raise ValueError("distillation needs a teacher")
    place, task = chosen_device(device), part.task
    steps, precision = settings.steps_for(len(part)), precision_on(place, settings.precision)
    keep_freed_memory()
    model.to(place).train()
    taught_by = teacher.to(place).eval() if settings.distill and teacher is not None else None
    layout: torch.memory_format | None = None
    runner = model
    optimizer = _optimizer(model, settings)
    scaler = torch.amp.GradScaler(place.type, enabled=precision is torch.float16)  # whose small gradients would become 0
    losses: list[float] = []
    averages: list[Tensor] = []  # of every weight and statistic
    augmenting = torch.Generator().manual_seed(seed ^ _OF_AUGMENTATION)
    with (
        torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        nullcontext(_never) if interrupted is None or share.count > 1 else interrupted.pressed() as is_pressed,
    ):  # fmt: skip
        # for dropout and other random layers, which draw others in each process; batches have generators of their own
        torch.manual_seed(seed + share.rank * _OF_RANK)
        state = None if interrupted is None else interrupted.load()
        if state is not None:
            averages = _restored(state, model, optimizer, scaler, augmenting, losses)
            if share.rank:
                torch.manual_seed(seed + share.rank * _OF_RANK + len(losses))
        batches = _batches(part, settings, steps, seed, place, augmenting, share, after=len(losses))
        for step, (inputs, targets) in enumerate(batches, start=len(losses) + 1):
            if layout is None:
                layout = fastest_layout(model, inputs)
                runner = share.wrapped(model)
            for group in optimizer.param_groups:
                group["lr"] = settings.rate_at((step - 1) / steps)
            if before_step is not None:
                before_step(step, len(next(tensors_in(inputs))))
            with torch.autocast(place.type, precision, enabled=precision is not torch.float32):
                outputs = outputs_of(runner, inputs, layout)
                with torch.no_grad():
                    taught = None if taught_by is None else outputs_of(taught_by, inputs, layout)
            loss = loss_of(task, settings, mapped(outputs, _as_float), targets, taught)
            losses.append(share.mean(loss))  # waits for a GPU
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss became {losses[-1]} after {step} steps; lower the learning rate, now {settings.learning_rate:g}"
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            if settings.ema:
                averages = averages or [value.clone() for value in model.state_dict().values()]
                _average(averages, model, min(settings.ema, step / (step + 9)))
            if progress is not None:
                progress(step, steps, losses[-1])
            if interrupted is not None and (interrupted.is_due or is_pressed()) and not share.rank:
                interrupted.save(_state(model, optimizer, scaler, augmenting, losses, averages))
            if is_pressed():
                raise KeyboardInterrupt
    with torch.no_grad():
        for average, value in zip(averages, model.state_dict().values(), strict=bool(averages)):
            value.copy_(average)
    if taught_by is not None:
        taught_by.cpu()
    forget_graph(model.cpu().eval())
    # exporters, by which networks are traced, write channels last as transpositions
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def _state(
    model: nn.Module,
    optimizer: torch.optim.SGD,
    scaler: torch.amp.GradScaler,
    augmenting: torch.Generator,
    losses: Sequence[float],
    averages: Sequence[Tensor],
) -> Mapping[str, Any]:
    """Everything that a training needs to go on from here."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "augmenting": augmenting.get_state(),
        "random": torch.get_rng_state(),
        "random of GPU": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "losses": list(losses),
        "averages": list(averages),
    }


def _restored(
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.SGD,
    scaler: torch.amp.GradScaler,
    augmenting: torch.Generator,
    losses: list[float],
) -> list[Tensor]:
    """Put everything back where `_state` took it from, and return the averages of weights and statistics."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    augmenting.set_state(state["augmenting"])
    torch.set_rng_state(state["random"])
    if state["random of GPU"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random of GPU"])
    losses += state["losses"]
    place = next(model.parameters()).device
    return [average.to(place) for average in state["averages"]]


def score(model: nn.Module, part: Part, *, batch_size: int | None = None, device: str | None = None) -> Scores:
    """The model's scores on all images of the part, by the part's task, with the model in evaluation.

    Afterwards the model is on its own device and in its own mode again. `TaskError` as for `scores_of`.
    """
    place, was_training, home = chosen_device(device), model.training, next(model.parameters()).device
    model.to(place).eval()
    layout: torch.memory_format | None = None
    pixels = max(math.prod(shape[1:]) for shape in part.shapes)
    images = _SCORED_IMAGES_ON_PROCESSORS if place.type == "cpu" else _SCORED_IMAGES
    size = batch_size or max(1, min(images, _SCORED_PIXELS // pixels))

    def batches() -> Iterator[tuple[Any, Tensor]]:
        nonlocal layout
        for inputs, targets in part.batches(torch.split(torch.arange(len(part)), size), place):
            layout = layout or fastest_layout(model, inputs)
            yield outputs_of(model, inputs, layout), targets

    with torch.no_grad():  # and not in inference mode, whose tensors a network that keeps some could not train with later
        scores = scores_of(part.task, batches())
    model.to(home).train(was_training)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as `train` leaves it
    return scores


def fastest_layout(model: nn.Module, inputs: Inputs) -> torch.memory_format:
    """The layout in memory that the model is brought to: channels last, which is faster, if its own code accepts that.

    `x.view(x.size(0), -1)` does not.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad(), training_branches(model) if model.training else nullcontext():
            outputs_of(model, mapped(inputs, lambda each: each[:2]), torch.channels_last)
    except RuntimeError as exc:
        if "view size" in str(exc):
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            return torch.contiguous_format
    except MISFITS:
        pass  # raised again by the run that follows
    return torch.channels_last


def chosen_device(name: str | None = None) -> torch.device:
    """The device of this name; without a name CUDA if there is one, else the processor."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def precision_on(device: torch.device, precision: str) -> torch.dtype:
    """The data type that layers compute in on this device, for a name in `recipe.PRECISIONS`."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.SGD:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [  # weight decay is for convolutions and linear layers, not for biases and batch normalisation
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0)


def outputs_of(model: nn.Module, inputs: Inputs, layout: torch.memory_format = torch.contiguous_format) -> Any:
    """What the model returns for a batch, given as one tensor or several; images are brought to this layout in memory."""
    return model(*(each.contiguous(memory_format=layout) if each.ndim == 4 else each for each in each_of(inputs)))


def _average(averages: Sequence[Tensor], model: nn.Module, decay: float) -> None:
    """Move the averages towards the model's values. The decay is lower in the first steps, whose weights are soon out of date."""
    for average, value in zip(averages, model.state_dict().values(), strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - decay)
        else:  # a counter
            average.copy_(value)


def _never() -> bool:
    return False


def _as_float(outputs: Tensor) -> Tensor:
    """Outputs that layers have computed in 16 bits, in 32."""
    return outputs.float() if outputs.is_floating_point() else outputs


def _batches(
    part: Part,
    settings: TrainSettings,
    steps: int,
    seed: int,
    device: torch.device,
    augmenting: torch.Generator,
    share: Share,
    *,
    after: int,
) -> Iterator[tuple[Inputs, Tensor]]:
    """This process's share of each step's batch, from the step `after` on; what is left of an epoch begins the first of the next.

    Random numbers are drawn on the processor, so that training on every device sees the same images. The order has a generator of
    its own, as a part that is streamed asks for it ahead of the batches.
    """
    groups = map(share.of, islice(_order(len(part), settings.batch_size, steps, seed), after, None))
    offset = share.first(settings.batch_size)
    for inputs, targets in part.batches(groups, device, seed=seed, after=after, offset=offset):
        if settings.augment and isinstance(inputs, Tensor):  # as in the whole batch, of which each process draws all numbers
            whole = part.task.augment(share.in_whole(inputs), mapped(targets, share.in_whole), part, augmenting)
            inputs, targets = share.of(whole[0]), mapped(whole[1], share.of)
        yield inputs, targets


def _order(count: int, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """The indices of each step's batch."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:batch_size]
        order = order[batch_size:]
