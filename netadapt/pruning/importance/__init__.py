"""Which channels of a block stay when it is pruned. A new rule is one file and one line in IMPORTANCES.

A rule is a function from a `Block`, the number of positions that are to stay and a sample of images (n, c, h, w), as the network
reads them, to these positions, in any order. Without grouped convolutions a position is a channel. With them it is several
channels, which stay or go together: one of each slice of the block. A rule may change the weights of the layers that read the
block, so that they make up for what goes: the cut comes afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.support.errors import ToolError
from device_agents.support.text import did_you_mean
from netadapt.registry import load

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Criterion:
    """An importance criterion by its name, before its module, which needs torch, is loaded."""

    address: str
    """module:function, a `Keep`."""
    summary: str
    """For the help of the command."""
    needs_images: bool = False
    """It is given a sample of training images, as it depends on what the layers compute."""


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
    """There is no rule of this name, or it lacks what it needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A coupling group that is about to lose channels, in a model of the rule's own."""

    model: nn.Module
    name: str
    width: int
    members: Sequence[nn.Module]
    """The layers that make the channels."""
    readers: Mapping[nn.Module, Mapping[int, Sequence[int]]]
    """The layers with weights that read them: which of its inputs stand for which channel."""
    slices: int = 1
    """Equal parts of the width that lose the same positions, for the sake of grouped convolutions."""

    @property
    def positions(self) -> int:
        return self.width // self.slices

    def channels(self, position: int) -> range:
        """The channels of a position, one in each slice."""
        return range(position, self.width, self.positions)


Keep = Callable[[Block, int, "Tensor | None"], list[int]]


def check_importance(name: str) -> None:
    """`ImportanceError` for an unknown criterion, with the nearest known one; imports no torch."""
    if name not in IMPORTANCES:
        raise ImportanceError(f"there is no rule {name!r} for filters; {did_you_mean(name, IMPORTANCES)}")


def open_importance(name: str) -> Keep:
    """The criterion of this name. `ImportanceError` for an unknown one."""
    check_importance(name)
    keep: Keep = load(IMPORTANCES[name].address)
    return keep
