"""How a candidate comes to be before it is fine-tuned: channels chosen, the cut, batch normalisation's statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from netadapt.pruning.batch_norm import reestimate
from netadapt.pruning.importance import IMPORTANCES
from netadapt.pruning.prune import prune
from netadapt.pruning.settings import PruningSettings
from netadapt.training.types import Part
from profiler.layers.graph import Graph


def prune_candidate(
    model: nn.Module, graph: Graph, widths: Mapping[str, int], settings: PruningSettings, part: Part, seed: int
) -> nn.Module:
    """A narrower copy of the model. `part` is the training part: neither holdout nor test images may have a say."""
    images = sample(part, settings.images, seed) if IMPORTANCES[settings.importance].needs_images else None
    pruned = prune(model, graph, widths, settings.importance, images)
    reestimate(pruned, part, settings.bn_recalibration_batches, seed)
    return pruned


def sample(part: Part, count: int, seed: int) -> Tensor:
    """Normalised images (n, c, h, w), drawn without repetition: `count` of them, or as many as there are."""
    chosen = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
    return part.batch(chosen)[0]
