"""The training of a super-network: at each step every image of the batch has widths of its own.

The narrower a width is, the later it is drawn, as in the progressive shrinking of Once-for-All (Cai et al., 2020): from random
weights, a deep network in which some block is always narrow learns nothing for a long time. MobileNetV1 0.25 reached 74 % on the
digits after 300 steps so, and 12 % with all widths from the beginning, both at full width.

What is drawn at a step depends on the seed and on the step's number only. So a training that goes on from a checkpoint gives the
same weights as one that was never interrupted.
"""

from __future__ import annotations

import io
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from device_agents.support.atomic import write_whole
from netadapt.errors import RunError
from netadapt.outputs import forget_graph
from netadapt.supernet.dropout import OrderedDropout
from netadapt.training.checkpoint import UNREADABLE
from netadapt.training.memory_limit import keep_freed_memory
from netadapt.training.recipe import TrainSettings
from netadapt.training.trainer import (
    Progress,
    TrainingError,
    _batches,
    _layout,
    _optimizer,
    chosen_device,
    outputs_of,
    precision_on,
)
from netadapt.training.trees import mapped, tensors_in
from netadapt.training.types import Part

_SAVE_EVERY_S = 60.0
_EPOCH_SEED = 1_000_003  # a prime: the epochs of one seed share no batches with those of the next
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

    `warm_up` is the share of the training at full width, which trained weights have no need of. The checkpoint is written every
    minute and when Ctrl-C is pressed, which ends the training after the step that runs. Afterwards the model is on the processor,
    in evaluation. `TrainingError` as soon as the loss is not finite, `RunError` for a checkpoint that cannot be read.
    """
    place, steps = chosen_device(), settings.steps_for(len(part))
    precision, per_epoch = precision_on(place, settings.precision), max(1, len(part) // settings.batch_size)
    keep_freed_memory()
    model.to(place).train()
    optimizer = _optimizer(model, settings)
    scaler = torch.amp.GradScaler(place.type, enabled=precision is torch.float16)
    done, seconds, widths = 0, 0.0, torch.Generator()
    layout: torch.memory_format | None = None

    def save() -> None:
        data = io.BytesIO()
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
        torch.save({**states, "done": done, "seconds": seconds}, data)
        write_whole(checkpoint, data.getvalue(), RunError)

    if checkpoint.exists():
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except UNREADABLE as exc:
            raise RunError(f"{checkpoint} cannot be read; remove it to begin the training anew") from exc
        for target, name in ((model, "model"), (optimizer, "optimizer"), (scaler, "scaler")):
            target.load_state_dict(state[name])
        done, seconds = state["done"], state["seconds"]
    begun = saved = time.monotonic()
    with (
        torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        dropout.on(model), _interrupted_after_a_step() as interrupted,
    ):  # fmt: skip
        while done < steps:
            epoch, skipped = divmod(done, per_epoch)
            length = min(per_epoch, steps - epoch * per_epoch)
            for inputs, targets in islice(_batches(part, settings, length, seed + _EPOCH_SEED * epoch, place), skipped, None):
                layout = layout or _layout(model, inputs)
                for group in optimizer.param_groups:
                    group["lr"] = settings.rate_at(done / steps)
                torch.manual_seed(seed + _EPOCH_SEED * done)  # for random layers
                share = min(1.0, max(0.0, (done / steps - warm_up) / _SHRINKING))
                dropout.draw(len(next(tensors_in(inputs))), widths.manual_seed((seed + _EPOCH_SEED * done) ^ _OF_WIDTHS), share)
                with torch.autocast(place.type, precision, enabled=precision is not torch.float32):
                    outputs = outputs_of(model, inputs, layout)
                loss = part.task.loss(mapped(outputs, lambda each: each.float() if each.is_floating_point() else each), targets)
                if not math.isfinite(loss.item()):
                    raise TrainingError(
                        f"the loss became {loss.item()} after {done + 1} steps; lower the learning rate, now "
                        f"{settings.learning_rate:g}"
                    )
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(scaler.scale(loss))
                scaler.step(optimizer)
                scaler.update()
                done += 1
                progress(done, steps, loss.item())
                now = time.monotonic()
                seconds, begun = seconds + now - begun, now
                if interrupted() or now - saved > _SAVE_EVERY_S:
                    save()
                    saved = now
                if interrupted():
                    raise KeyboardInterrupt
    forget_graph(model.cpu().eval())
    return seconds


@contextmanager
def _interrupted_after_a_step() -> Iterator[Callable[[], bool]]:
    """Inside the with statement Ctrl-C only makes the function that is yielded true; a second one interrupts at once."""
    pressed: list[int] = []

    def press(number: int, _frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield lambda: False  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
