"""The candidates of one iteration: for each block, the network with the largest width of it that meets the targets.

Only widths and prices are known here, and no weights. A price is always that of the whole network, as a narrower block makes the
layers that read it cheaper too. There may be several resources, each with a target of its own; a candidate meets them all. If no
block alone can meet them, `netadapt.search.joining` prunes several.
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
"""Resources by the names of their budgets; `Pruned.price` is the price of the first."""
Amounts = Mapping[str, float]
"""Prices or targets by the names of budgets, each in its resource's unit."""
Pricers = Mapping[str, WidthPricer]
"""Pricers of one network by the names of budgets, for the resources that price many widths at once."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A part of the short-term fine-tune, after which successive halving drops the worse candidates.

    The evaluation trains the candidate from `start` to `end`. Each rung's weights have a file of their own,
    `netadapt.runs.run_folder.weights_name(iteration, block, rung.name)`, as a rung may have to be run again after a kill.
    """

    number: int
    """The number of the rung, counted from 0."""
    start: float
    """The fraction of the short-term steps before this rung."""
    end: float
    """The fraction of the short-term steps at its end."""
    weights: str | None = None
    """The file of the previous rung's weights, in the run's folder of weights; None to begin by pruning the parent's."""

    @property
    def name(self) -> str:
        """The part of the name of its weights that distinguishes them from other rungs'."""
        return f"rung{self.number}"

    def steps(self, short_term_steps: int) -> int:
        """The number of steps in this rung; those of all rungs add up to `short_term_steps`."""
        return round(self.end * short_term_steps) - round(self.start * short_term_steps)


class Pruned:
    """The part that candidates and steps share: the blocks that were pruned, and prices."""

    __slots__ = ()
    blocks: tuple[str, ...]
    prices: Mapping[str, float]

    @property
    def block(self) -> str | None:
        """The first of the blocks, which is unique among the candidates of an iteration, unless they are samples; None for the
        original network."""
        return self.blocks[0] if self.blocks else None

    @property
    def price(self) -> float:
        """The price of the first resource, in its unit."""
        return next(iter(self.prices.values()))


@dataclass(frozen=True, slots=True)
class Candidate(Pruned):
    """A network of one iteration before it is fine-tuned; the paper calls it a proposal."""

    iteration: int
    widths: Mapping[str, int]
    """The width of every block, in channels."""
    prices: Mapping[str, float]
    """The price of every resource, by its budget's name."""
    blocks: tuple[str, ...] = ()
    """The blocks that are narrower than in the network it comes from; none in the original network."""
    rung: Rung | None = None
    """The part of the short-term fine-tune to do; None for all of it."""
    sample: int | None = None
    """The number of the sample, of which several may narrow the same blocks; None for a search that draws none."""

    @property
    def key(self) -> tuple[str | None, int | None]:
        """What distinguishes it from the other candidates of its iteration."""
        return self.block, self.sample

    @property
    def part(self) -> str:
        """The part of the name of its weights that distinguishes them from others that have the same first block."""
        if self.rung is not None:
            return self.rung.name
        return "" if self.sample is None else f"sample{self.sample:03d}"


class NarrowedNetwork:
    """A network with one block at a smaller width. It is built, and priced, when it is first asked for.

    `network` and the prices raise `LayerError` if one of the layers cannot have that width.
    """

    def __init__(self, graph: Graph, block: str, width: int, resources: Resources, known: Mapping[str, float]) -> None:
        """`known` are prices that a `WidthPricer` gave, NaN where it had none."""
        self._graph, self._resources, self.block, self.width = graph, resources, block, width
        self._prices = {name: float(price) for name, price in known.items() if not math.isnan(price)}

    @cached_property
    def network(self) -> Graph:
        """The graph of the narrower network."""
        return self._graph.at_widths({self.block: self.width})

    def price(self, name: str) -> float:
        """The price for the budget of this name."""
        if name not in self._prices:
            self._prices[name] = self._resources[name].price(self.network)
        return self._prices[name]

    @property
    def prices(self) -> dict[str, float]:
        """The price of every resource, by its budget's name."""
        return {name: self.price(name) for name in self._resources}

    def meets(self, targets: Amounts) -> bool:
        """True if every price is within its target; after the first that is not, no other price is computed."""
        return all(self.price(name) <= target for name, target in targets.items())


