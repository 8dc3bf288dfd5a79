"""How a candidate is evaluated, wherever that happens: every executor ends up here, so that all give the same results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from netadapt.errors import NetAdaptError
from netadapt.executors.jobs import CandidateJob
from netadapt.networks.pretrained import start_encoder
from netadapt.pruning.prune import prune
from netadapt.pruning.pruner import prune_candidate
from netadapt.runs.models import RunModels
from netadapt.search.types import Result
from netadapt.training.checkpoint import load_weights, save_weights
from netadapt.training.trainer import Progress, score, train


class OutOfMemory(NetAdaptError):
    """A candidate did not fit into the memory of the processor or the GPU."""


class Evaluator:
    """Evaluates jobs of one run, and keeps its data and the network that candidates start from at hand between them."""

    def __init__(self, models: RunModels) -> None:
        self.models = models
        self._start: tuple[object, nn.Module] | None = None

    def __call__(self, job: CandidateJob, progress: Progress | None = None) -> Result:
        """The candidate's weights are on the disk when its result comes back. Any `ToolError` of training, data and files."""
        with _threads(job.threads), _plain_memory_errors(job):
            model = self._model(job)
            if job.training is not None:
                train(model, self.models.dataset.train, job.training, seed=job.seed, progress=progress)
            save_weights(model, self.models.run.weights_path(job.weights))
            scores = score(model, self.models.dataset.holdout)
            return Result(job.candidate, scores.accuracy, job.weights, scores.metrics)

    def _model(self, job: CandidateJob) -> nn.Module:
        if job.start_weights is None:
            model = self._random(job.seed)
            if job.encoder_weights is not None:
                start_encoder(model, Path(job.encoder_weights), self.models.dataset.train)
            return model
        widths = self.models.run.graph.widths if job.start_widths is None else job.start_widths
        start = self._loaded(job.start_weights, widths)
        graph = self.models.graph(widths)
        if dict(widths) == dict(job.candidate.widths):  # the original network, or a candidate that goes on from its last rung
            return prune(start, graph, job.candidate.widths)
        return prune_candidate(start, graph, job.candidate.widths, job.pruning, self.models.dataset.train, job.seed)

    def _random(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.models.options.build()

    def _loaded(self, weights: str, widths: Mapping[str, int]) -> nn.Module:
        there = Path(weights).stat() if Path(weights).exists() else None
        key = weights, there and (there.st_mtime_ns, there.st_ino, there.st_size), widths  # a candidate's own may be replaced
        if self._start is None or self._start[0] != key:
            model = self.models.shaped(widths)
            load_weights(model, Path(weights))
            self._start = key, model.eval()
        return self._start[1]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _plain_memory_errors(job: CandidateJob) -> Iterator[None]:
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as exc:
        raise OutOfMemory(f"there is not enough memory for {job.name}; choose a smaller --batch-size or fewer --workers") from exc
    except RuntimeError as exc:
        if "can't allocate memory" not in str(exc):  # torch has no class of its own for the processor's memory
            raise
        raise OutOfMemory(f"there is not enough memory for {job.name}; choose a smaller --batch-size or fewer --workers") from exc
