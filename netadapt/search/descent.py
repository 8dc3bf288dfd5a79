"""Samples of multi-layer coordinate descent (Yang, Liao and Sze, CVPR 2021): networks with several blocks narrower at once.

A sample picks blocks at random, and for each the share by which it shrinks in proportion to the others. Then all of them shrink
together, as little as the targets allow, which look-ups in the tables tell. How a sample is drawn is our choice: of the paper we
only know that several layers change at random such that the reduction is met. Width 0, which removes a branch, is the least of the
widths of its first block, so that depth is chosen as widths are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from netadapt.search.candidates import Amounts, Candidate, Resources, prices_of
from profiler.errors import LayerError
from profiler.layers.channels import nearest, possible_widths
from profiler.layers.graph import Graph

_DRAWS = 3
"""Draws for each sample that is wanted: some miss the targets, and some are drawn before."""
_HALVINGS = 6
"""Bisections of the common factor by which blocks shrink: 64 stages from full widths to the least ones."""


def sample_all(
    graph: Graph, resources: Resources, targets: Amounts, choices: Mapping[str, Sequence[int]], *, samples: int, blocks: int,
    seed: int, iteration: int,
) -> tuple[Candidate, ...]:  # fmt: skip
    """So many samples that meet all targets, or as many as are found, which may be none; each changes at most so many blocks.

    `graph` is the network that is narrowed, `choices` are the widths of each block that may change, in ascending order. The same
    seed and iteration give the same samples. No two have the same widths.
    """
    chance = random.Random(f"{seed} {iteration}")
    narrower = {block: [width for width in widths if width < graph.widths[block]] for block, widths in choices.items()}
    free = [block for block, widths in narrower.items() if widths]
    found: dict[frozenset[tuple[str, int]], Candidate] = {}
    for _ in range(_DRAWS * samples if free else 0):
        chosen = chance.sample(free, min(blocks, len(free)))
        shares = {block: 1 - chance.random() for block in chosen}
        widest = max(shares.values())
        drawn = {block: (share / widest, narrower[block]) for block, share in shares.items()}
        narrow = _least_shrunk(graph, resources, targets, drawn)
        if narrow is not None and (key := frozenset(narrow.widths.items())) not in found:
            found[key] = _sample(graph, narrow, resources, iteration, len(found))
            if len(found) == samples:
                break
    return tuple(found.values())


def shrink_all(
    graph: Graph, resources: Resources, targets: Amounts, choices: Mapping[str, Sequence[int]], *, iteration: int
) -> tuple[Candidate, ...]:
    """The sample that narrows all blocks in proportion, as little as the targets allow; () if the least widths miss them."""
    narrower = {block: [width for width in widths if width < graph.widths[block]] for block, widths in choices.items()}
    drawn = {block: (1.0, widths) for block, widths in narrower.items() if widths}
    narrow = _least_shrunk(graph, resources, targets, drawn) if drawn else None
    return () if narrow is None else (_sample(graph, narrow, resources, iteration, 0),)


def _sample(graph: Graph, narrow: Graph, resources: Resources, iteration: int, number: int) -> Candidate:
    widths = {block: narrow.widths[block] for block in graph.widths}  # in the network's order, removed blocks too
    changed = tuple(block for block, width in widths.items() if width != graph.widths[block])
    return Candidate(iteration, widths, prices_of(narrow, resources), changed, sample=number)


def possible_choices(graph: Graph, width_step: int, min_width: int) -> dict[str, tuple[int, ...]]:
    """The widths that each block of a network may have: multiples of the step from the least on, and its full width.

    The first block of a branch that can be removed may have 0 too.
    """
    removing = {branch.blocks[0] for branch in graph.branches}
    return {
        block: (0,) * (block in removing) + tuple(width for width in widths if width >= min(min_width, widths[-1]))
        for block, widths in possible_widths(graph, width_step).items()
    }


def _least_shrunk(
    graph: Graph, resources: Resources, targets: Amounts, drawn: Mapping[str, tuple[float, Sequence[int]]]
) -> Graph | None:
    """The network whose blocks shrink by the least common factor that meets the targets; None if the smallest widths miss them.

    `drawn` are a share and the narrower widths of each block: at factor f, from 0 to 1, it has lost f * share of what lies between
    its width and the least one, and at factor 1 the block of share 1 is at its least width.
    """

    present = graph.widths

    def shrunk(factor: float) -> Graph | None:
        widths = {}
        for block, (share, smaller) in drawn.items():
            wanted = present[block] - factor * share * (present[block] - smaller[0])
            widths[block] = nearest((*smaller, present[block]), wanted)
        try:
            narrow = graph.at_widths(widths)
            met = all(resource.price(narrow) <= targets[name] for name, resource in resources.items())
        except LayerError:
            return None
        return narrow if met else None

    # latency over width is a staircase, so what bisection finds need not be the least factor; it always meets the targets
    best, below, above = shrunk(1.0), 0.0, 1.0
    for _ in range(_HALVINGS if best is not None else 0):
        middle = (below + above) / 2
        narrow = shrunk(middle)
        best, below, above = (best, middle, above) if narrow is None else (narrow, below, middle)
    return best
