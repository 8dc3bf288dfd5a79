"""The local step of energy-aware pruning (Yang, Chen and Sze, CVPR 2017, https://arxiv.org/abs/1611.05128) for single weights.

Weights of a layer become zero by what its output feature maps lose, and those that stay are fitted to these in closed form. Outputs
are compared with those of the network before the round, while inputs are those of the network as it is pruned by now: a layer makes
up for what the layers before it lost. With A the sum of xxᵀ over the observed inputs x, and b that of xy over the wanted outputs y
of a filter, the best weights are A⁻¹b over those that stay. A and b also hold an observation of each feature with the present
weights, so that few images are not fitted exactly, at the cost of others.

The paper removes the smallest weights and restores, one by one, those that reduce the error most. Here the weights of each
filter go in order of what the error rises by when one is eliminated and the others are fitted again, w² / (A⁻¹)ᵢᵢ (Hassibi and
Stork, 1992), a few at a time. Filters do not depend on each other, so that how far each is followed is decided afterwards, for the
whole layer: as far as costs least. Inputs of more than `MOST_FEATURES` features are divided into parts, which are fitted
independently.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from netadapt.pruning.importance.reconstruction import (
    OBSERVATIONS,
    RIDGE,
    Reader,
    features_of,
    groups_of,
    has_constant,
    matrices,
    store,
)
from netadapt.training.trees import Inputs, each_of, split

MOST_FEATURES = 320
"""32 channels of 3x3 and a constant."""
_TURNS = 32
"""Into so many turns the elimination of all weights of a filter is divided."""
_BATCH = 64
_BYTES = 2**27
"""Of the matrices that are inverted at once."""


@dataclass(slots=True)
class Moments:
    """Sums over the observed inputs of a layer: x as the pruned network gives them, r as the reference does.

    Matrices are of shape (part, features, features), with the parts of the first group first.
    """

    own: Tensor
    """xxᵀ"""
    cross: Tensor
    """xrᵀ"""
    reference: Tensor
    """rrᵀ"""
    sums: Tensor
    """r, of shape (part, features)."""
    count: int


@dataclass(slots=True)
class _Observer:
    """Collects the features of the layer in one network, batch by batch."""

    layer: nn.Module
    per_image: int
    found: list[Tensor] = field(default_factory=list)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        generator = torch.Generator().manual_seed(len(self.found))  # the same places in both networks
        self.found.append(_in_parts(features_of(layer, inputs[0].detach(), self.per_image, generator).double()))


def observed(reference: nn.Module, pruned: nn.Module, name: str, inputs: Inputs) -> Moments | None:
    """The moments of a layer's inputs in both networks, for the same inputs; None if the network never calls it."""
    per_image = max(1, OBSERVATIONS // len(each_of(inputs)[0]))
    observers = [_Observer(model.get_submodule(name), per_image) for model in (pruned, reference)]
    hooks = [observer.layer.register_forward_pre_hook(observer) for observer in observers]
    total: Moments | None = None
    try:
        for batch in split(inputs, _BATCH):
            with torch.no_grad():
                pruned(*batch)
                reference(*batch)
            for given, wanted in zip(*(observer.found for observer in observers), strict=True):
                new = Moments(given.mT @ given, given.mT @ wanted, wanted.mT @ wanted, wanted.sum(dim=1), given.shape[1])
                if total is None:
                    total = new
                    continue
                total.own += new.own
                total.cross += new.cross
                total.reference += new.reference
                total.sums += new.sums
                total.count += new.count
            for observer in observers:
                observer.found.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return total


def eliminate(layer: nn.Module, wanted: nn.Module, moments: Moments, most_error: float) -> float:
    """Set weights of the layer to zero, in place, and fit the others and the bias, until the error would rise by more.

    The error is that of the outputs, against those of the layer `wanted` in the reference, as a share of their variance;
    `most_error` is below 1. Weights that are zero stay so. Returns by how much the error has risen.
    """
    groups, size = groups_of(layer), matrices(layer).shape[2]
    present, target = (_in_parts(matrices(each).double()) for each in (layer, wanted))  # (part, out, features)
    removable = present != 0
    is_constant = _in_parts(torch.zeros(groups, 1, size).index_fill_(2, torch.tensor([size - 1]), float(has_constant(layer))))
    free = is_constant.bool().expand_as(removable)
    removable &= ~free
    if not removable.any():
        return 0.0
    # the present weights count as much as one observation for each feature: few images would be fitted exactly, and others missed
    ridge = max(RIDGE, moments.own.shape[1] / moments.count) * moments.own.diagonal(dim1=1, dim2=2).mean(dim=1) + 1e-12
    own = moments.own + torch.diag_embed(ridge[:, None].expand(-1, moments.own.shape[1]))
    wished = target @ moments.cross.mT
    goal = wished + ridge[:, None, None] * present
    energy = ((target @ moments.reference) * target).sum() - (target @ moments.sums[:, :, None]).square().sum() / moments.count
    scale = max(float(energy), 1e-30)

    def error(weights: Tensor) -> float:
        return float((((weights @ moments.own) - 2 * wished) * weights).sum()) / scale

    followed, costs = _eliminated(own, goal, removable, free)
    # of each filter the weights of its first turns go: those turns of all filters that cost least for what was removed before, too
    dearest = costs.cummax(dim=0).values.flatten()
    order = dearest.sort(stable=True).indices
    affordable = order[costs.flatten()[order].cumsum(dim=0) <= most_error * scale]
    turns = torch.zeros(costs.numel(), dtype=torch.int64).index_fill_(0, affordable, 1).view(costs.shape).sum(dim=0)
    weights = followed.gather(0, turns[None, :, :, None].expand(1, *goal.shape))[0].double()
    whole = _whole(weights, groups, size)
    for group in range(groups):
        store(Reader(layer, torch.empty(0), own, whole[group], group), whole[group])
    return error(weights) - error(followed[0].double())


def _eliminated(own: Tensor, goal: Tensor, removable: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The best weights of each filter after each turn, (turn, part, out, features) with the first before any, and what each costs.

    Costs, (turn, part, out), are infinite where nothing is left to remove.
    """
    size = goal.shape[2]
    few = -(-size // _TURNS)
    count = -(-int(removable.sum(dim=2).max()) // few)
    followed = torch.zeros(count + 1, *goal.shape)
    costs = torch.full((count, *goal.shape[:2]), torch.inf, dtype=torch.float64)
    for part in range(len(own)):
        for some in torch.split(torch.arange(goal.shape[1]), max(1, _BYTES // (8 * size**2))):
            left = removable[part, some]
            stays = (left | free[part, some]).double()
            kinds = stays[:1] if (stays == stays[0]).all() else stays  # in the first round, all filters have the same matrix
            inner = own[part] * kinds[:, :, None] * kinds[:, None, :] + torch.diag_embed(1 - kinds)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(inner)).repeat(len(stays) // len(kinds), 1, 1)
            weights = (inverse @ (goal[part, some] * stays)[:, :, None])[:, :, 0] * stays
            followed[0, part, some] = weights.float()
            for turn in range(count):
                uncertainty = inverse.diagonal(dim1=1, dim2=2).clamp_min(1e-30)
                found = torch.where(left, weights.square() / uncertainty, torch.inf).topk(few, dim=1, largest=False)
                there = found.values < torch.inf
                columns = inverse.gather(2, found.indices[:, None].expand(-1, size, -1)) * there[:, None]
                among = columns.gather(1, found.indices[:, :, None].expand(-1, -1, few)) * there[:, :, None]
                lost = weights.gather(1, found.indices) * there
                right = torch.cat([columns.mT, lost[:, :, None]], dim=2)
                solved = torch.linalg.solve(among + torch.diag_embed((~there).double()), right)
                cost = (lost * solved[:, :, -1]).sum(dim=1)
                costs[turn, part, some] = torch.where(there.any(dim=1), cost, torch.inf)
                inverse -= columns @ solved[:, :, :-1]
                left = left.scatter(1, found.indices, left.gather(1, found.indices) & ~there)
                weights = (weights - (columns @ solved[:, :, -1:])[:, :, 0]) * (left | free[part, some])
                followed[turn + 1, part, some] = weights.float()
    return followed, costs


def _in_parts(features: Tensor) -> Tensor:
    """From (group, n, features) to (part, n, features of a part), the last part of each group filled up with zeros."""
    groups, count, size = features.shape
    parts = -(-size // MOST_FEATURES)
    each = -(-size // parts)
    padded = functional.pad(features, (0, parts * each - size))
    return padded.reshape(groups, count, parts, each).transpose(1, 2).flatten(0, 1)


def _whole(matrix: Tensor, groups: int, size: int) -> Tensor:
    """The inverse of `_in_parts`."""
    return matrix.reshape(groups, -1, *matrix.shape[1:]).transpose(1, 2).flatten(2)[:, :, :size]
