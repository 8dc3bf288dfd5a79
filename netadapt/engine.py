"""The engine that fine-tunes candidates in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from netadapt.candidates import Candidate
from netadapt.checkpoint import load_weights, save_weights
from netadapt.family import Family
from netadapt.loop import Result, Step
from netadapt.narrowing import Narrowing
from netadapt.pretrained import start_encoder
from netadapt.run_folder import weights_name
from netadapt.tasks import scores_text
from netadapt.training import TrainSettings, score, train
from profiler.progress import Work


@dataclass(frozen=True, slots=True)
class InProcess:
    """Evaluates candidates for `netadapt.loop.adapt`; every candidate of a run sees the same batches in the same order."""

    family: Family
    original: TrainSettings
    """For a network that comes without weights."""
    short_term: TrainSettings
    seed: int
    progress: Work
    weights: Path | None = None
    """Trained weights of the original network; an .npz file only starts its encoder."""
    narrowing: Narrowing = field(default_factory=Narrowing)

    def __call__(self, parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        if parent is None:
            yield self._result(candidates[0], self._trained_original())
            return
        model = self.family.model(parent, finished=False)
        graph = self.family.graph(parent.widths)
        self.progress.begin(f"iteration {candidates[0].iteration}: fine-tuning {len(candidates)} candidates", len(candidates))
        for candidate in candidates:
            assert candidate.block is not None
            part, width = self.family.dataset.train, candidate.widths[candidate.block]
            narrowed = self.narrowing(model, graph, {candidate.block: width}, part, self.seed)
            train(narrowed, part, self.short_term, seed=self.seed)
            result = self._result(candidate, narrowed)
            said = scores_text(self.family.dataset.task, result.accuracy, result.metrics)
            self.progress.advance(f"{candidate.block} → {candidate.widths[candidate.block]}: {said}")
            yield result

    def _trained_original(self) -> nn.Module:
        torch.manual_seed(self.seed)
        model = self.family.options.build()
        part = self.family.dataset.train
        if self.weights is not None and self.weights.suffix == ".npz":
            start_encoder(model, self.weights, part)
        elif self.weights is not None:
            load_weights(model, self.weights)
            return model.eval()
        self.progress.begin("training the original network", self.original.steps_for(len(part)))
        train(
            model, part, self.original, seed=self.seed, progress=lambda _done, _all, loss: self.progress.advance(f"loss {loss:.3f}")
        )
        return model

    def _result(self, candidate: Candidate, model: nn.Module) -> Result:
        name = weights_name(candidate.iteration, candidate.block)
        save_weights(model, self.family.run.weights_path(name))
        scores = score(model, self.family.dataset.holdout)
        return Result(candidate, scores.accuracy, name, scores.metrics)
