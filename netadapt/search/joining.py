"""Candidates that prune several blocks at once, for a step that no block alone can bring.

There is one for each block, which begins with it. Then whatever block saves most for the share of its channels that goes is
pruned by one stair, again and again, until every target is met. At the end each block gets back what turned out not to be needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from netadapt.search.candidates import Amounts, Candidate, Pricers, Resources, narrower, offers, pricers_of, prices_of, propose
from profiler.errors import LayerError
from profiler.layers.graph import Graph


def join_all(
    graph: Graph, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8, *, iteration: int = 0
) -> tuple[Candidate, ...]:
    """In the order of the blocks they begin with, of which those that are not needed begin none; of equal networks the first."""
    joining = Joining(graph, resources, targets, width_step, min_width)
    made = {block: joining.candidate(block, iteration) for block in graph.widths}
    found: list[Candidate] = []
    for block, candidate in made.items():
        if candidate and candidate.block == block and all(candidate.widths != other.widths for other in found):
            found.append(candidate)
    return tuple(found or [candidate for candidate in made.values() if candidate][:1])


class Joining:
    """One iteration's network and the targets it has to meet."""

    def __init__(self, graph: Graph, resources: Resources, targets: Amounts, width_step: int, min_width: int) -> None:
        self.graph, self.resources, self.targets = graph, resources, targets
        self.widths = width_step, min_width
        self._now = prices_of(graph, resources)
        self._pricers = pricers_of(graph, resources)

    def candidate(self, first: str, iteration: int) -> Candidate | None:
        """The one that begins with this block; None if it cannot, or all blocks together cannot meet the targets."""
        moved = self._move(self.graph, first, self._left(self.graph), self._pricers)
        graph = moved[0] if moved else self._one_step(self.graph, [first])
        while graph is not None and (left := self._left(graph)) > 0:
            graph = self._best_move(graph, left) or self._one_step(graph, graph.widths)
        if graph is None:
            return None
        graph = self._given_back(graph, first)
        changed = [block for block, width in graph.widths.items() if width != self.graph.widths[block]]
        blocks = sorted(changed, key=lambda block: block != first)  # `first` in front, if it is still among them
        return Candidate(iteration, graph.widths, prices_of(graph, self.resources), tuple(blocks))

    def _left(self, graph: Graph) -> float:
        return self._above(prices_of(graph, self.resources))

    def _above(self, prices: Amounts) -> float:
        """How far prices are above their targets, each as a fraction of its present price, summed."""
        return sum(max(0.0, prices[name] - target) / self._now[name] for name, target in self.targets.items())

    def _best_move(self, graph: Graph, before: float) -> Graph | None:
        """The move that saves most for the share of the block's channels that goes."""
        best, chosen, pricers = 0.0, None, pricers_of(graph, self.resources)
        for block, width in graph.widths.items():
            moved = self._move(graph, block, before, pricers)
            if moved is not None:
                narrower_graph, after = moved
                score = (before - after) / (1 - narrower_graph.widths[block] / width)
                if score > best:
                    best, chosen = score, narrower_graph
        return chosen

    def _move(self, graph: Graph, block: str, before: float, pricers: Pricers) -> tuple[Graph, float] | None:
        """The network with this block one stair narrower, the widest choice that saves anything, and what is left to save."""
        for offer in offers(graph, block, self.resources, pricers, *self.widths):
            try:
                after = self._above(offer.prices)
                if after < before:
                    return offer.network, after
            except LayerError:
                continue
        return None

    def _one_step(self, graph: Graph, blocks: Iterable[str]) -> Graph | None:
        """All these blocks narrower at once, where none alone saves anything: two tensors of the same size are the peak, say."""
        pruned = graph
        for block in blocks:
            for width in narrower(pruned.widths[block], *self.widths):
                try:
                    pruned = pruned.at_widths({block: width})
                except LayerError:
                    continue
                break
        return None if pruned.widths == graph.widths else pruned

    def _given_back(self, graph: Graph, first: str) -> Graph:
        """Every block as wide as the targets let it be, the others being what they are; `first` is the last to get back."""
        for block in [*(name for name in graph.widths if name != first), first]:
            if graph.widths[block] == self.graph.widths[block]:
                continue
            full = graph.at_widths({block: self.graph.widths[block]})
            if self._left(full) <= 0:
                graph = full
                continue
            found = propose(full, block, self.resources, self.targets, *self.widths)
            if found is not None:
                graph = graph.at_widths({block: found.widths[block]})
        return graph
