"""Candidates of one iteration: for every block, the widest it can stay if it alone has to bring the network to the targets.

Widths and prices only; no weights. A narrower block makes the layers that read it cheaper too: a price is always that of the
whole network. There may be several resources, each with a target of its own; a candidate meets them all. Where no block alone
can, `netadapt.search.joining` prunes several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from netadapt.resources import PricesMany, Resource, WidthPricer
from profiler.errors import LayerError
from profiler.layers.graph import Graph

Resources = Mapping[str, Resource]
"""By the names of their budgets; the first is the one that `price` speaks of."""
Amounts = Mapping[str, float]
"""Prices or targets, by the same names."""
Pricers = Mapping[str, WidthPricer]
"""Of one network, by the same names, for the resources that price every width of a block at once."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A stretch of the short-term fine-tune, where clear losers are dropped between stretches (successive halving).

    The evaluation trains the candidate from `start` to `end` of the short-term steps, both as fractions of them: it goes on from
    `weights`, or prunes the parent's where there are none. Each rung's weights go into a file of their own, as the rung may have
    to be run again after a kill: `netadapt.runs.run_folder.weights_name(iteration, block, rung.name)`.
    """

    number: int
    start: float
    end: float
    weights: str | None = None

    @property
    def name(self) -> str:
        return f"rung{self.number}"

    def steps(self, short_term_steps: int) -> int:
        """How many steps lie in this stretch; those of all rungs add up to all."""
        return round(self.end * short_term_steps) - round(self.start * short_term_steps)


class Pruned:
    """What a candidate and a step have in common: blocks that were pruned, and prices."""

    __slots__ = ()
    blocks: tuple[str, ...]
    prices: Mapping[str, float]

    @property
    def block(self) -> str | None:
        """The first of the blocks, which tells the candidates of an iteration apart; None for the original network."""
        return self.blocks[0] if self.blocks else None

    @property
    def price(self) -> float:
        """Of the first resource."""
        return next(iter(self.prices.values()))


@dataclass(frozen=True, slots=True)
class Candidate(Pruned):
    """A network of one iteration before it is fine-tuned (the paper: proposal)."""

    iteration: int
    widths: Mapping[str, int]
    """Of every block."""
    prices: Mapping[str, float]
    """Of every resource, by its budget's name."""
    blocks: tuple[str, ...] = ()
    """What is narrower than in the network it comes from; nothing in the original network."""
    rung: Rung | None = None
    """None to fine-tune it in one go."""


class Offer:
    """A network with one block narrower, priced when a price is asked for. `LayerError` from either if a layer cannot follow."""

    def __init__(self, graph: Graph, block: str, width: int, resources: Resources, known: Mapping[str, float]) -> None:
        self._graph, self._resources, self.block, self.width = graph, resources, block, width
        self._prices = {name: float(price) for name, price in known.items() if not math.isnan(price)}

    @cached_property
    def network(self) -> Graph:
        return self._graph.at_widths({self.block: self.width})

    def price(self, name: str) -> float:
        if name not in self._prices:
            self._prices[name] = self._resources[name].price(self.network)
        return self._prices[name]

    @property
    def prices(self) -> dict[str, float]:
        return {name: self.price(name) for name in self._resources}

    def meets(self, targets: Amounts) -> bool:
        """Resources are asked in order, and no further than the first whose target is missed."""
        return all(self.price(name) <= target for name, target in targets.items())


def narrower(width: int, width_step: int = 8, min_width: int = 8) -> range:
    """The multiples of `width_step` below a width, the widest first, down to `min_width`."""
    return range((width - 1) // width_step * width_step, min_width - 1, -width_step)


def pricers_of(graph: Graph, resources: Resources) -> Pricers:
    """Made once for a network, and used for all its blocks."""
    return {name: resource.pricer(graph) for name, resource in resources.items() if isinstance(resource, PricesMany)}


def offers(
    graph: Graph, block: str, resources: Resources, pricers: Pricers, width_step: int = 8, min_width: int = 8
) -> Iterator[Offer]:
    """The network with this block ever narrower. Grouped convolutions follow to some of these widths only; see `Offer`."""
    choices = narrower(graph.widths[block], width_step, min_width)
    many = {name: pricer.prices(block, choices) for name, pricer in pricers.items()} if choices else {}
    for place, width in enumerate(choices):
        yield Offer(graph, block, width, resources, {name: found[place] for name, found in many.items()})


def propose(
    graph: Graph, block: str, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8,
    *, iteration: int = 0, pricers: Pricers | None = None,
) -> Candidate | None:  # fmt: skip
    """The widest choice for this block whose network meets the targets, None if there is none.

    Latency against width is a staircase and not always falling, so every width is asked for, from the widest downwards.
    `pricers` are the network's own, if there are some already.
    """
    pricers = pricers_of(graph, resources) if pricers is None else pricers
    for offer in offers(graph, block, resources, pricers, width_step, min_width):
        try:
            if offer.meets(targets):
                return Candidate(iteration, {**graph.widths, block: offer.width}, offer.prices, (block,))
        except LayerError:
            continue
    return None


def propose_all(
    graph: Graph, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8, *, iteration: int = 0
) -> tuple[Candidate, ...]:
    """A candidate for each block that can meet the targets alone, in the order of the network."""
    pricers = pricers_of(graph, resources)
    found = (
        propose(graph, block, resources, targets, width_step, min_width, iteration=iteration, pricers=pricers)
        for block in graph.widths
    )
    return tuple(candidate for candidate in found if candidate is not None)


def largest_share(graph: Graph, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8) -> float:
    """How much of the way to all targets at once a single block can bring, 1 for all of it; 0 or less where none can gain."""
    now = prices_of(graph, resources)
    ways = {name: now[name] - target for name, target in targets.items() if now[name] > target}

    def share(offer: Offer) -> float:
        if not all(offer.price(name) <= target for name, target in targets.items() if name not in ways):
            return 0.0
        return min(((now[name] - offer.price(name)) / way for name, way in ways.items()), default=1.0)

    best, pricers = 0.0, pricers_of(graph, resources)
    for block in graph.widths:
        for offer in offers(graph, block, resources, pricers, width_step, min_width):
            try:
                best = max(best, share(offer))
            except LayerError:
                continue
    return best


def prices_of(graph: Graph, resources: Resources) -> dict[str, float]:
    return {name: resource.price(graph) for name, resource in resources.items()}


def narrowest(graph: Graph, width_step: int = 8, min_width: int = 8) -> Graph:
    """The network with every block as prune as it may become: no budget below its prices can be reached."""
    for block in graph.widths:
        for width in reversed(narrower(graph.widths[block], width_step, min_width)):
            try:
                graph = graph.at_widths({block: width})
            except LayerError:
                continue  # cannot follow to this width; the next wider one may do
            break
    return graph
