"""Jobs: everything that the evaluation of one candidate depends on, in a form that JSON can carry to any worker."""

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
    """The evaluation of a candidate: a network is pruned to its widths, trained, scored on the holdout and saved."""

    run: str
    """The path of the run's folder, which records the network and the dataset."""
    candidate: Candidate
    weights: str
    """The file that the candidate's weights are saved to: a name in the run's folder of weights."""
    seed: int
    threads: int
    """The number of torch's threads. It is a setting of the run and not of the executor, because sums differ with it in their last
    bits."""
    training: TrainSettings | None = None
    """The settings of the training; None scores the network as it is."""
    start_weights: str | None = None
    """The file of weights to start from: the parent's, or the candidate's own, which are then trained further. None starts from
    random weights."""
    start_widths: Mapping[str, int] | None = None
    """The widths of the network in that file; None stands for the original's."""
    partial_weights: str | None = None
    """A file of weights for a part of a network that starts from random weights: an .npz file of its first layers, or a checkpoint
    that lacks its head."""
    pruning: PruningSettings = field(default_factory=PruningSettings)
    sliced: bool = False
    """True to slice the candidate out of the run's super-network, whose weights are those to start from."""

    @property
    def name(self) -> str:
        """The name of the job for people, such as `stem → 24`."""
        blocks = self.candidate.blocks
        return " + ".join(f"{block} → {self.candidate.widths[block] or 'removed'}" for block in blocks) or "the original network"


@dataclass(frozen=True, slots=True)
class CandidateJobs:
    """The jobs of a run. All its candidates are trained on the same batches in the same order."""

    models: RunModels
    original: TrainSettings
    """The settings of the original network's training, if it is given without weights."""
    short_term: TrainSettings
    """The settings of a candidate's short-term fine-tune."""
    seed: int
    threads: int = 1
    """The number of torch's threads for each candidate."""
    threads_original: int = 1
    """The number of torch's threads for the original network, which is trained alone."""
    given_weights: Path | None = None
    """The file of the original network's trained weights."""
    given_part: bool = False
    """True if that file has weights for a part of the network only, which is then trained."""
    pruning: PruningSettings = field(default_factory=PruningSettings)
    in_supernet: bool = False
    """True if candidates are judged in the run's super-network, without a fine-tune."""

    @classmethod
    def for_run(cls, models: RunModels, given_weights: Path | None = None, *, given_part: bool = False) -> Self:
        """The jobs of a run by its recorded settings."""
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
            given_part,
            settings.pruning,
            settings.search.candidates == "supernet",
        )

    def of(self, parent: Step | None, candidates: Sequence[Candidate]) -> list[CandidateJob]:
        """One job for each candidate, in their order; without a parent the candidate is the original network."""
        if parent is None:
            return [self._original(candidate) for candidate in candidates]
        return [self._pruned(parent, candidate) for candidate in candidates]

    def _pruned(self, parent: Step, candidate: Candidate) -> CandidateJob:
        """The job of the whole short-term fine-tune or, for a rung, of its share of the steps, on batches of its own.

        In a super-network every candidate is sliced out of the original, which has all widths in it, and is not trained.
        """
        if self.in_supernet:
            weights = str(self.models.run.weights_path(weights_name(0, None)).resolve())
            return CandidateJob(
                self._run, candidate, _name(candidate), self.seed, self.threads, None, weights, pruning=self.pruning, sliced=True
            )
        rung, start, widths, seed = candidate.rung, parent.weights, parent.widths, self.seed
        training: TrainSettings | None = self.short_term
        if rung is not None:
            steps = rung.steps(self.short_term.steps or self.short_term.steps_for(len(self.models.dataset.train)))
            training, seed = replace(self.short_term, epochs=None, steps=steps) if steps else None, seed + rung.number
            if rung.weights is not None:  # the candidate was pruned and trained on the rung before
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
        part, start = (given, None) if self.given_part else (None, given)
        training = None if start else self.original
        return CandidateJob(
            self._run, candidate, _name(candidate), self.seed, self.threads_original, training, start, partial_weights=part
        )

    @property
    def _run(self) -> str:
        return str(self.models.run.path.resolve())


def _name(candidate: Candidate) -> str:
    return weights_name(candidate.iteration, candidate.block, candidate.part)
