"""Logs for TensorBoard, written as a run goes on: an optional extra, and nothing of a run depends on it.

In the run's folder `tensorboard`: `steps` (accuracy, price and widths of each step) and a folder of losses for each long training,
`original` or `finished-007`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from netadapt.registry import require
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import Step

if TYPE_CHECKING:
    from pathlib import Path

_FLUSH_S = 5


class EventLog(Protocol):
    """The place where the steps and losses of a run are logged."""

    def step(self, step: Step) -> None: ...

    def loss(self, what: str, step: int, loss: float) -> None:
        """Log the loss of the training named `what` after its step number `step`, counted from 1."""
        ...


class _NoLog:
    def step(self, step: Step) -> None:
        pass

    def loss(self, what: str, step: int, loss: float) -> None:
        pass


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def step(self, step: Step) -> None:
        for name, value in scalars(step).items():
            self._writer("steps").add_scalar(name, value, step.iteration)
        self._writer("steps").flush()

    def loss(self, what: str, step: int, loss: float) -> None:
        self._writer(what).add_scalar("training/loss", loss, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> Any:
        """The writer of this name; it hides what an earlier process logged under it, because all of it is logged again."""
        from torch.utils.tensorboard import SummaryWriter

        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name), purge_step=0, flush_secs=_FLUSH_S)
        return self._writers[name]


def scalars(step: Step) -> dict[str, float]:
    """The values that are drawn for a step, by the names of their charts."""
    return {
        "accuracy/holdout": step.accuracy,
        **{f"price/{name}": price for name, price in step.prices.items()},
        **{f"measured/{name}": check.measured.value for name, check in step.checks.items()},
        **{f"holdout/{name}": value for name, value in step.metrics.items()},
        **{f"width/{block}": float(width) for block, width in step.widths.items()},
    }


@contextmanager
def open_log(run: RunFolder, *, wanted: bool = True) -> Iterator[EventLog]:
    """A log that starts with the run's recorded steps, or writes nothing unless `wanted`. `MissingPackage` without the extra."""
    if not wanted:
        yield _NoLog()
        return
    require_tensorboard()
    log = _TensorBoard(run.path / "tensorboard")
    try:
        for step in run.steps:
            log.step(step)
        yield log
    finally:
        log.close()


def require_tensorboard() -> None:
    require("tensorboard", extra="tensorboard")
