"""The whole way of a run in seconds: the network is narrowed once, trained for a step, exported, and compared with PyTorch.

What would fail after hours of training, such as an operator that an exporter converts wrongly, is known before.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from netadapt.errors import NetworkError
from netadapt.export.files import Exported, ExportError, export_onnx, export_tflite
from netadapt.input_shapes import InputShapes
from netadapt.networks.options import NetworkOptions
from netadapt.outputs import as_list, forget_graph
from netadapt.pruning.prune import prune
from netadapt.registry import MissingPackage
from netadapt.silence_warnings import quiet
from netadapt.training.trees import random_inputs
from netadapt.users_code import short_name, users_code
from profiler.layers.channels import nearest, possible_widths
from profiler.layers.graph import Graph

FORMATS = ("onnx", "tflite")
_EXPORTERS: dict[str, Callable[..., Exported]] = {"onnx": export_onnx, "tflite": export_tflite}
_BATCH = 4
_SEED = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """One part of the way."""

    what: str
    """narrowed, trained, or the name of a format."""
    seconds: float
    problem: str | None = None
    """Why it does not work, as the end of a sentence; None if it does."""

    def line(self) -> str:
        """What people read about it."""
        if self.problem is not None:
            return f"as {self.what} it cannot be exported: {self.problem} ({self.seconds:.1f} s)"
        done = f"exported as {self.what}, with PyTorch's outputs" if self.what in FORMATS else self.what
        return f"{done} ({self.seconds:.1f} s)"


def dry_run(
    options: NetworkOptions,
    model: nn.Module,
    graph: Graph,
    train: Callable[[nn.Module], object],
    formats: Sequence[str] = FORMATS,
    *,
    required: bool = False,
) -> list[Tried]:
    """Go the whole way with a copy of the model, which `graph` was traced from. `train` changes a model by one training step.

    An export that fails is told in the result and is a `NetworkError` if none of the formats works or, with `required`, one does
    not. `NetworkError` too if the network cannot be narrowed or trained.
    """
    name, tried = short_name(options.name), []
    widths = {block: nearest(choices, choices[-1] / 2) for block, choices in possible_widths(graph, 1).items()}
    start = time.monotonic()
    with users_code(f"{name} cannot be narrowed"):
        narrow = prune(model, graph, widths)
    tried.append(Tried("narrowed once", time.monotonic() - start))
    start = time.monotonic()
    with users_code(f"{name} cannot be trained"):
        train(narrow)
    tried.append(Tried("trained for one step", time.monotonic() - start))
    with users_code(f"{name} cannot be exported"):
        tried += _exported(narrow, options, formats)
    failed = [item for item in tried if item.problem is not None]
    if failed and (required or len(failed) == len(formats)):
        raise NetworkError(f"{name} cannot be exported as {failed[0].what}: {failed[0].problem}")
    return tried


def _exported(model: nn.Module, options: NetworkOptions, formats: Sequence[str]) -> Iterator[Tried]:
    for file_format in formats:
        start, problem = time.monotonic(), None
        with tempfile.TemporaryDirectory(prefix="dry_run_") as folder:
            path = Path(folder) / f"narrowed.{file_format}"
            try:
                _EXPORTERS[file_format](model, options.input_shapes, path)
            except (ExportError, MissingPackage) as exc:
                problem = (
                    str(exc)
                    .removeprefix(f"{path} was not written: ")
                    .removeprefix(f"the model cannot be written as {file_format}: ")
                )
        yield Tried(file_format, time.monotonic() - start, problem)


def train_once(input_shapes: InputShapes) -> Callable[[nn.Module], None]:
    """One training step on random inputs, where the data is not known: every output of floats is drawn to zero."""

    def step(model: nn.Module) -> None:
        inputs = random_inputs(input_shapes, _BATCH, torch.Generator().manual_seed(_SEED))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        if not weights:
            raise NetworkError("no weight of it requires gradients, so nothing can be trained; set requires_grad of those to train")
        with quiet(), torch.random.fork_rng():
            outputs = as_list(model.train()(*inputs))
            losses: list[Tensor] = [output.float().square().mean() for output in outputs if output.requires_grad]
            torch.autograd.backward(torch.stack(losses).sum())
        torch.optim.SGD(weights, lr=1e-3).step()
        model.zero_grad()
        forget_graph(model.eval())

    return step
