"""Candidates that prune several blocks at once, for a reduction that no block alone can bring.

A greedy search makes one candidate for each block, which it prunes first. Until every target is met, it then prunes the block that
saves most for the share of its channels that is removed, each time by one stair of the price's staircase. At the end each block is
widened as far as the targets allow.
"""

from __future__ import annotations

from collections.abc import Iterable

from netadapt.search.candidates import (
    Amounts,
    Candidate,
    Pricers,
    Resources,
    narrowed_networks,
    narrower_widths,
    pricers_of,
    prices_of,
    propose,
)
from profiler.errors import LayerError
from profiler.layers.graph import Graph


def join_all(
    graph: Graph, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8, *, iteration: int = 0
) -> tuple[Candidate, ...]:
    """The candidates in the order of their first blocks; empty if all blocks together cannot meet the targets.

    Of equal networks only the first is kept. A candidate whose first block is widened back completely is left out, as a block names
    one candidate only; if that leaves none, the first of them is kept.
    """
    joining = Joining(graph, resources, targets, width_step, min_width)
    made = {block: joining.candidate(block, iteration) for block in graph.widths}
    found: list[Candidate] = []
    for block, candidate in made.items():
        if candidate and candidate.block == block and all(candidate.widths != other.widths for other in found):
            found.append(candidate)
    return tuple(found or [candidate for candidate in made.values() if candidate][:1])


class Joining:
    """The greedy search from one iteration's network to its targets."""

    def __init__(self, graph: Graph, resources: Resources, targets: Amounts, width_step: int, min_width: int) -> None:
        self.graph, self.resources, self.targets = graph, resources, targets
        self.widths = width_step, min_width
        self._now = prices_of(graph, resources)
        self._pricers = pricers_of(graph, resources)

    def candidate(self, first: str, iteration: int) -> Candidate | None:
        """The candidate that prunes this block first; None if it cannot be pruned, or all blocks together miss the targets."""
        moved = self._one_stair(self.graph, first, self._excess(prices_of(self.graph, self.resources)), self._pricers)
        graph = moved[0] if moved else self._all_narrower(self.graph, [first])
        while graph is not None and (excess := self._excess(prices_of(graph, self.resources))) > 0:
            # where no block alone saves anything, all become narrower: the peak of memory may be two tensors of the same size
            graph = self._best_stair(graph, excess) or self._all_narrower(graph, graph.widths)
        if graph is None:
            return None
        graph = self._widened(graph, first)
        changed = [block for block, width in graph.widths.items() if width != self.graph.widths[block]]
        blocks = sorted(changed, key=lambda block: block != first)  # `first` in front, if it is still among them
        return Candidate(iteration, graph.widths, prices_of(graph, self.resources), tuple(blocks))

    def _excess(self, prices: Amounts) -> float:
        """The sum over resources of how far a price is above its target, as a fraction of the iteration's initial price."""
        return sum(max(0.0, prices[name] - target) / self._now[name] for name, target in self.targets.items())

    def _best_stair(self, graph: Graph, before: float) -> Graph | None:
        """The network after the stair that reduces the excess `before` most for the share of the block's channels it removes."""
        best, chosen, pricers = 0.0, None, pricers_of(graph, self.resources)
        for block, width in graph.widths.items():
            moved = self._one_stair(graph, block, before, pricers)
            if moved is not None:
                pruned, after = moved
                score = (before - after) / (1 - pruned.widths[block] / width)
                if score > best:
                    best, chosen = score, pruned
        return chosen

    def _one_stair(self, graph: Graph, block: str, before: float, pricers: Pricers) -> tuple[Graph, float] | None:
        """The network with the block at the largest width that reduces the excess `before`, and its excess; None without one."""
        for narrowed in narrowed_networks(graph, block, self.resources, pricers, *self.widths):
            try:
                after = self._excess(narrowed.prices)
                if after < before:
                    return narrowed.network, after
            except LayerError:
                continue
        return None

    def _all_narrower(self, graph: Graph, blocks: Iterable[str]) -> Graph | None:
        """The network with each of these blocks at its next smaller width; None if none of them can be narrower."""
        pruned = graph
        for block in blocks:
            for width in narrower_widths(pruned.widths[block], *self.widths):
                try:
                    pruned = pruned.at_widths({block: width})
                except LayerError:
                    continue
                break
        return None if pruned.widths == graph.widths else pruned

    def _widened(self, graph: Graph, first: str) -> Graph:
        """The network with one block after the other as wide as the targets allow; `first` is the last of them."""
        for block in [*(name for name in graph.widths if name != first), first]:
            if graph.widths[block] == self.graph.widths[block]:
                continue
            full = graph.at_widths({block: self.graph.widths[block]})
            if self._excess(prices_of(full, self.resources)) <= 0:
                graph = full
                continue
            found = propose(full, block, self.resources, self.targets, *self.widths)
            if found is not None:
                graph = graph.at_widths({block: found.widths[block]})
        return graph
