"""A job: everything about one candidate's evaluation, in words that JSON can carry to any worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from netadapt.pruning.settings import PruningSettings
from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import weights_name
from netadapt.search.candidates import Candidate
from netadapt.search.types import Step
from netadapt.training.recipe import TrainSettings


@dataclass(frozen=True, slots=True)
class CandidateJob:
    """A candidate and how to get there: its start pruned to its widths, trained, scored on the holdout and kept."""

    run: str
    """The run's folder: the network and the data it was begun with."""
    candidate: Candidate
    weights: str
    """Where the candidate's weights are kept: a file name in the run's folder of weights."""
    seed: int
    threads: int
    """Of torch. Sums come out differently in their last bits with more or fewer, so it belongs to the run, not to the executor."""
    training: TrainSettings | None = None
    """None: scored as it is."""
    start_weights: str | None = None
    """The file to start from: the parent's weights, or the candidate's own to train them on. None: random ones from the seed."""
    start_widths: Mapping[str, int] | None = None
    """Of the network in that file; None: the original's."""
    encoder_weights: str | None = None
    """An .npz file for the first layers of a network that starts from random weights."""
    pruning: PruningSettings = field(default_factory=PruningSettings)

    @property
    def name(self) -> str:
        """What users call it."""
        pruned = self.candidate.blocks
        return " + ".join(f"{block} → {self.candidate.widths[block]}" for block in pruned) or "the original network"


@dataclass(frozen=True, slots=True)
class CandidateJobs:
    """A run's jobs; every candidate of a run sees the same batches in the same order."""

    models: RunModels
    original: TrainSettings
    """For a network that comes without weights."""
    short_term: TrainSettings
    seed: int
    threads: int = 1
    """Of torch, for each candidate."""
    threads_original: int = 1
    """The original is trained alone and may have the whole machine."""
    given_weights: Path | None = None
    """Trained weights of the original network; an .npz file only starts its encoder."""
    pruning: PruningSettings = field(default_factory=PruningSettings)

    @classmethod
    def for_run(cls, models: RunModels, given_weights: Path | None = None) -> Self:
        """The jobs of a run as its settings say."""
        settings = models.run.info.settings
        training = settings.training
        return cls(
            models,
            training.recipe.from_scratch,
            training.recipe.short_term,
            settings.seed,
            training.threads_per_candidate,
            training.threads_original,
            given_weights,
            settings.pruning,
        )

    def of(self, parent: Step | None, candidates: Sequence[Candidate]) -> list[CandidateJob]:
        """What `netadapt.search.loop` asks for, one job for each candidate, in their order."""
        if parent is None:
            return [self._original(candidate) for candidate in candidates]
        return [self._pruned(parent, candidate) for candidate in candidates]

    def _pruned(self, parent: Step, candidate: Candidate) -> CandidateJob:
        """The whole short-term fine-tune, or a rung's stretch of it, on batches that no rung before had."""
        rung, start, widths, seed = candidate.rung, parent.weights, parent.widths, self.seed
        training: TrainSettings | None = self.short_term
        if rung is not None:
            steps = rung.steps(self.short_term.steps_for(len(self.models.dataset.train)))
            training, seed = replace(self.short_term, epochs=None, steps=steps) if steps else None, seed + rung.number
            if rung.weights is not None:
                start, widths = rung.weights, candidate.widths
        return CandidateJob(
            self._run,
            candidate,
            _name(candidate),
            seed,
            self.threads,
            training,
            str(self.models.run.weights_path(start).resolve()),
            widths,
            pruning=self.pruning,
        )

    def _original(self, candidate: Candidate) -> CandidateJob:
        given = str(self.given_weights.resolve()) if self.given_weights else None
        encoder, start = (given, None) if given and given.endswith(".npz") else (None, given)
        training = None if start else self.original
        return CandidateJob(
            self._run, candidate, _name(candidate), self.seed, self.threads_original, training, start, encoder_weights=encoder
        )

    @property
    def _run(self) -> str:
        return str(self.models.run.path.resolve())


def _name(candidate: Candidate) -> str:
    return weights_name(candidate.iteration, candidate.block, candidate.rung.name if candidate.rung else "")
