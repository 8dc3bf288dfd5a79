"""The evaluation of a candidate: pruning, short-term fine-tune and scores. All executors use it, so all give the same results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from netadapt.errors import NetAdaptError
from netadapt.executors.functions import Functions
from netadapt.executors.jobs import CandidateJob
from netadapt.networks.pretrained import start_encoder
from netadapt.pruning.batch_norm import reestimate
from netadapt.pruning.prune import prune, prune_in_order
from netadapt.pruning.pruner import prune_candidate
from netadapt.runs.models import RunModels
from netadapt.search.types import Result
from netadapt.training.checkpoint import load_weights, save_weights
from netadapt.training.trainer import Progress, score, train


class OutOfMemory(NetAdaptError):
    """The memory of the processor or the GPU did not suffice for a candidate."""


class Evaluator:
    """Evaluates the jobs of one run. It keeps the run's dataset, and the network that candidates start from, between jobs."""

    def __init__(self, models: RunModels) -> None:
        self.models = models
        training = models.run.info.settings.training
        self._functions = (
            Functions.named(training.evaluate, training.fine_tune) if training.evaluate and training.fine_tune else None
        )
        self._start: tuple[object, nn.Module] | None = None

    def __call__(self, job: CandidateJob, progress: Progress | None = None) -> Result:
        """Prune, train and score the candidate, and save its weights in the run folder before its result is returned.

        `OutOfMemory` where memory does not suffice, and any `ToolError` of training, data, files and the user's functions.
        """
        with _threads(job.threads), _memory_errors(job):
            model = self._model(job)
            if self._functions is not None:
                if steps := job.training.steps if job.training is not None else None:
                    self._functions.train(model, steps, job.seed)
                save_weights(model, self.models.run.weights_path(job.weights))
                accuracy, metrics = self._functions.score(model)
                return Result(job.candidate, accuracy, job.weights, metrics)
            if job.training is not None:
                train(model, self.models.dataset.train, job.training, seed=job.seed, progress=progress)
            save_weights(model, self.models.run.weights_path(job.weights))
            scores = score(model, self.models.dataset.holdout)
            return Result(job.candidate, scores.accuracy, job.weights, scores.metrics)

    def _model(self, job: CandidateJob) -> nn.Module:
        """The network before its training, at the candidate's widths."""
        if job.start_weights is None:
            with torch.random.fork_rng():
                torch.manual_seed(job.seed)
                model = self.models.options.build()
            if job.partial_weights is not None and job.partial_weights.endswith(".npz"):
                start_encoder(model, Path(job.partial_weights), self.models.dataset.train)
            elif job.partial_weights is not None:
                load_weights(model, Path(job.partial_weights), headless=True)
            return model
        widths = self.models.run.graph.widths if job.start_widths is None else job.start_widths
        start = self._loaded(job.start_weights, widths)
        graph = self.models.graph(widths)
        if job.sliced and (supernet := self.models.run.info.supernet) is not None:
            narrow = prune_in_order(start, graph, job.candidate.widths, supernet.order)
            reestimate(narrow, self.models.dataset.train, job.pruning.bn_recalibration_batches, job.seed)
            return narrow
        if dict(widths) == dict(job.candidate.widths):  # the original network, or a candidate that continues from its last rung
            return prune(start, graph, job.candidate.widths)
        if self._functions is not None:  # whose images only they know
            return prune(start, graph, job.candidate.widths, job.pruning.importance)
        return prune_candidate(start, graph, job.candidate.widths, job.pruning, self.models.dataset.train, job.seed)

    def _loaded(self, weights: str, widths: Mapping[str, int]) -> nn.Module:
        """The network in this file, which is loaded again only for another file: all candidates of an iteration share it."""
        stat = Path(weights).stat() if Path(weights).exists() else None
        # a rung replaces the candidate's own weights under the same name
        key = weights, stat and (stat.st_mtime_ns, stat.st_ino, stat.st_size), widths
        if self._start is None or self._start[0] != key:
            model = self.models.shaped(widths)
            load_weights(model, Path(weights))
            self._start = key, model.eval()
        return self._start[1]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads inside the with statement."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _memory_errors(job: CandidateJob) -> Iterator[None]:
    """Turn the various errors for a lack of memory into `OutOfMemory`."""
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        # torch has a class for the memory of a GPU, and a plain RuntimeError with this text for that of the processor
        if not isinstance(exc, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(exc):
            raise
        raise OutOfMemory(f"there is not enough memory for {job.name}; choose a smaller --batch-size or fewer --workers") from exc
