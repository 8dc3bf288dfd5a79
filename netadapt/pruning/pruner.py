"""The pruning of a candidate before its short-term fine-tune: choosing channels, removing them, and new batch-norm statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from netadapt.pruning.batch_norm import reestimate
from netadapt.pruning.importance import IMPORTANCES
from netadapt.pruning.prune import prune
from netadapt.pruning.settings import PruningSettings
from netadapt.training.trees import Inputs
from netadapt.training.types import Part
from profiler.layers.graph import Graph


def prune_candidate(
    model: nn.Module, graph: Graph, widths: Mapping[str, int], settings: PruningSettings, part: Part, seed: int
) -> nn.Module:
    """A copy of the model, which `graph` was traced from, pruned to these widths; `widths` are channels by block.

    `part` must be the training part, because neither holdout nor test images may influence the network. The seed chooses its
    images. Errors as for `prune`.
    """
    images = sample(part, settings.images, seed) if IMPORTANCES[settings.importance].needs_images else None
    pruned = prune(model, graph, widths, settings.importance, images)
    reestimate(pruned, part, settings.bn_recalibration_batches, seed)
    return pruned


def sample(part: Part, count: int, seed: int) -> Inputs:
    """Normalised inputs, drawn without replacement: `count` of them, or all where the part has fewer."""
    chosen = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
    return part.batch(chosen)[0]
