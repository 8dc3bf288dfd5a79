"""The importance criteria, by name: which channels of a block stay when it is pruned.

A criterion is a function of a `Block`, the number of positions to keep, and a sample of normalised inputs or None. It
returns the positions to keep, in any order. Without grouped convolutions a position is a channel; with them it is one channel of
each slice of the block, which are kept or removed together. A criterion may also change the weights of the layers that read the
block, so that they compensate for the channels that will be removed. A new criterion is one module and one line in IMPORTANCES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.support.errors import ToolError
from device_agents.support.text import did_you_mean
from netadapt.registry import load

if TYPE_CHECKING:
    from torch import nn

    from netadapt.training.trees import Inputs


@dataclass(frozen=True, slots=True)
class Criterion:
    """The facts of an importance criterion that are known before its module, which needs torch, is imported."""

    address: str
    """The module:function of the criterion, a `Keep`."""
    summary: str
    """A phrase for the help of the command."""
    needs_images: bool = False
    """True if it depends on what layers compute, so that it needs a sample of training images."""


IMPORTANCES: Mapping[str, Criterion] = {
    "l2": Criterion("netadapt.pruning.importance.l2:strongest", "the largest L2 norms of weights stay"),
    "reconstruction": Criterion(
        "netadapt.pruning.importance.reconstruction:reconstructing",
        "the next layers' outputs change least, and these layers are refitted",
        needs_images=True,
    ),
}
DEFAULT = "l2"


class ImportanceError(ToolError):
    """There is no criterion of this name, it lacks images, or it returned something else than positions to keep."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A coupling group that is about to lose channels, in a copy of the model that the criterion may change."""

    model: nn.Module
    name: str
    width: int
    """The number of channels before pruning."""
    members: Sequence[nn.Module]
    """The layers whose outputs are the channels."""
    readers: Mapping[nn.Module, Mapping[int, Sequence[int]]]
    """The layers with weights whose inputs are the channels: for each layer and channel, the indices of its inputs."""
    slices: int = 1
    """The number of equal parts of the width that lose the same positions, because of grouped convolutions."""

    @property
    def positions(self) -> int:
        """The number of positions, each of which is one channel in every slice."""
        return self.width // self.slices

    def channels(self, position: int) -> range:
        """The channels at a position, one in every slice."""
        return range(position, self.width, self.positions)


Keep = Callable[[Block, int, "Inputs | None"], list[int]]
"""A criterion: the positions to keep, of a block, their number and a sample of training examples."""


def check_importance(name: str) -> None:
    """Check, without importing torch, that there is a criterion of this name. `ImportanceError` if there is none."""
    if name not in IMPORTANCES:
        raise ImportanceError(f"there is no importance criterion {name!r}; {did_you_mean(name, IMPORTANCES)}")


def open_importance(name: str) -> Keep:
    """The criterion of this name. `ImportanceError` for an unknown one."""
    check_importance(name)
    keep: Keep = load(IMPORTANCES[name].address)
    return keep