def narrower_widths(width: int, width_step: int = 8, min_width: int = 8) -> range:
    """The multiples of `width_step` from `min_width` to below `width`, the largest first."""
    return range((width - 1) // width_step * width_step, min_width - 1, -width_step)


def pricers_of(graph: Graph, resources: Resources) -> Pricers:
    """The pricers of a network, which are made once and used for all its blocks."""
    return {name: resource.pricer(graph) for name, resource in resources.items() if isinstance(resource, PricesMany)}


def narrowed_networks(
    graph: Graph, block: str, resources: Resources, pricers: Pricers, width_step: int = 8, min_width: int = 8
) -> Iterator[NarrowedNetwork]:
    """The network with this block at each smaller width, the largest first.

    Some of the widths may be impossible, as for grouped convolutions: their network and prices raise `LayerError`.
    """
    choices = narrower_widths(graph.widths[block], width_step, min_width)
    many = {name: pricer.prices(block, choices) for name, pricer in pricers.items()} if choices else {}
    for place, width in enumerate(choices):
        yield NarrowedNetwork(graph, block, width, resources, {name: found[place] for name, found in many.items()})


def propose(
    graph: Graph, block: str, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8,
    *, iteration: int = 0, pricers: Pricers | None = None,
) -> Candidate | None:  # fmt: skip
    """The candidate with the largest width of this block that meets the targets; None if no width does.

    Latency over width is a staircase and may even rise for smaller widths, so widths are tried one by one, the largest first.
    `pricers` are those of the network, if they are made already.
    """
    pricers = pricers_of(graph, resources) if pricers is None else pricers
    for narrowed in narrowed_networks(graph, block, resources, pricers, width_step, min_width):
        try:
            if narrowed.meets(targets):
                return Candidate(iteration, {**graph.widths, block: narrowed.width}, narrowed.prices, (block,))
        except LayerError:
            continue
    return None


def propose_all(
    graph: Graph, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8, *, iteration: int = 0
) -> tuple[Candidate, ...]:
    """A candidate for each block that can meet the targets alone, in the order of the network's blocks."""
    pricers = pricers_of(graph, resources)
    found = (
        propose(graph, block, resources, targets, width_step, min_width, iteration=iteration, pricers=pricers)
        for block in graph.widths
    )
    return tuple(candidate for candidate in found if candidate is not None)


def largest_share(graph: Graph, resources: Resources, targets: Amounts, width_step: int = 8, min_width: int = 8) -> float:
    """The largest share of the reductions to all targets that pruning a single block brings: 1 for all, 0 if none helps.

    The share of several reductions is the smallest among them. A network that breaks a target that is met now counts as 0.
    """
    now = prices_of(graph, resources)
    reductions = {name: now[name] - target for name, target in targets.items() if now[name] > target}
    met = {name: target for name, target in targets.items() if name not in reductions}
    best, pricers = 0.0, pricers_of(graph, resources)
    for block in graph.widths:
        for narrowed in narrowed_networks(graph, block, resources, pricers, width_step, min_width):
            try:
                if narrowed.meets(met):
                    shares = [(now[name] - narrowed.price(name)) / reduction for name, reduction in reductions.items()]
                    best = max(best, min(shares, default=1.0))
            except LayerError:
                continue
    return best


def prices_of(graph: Graph, resources: Resources) -> dict[str, float]:
    """The network's price for every resource, by its budget's name."""
    return {name: resource.price(graph) for name, resource in resources.items()}


def narrowest(graph: Graph, width_step: int = 8, min_width: int = 8) -> Graph:
    """The network without all branches that can be removed, and with every other block at its smallest possible width.

    No budget below its prices can be reached.
    """
    graph = graph.at_widths({branch.blocks[0]: 0 for branch in graph.branches})
    for block in graph.widths:
        for width in reversed(narrower_widths(graph.widths[block], width_step, min_width)):
            try:
                graph = graph.at_widths({block: width})
            except LayerError:
                continue  # a layer cannot have this width; it may have the next larger one
            break
    return graph
