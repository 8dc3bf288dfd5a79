"""How a candidate comes to be before it is fine-tuned: filters chosen, the cut, batch normalisation's statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from netadapt.errors import SettingsError
from netadapt.pruning.batch_norm import reestimate
from netadapt.pruning.importance import DEFAULT, open_importance
from netadapt.pruning.prune import prune
from netadapt.training.types import Part
from profiler.layers.graph import Graph


@dataclass(frozen=True, slots=True)
class Pruner:
    """`SettingsError` for a number that makes no sense, `ImportanceError` for an unknown rule."""

    importance: str = DEFAULT
    """Of netadapt.pruning.importance.IMPORTANCES."""
    batch_norm_batches: int = 0
    """From how many batches of 64 the statistics are counted anew; 0 leaves them."""
    images: int = 256
    """Of the training part, for rules that look at what layers compute."""

    def __post_init__(self) -> None:
        open_importance(self.importance)
        if self.batch_norm_batches < 0:
            raise SettingsError(f"--bn-recalibration-batches is a number of batches, 0 for none, got {self.batch_norm_batches}")
        if self.images < 1:
            raise SettingsError(f"importance are chosen by at least one image, got {self.images}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """As a run with these settings prunes; runs from before there were rules took the norms."""
        return cls(settings.get("importance", DEFAULT), settings.get("bn_recalibration_batches", 0))

    def __call__(self, model: nn.Module, graph: Graph, widths: Mapping[str, int], part: Part, seed: int) -> nn.Module:
        """A narrower copy. `part` is the training part: neither holdout nor test may have a say."""
        images = None if self.importance == "l2" else sample(part, self.images, seed)  # norms need none
        pruned = prune(model, graph, widths, self.importance, images)
        reestimate(pruned, part, self.batch_norm_batches, seed)
        return pruned


def sample(part: Part, count: int, seed: int) -> Tensor:
    """So many images (n, c, h, w), or as many as there are, the same for the same seed."""
    chosen = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
    return part.batch(chosen)[0]
