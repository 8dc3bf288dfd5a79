"""Candidates of one iteration: for every block, the widest it can stay if it alone has to bring the network to the target.

Widths and prices only; no weights. A narrower block makes the layers that read it cheaper too: the price is always that of
the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netadapt.resources import PricesMany, Resource
from profiler.errors import LayerError
from profiler.graph import Graph


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network of one iteration before it is fine-tuned (the paper: proposal)."""

    iteration: int
    block: str | None
    """The only block that is narrower than in the network it comes from; None for the original network."""
    widths: Mapping[str, int]
    """Of every block."""
    price: float


def narrower(width: int, width_step: int = 8, min_width: int = 8) -> range:
    """The multiples of `width_step` below a width, the widest first, down to `min_width`."""
    return range((width - 1) // width_step * width_step, min_width - 1, -width_step)


def prices(
    graph: Graph, block: str, resource: Resource, width_step: int = 8, min_width: int = 8
) -> Iterator[tuple[Mapping[str, int], float]]:
    """Widths and price of the network with this block ever narrower, one after the other, priced when asked for."""
    choices = narrower(graph.widths[block], width_step, min_width)
    known = resource.prices(graph, block, choices) if isinstance(resource, PricesMany) and choices else [math.nan] * len(choices)
    for width, price in zip(choices, known, strict=True):
        if not math.isnan(price):
            yield {**graph.widths, block: width}, float(price)
            continue
        try:
            narrow = graph.at_widths({block: width})
        except LayerError:
            continue  # a grouped convolution or a layer cut out of a file cannot follow to this width
        yield narrow.widths, resource.price(narrow)


def propose(
    graph: Graph, block: str, resource: Resource, target: float, width_step: int = 8, min_width: int = 8, *, iteration: int = 0
) -> Candidate | None:
    """The widest choice for this block whose network meets the target, None if there is none.

    Latency against width is a staircase and not always falling, so every width is asked for, from the widest downwards.
    """
    for widths, price in prices(graph, block, resource, width_step, min_width):
        if price <= target:
            return Candidate(iteration, block, widths, price)
    return None


def propose_all(
    graph: Graph, resource: Resource, target: float, width_step: int = 8, min_width: int = 8, *, iteration: int = 0
) -> tuple[Candidate, ...]:
    """A candidate for each block that can meet the target alone, in the order of the network."""
    found = (propose(graph, block, resource, target, width_step, min_width, iteration=iteration) for block in graph.widths)
    return tuple(candidate for candidate in found if candidate is not None)


def lowest_price(graph: Graph, resource: Resource, width_step: int = 8, min_width: int = 8) -> float | None:
    """The lowest price that narrowing one single block can bring; None if no block can be narrowed."""
    found = (price for block in graph.widths for _, price in prices(graph, block, resource, width_step, min_width))
    return min(found, default=None)


def smallest_price(graph: Graph, resource: Resource, width_step: int = 8, min_width: int = 8) -> float:
    """The price with every block as narrow as it may become: no budget below it can be reached."""
    for block in graph.widths:
        for width in reversed(narrower(graph.widths[block], width_step, min_width)):
            try:
                graph = graph.at_widths({block: width})
            except LayerError:
                continue  # cannot follow to this width; the next wider one may do
            break
    return resource.price(graph)
