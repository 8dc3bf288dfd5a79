"""How far a super-network's order of networks can be trusted: its scores against those after a training of their own.

Kendall's rank correlation of the two scores is 1 where both order all pairs of networks alike, and 0 where one says nothing about
the other. Wider networks are mostly better, which needs no super-network to know: the same correlation of multiply-accumulates says
how much of it that explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from netadapt.runs.records import SuperNetworkFacts
from netadapt.supernet.folder import SuperNetworkFolder, TrainedShape, is_supernet


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Kendall's rank correlation (tau-b) with the accuracy after a training of its own, over random shapes."""

    shapes: int
    supernet: float
    """Of the accuracy in the super-network."""
    macs: float
    """Of the multiply-accumulates, for comparison."""
    steps: int
    """The steps of each shape's own training."""
    training: str
    """The stage of that training, with all its settings."""

    @classmethod
    def of(cls, shapes: Sequence[TrainedShape]) -> RankCorrelation | None:
        """None for fewer than two shapes."""
        if len(shapes) < 2:
            return None
        trained = [shape.trained_accuracy for shape in shapes]
        judged, macs = [shape.supernet_accuracy for shape in shapes], [float(shape.macs) for shape in shapes]
        return cls(len(shapes), kendall(judged, trained), kendall(macs, trained), shapes[0].steps, shapes[0].training)

    @property
    def sentence(self) -> str:
        """What people read about it."""
        return (
            f"rank correlation (Kendall) of the accuracy in the super-network with that after {self.steps} training steps from "
            f"random weights, of {self.shapes} random shapes: {self.supernet:.2f}; "
            f"of the multiply-accumulates alone: {self.macs:.2f}"
        )


def kendall(ones: Sequence[float], others: Sequence[float]) -> float:
    """Kendall's tau-b of paired values, which corrects for ties; 0 where all of one side are equal."""
    difference, pairs_of_ones, pairs_of_others = 0, 0, 0
    for (one, other), (one_after, other_after) in combinations(zip(ones, others, strict=True), 2):
        first, second = (one > one_after) - (one < one_after), (other > other_after) - (other < other_after)
        difference += first * second
        pairs_of_ones += first != 0
        pairs_of_others += second != 0
    return difference / math.sqrt(pairs_of_ones * pairs_of_others) if pairs_of_ones and pairs_of_others else 0.0


def trust_in(supernet: SuperNetworkFacts) -> str:
    """What is known of the super-network of a run, as far as its folder is still there: a sentence without its end."""
    path = Path(supernet.path)
    if not is_supernet(path):
        return f"{path} is not there any more"
    with SuperNetworkFolder.open(path) as folder:
        if folder.trained is None or folder.sha256 != supernet.sha256:
            return f"{path} is another by now"
        found = RankCorrelation.of(folder.shapes)
    return found.sentence if found else f"not compared with trained networks yet: `netadapt supernet-check {path}` does"
