"""Which of many layers changed, and which only look it: a permutation test on their rounds, with the false discoveries bounded.

Each layer was seen in a few rounds before and a few after. If nothing changed, it does not matter which round is called which: so
the rounds are shuffled, and how far apart the two halves then lie shows what chance does. Half a dozen rounds can be shuffled in so
few ways that a lone layer could never stand out among hundreds; the distance is therefore taken in units of the layer's own
scatter, so that what chance does to all layers is one distribution, and every layer is held against all of it (Tusher, Tibshirani
and Chu, 2001). Of those called changed, Benjamini and Hochberg's rule (1995) keeps the expected part of false ones below q.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from profiler.measure.estimate import QUARTILE

Array = NDArray[np.float64]

FEWEST_ROUNDS = 3
SHUFFLES = 400


def p_values(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Array:
    """The probability, for each layer's rounds (ms, before and after), that chance separates them so far; 1 with too few rounds."""
    found = np.ones(len(pairs))
    places = [place for place, pair in enumerate(pairs) if min(map(len, pair)) >= FEWEST_ROUNDS]
    if not places:
        return found
    seen = [_distances(*pairs[place]) for place in places]
    # one scale for all, below which a scatter that happens to be tiny does not make a large distance
    floor = float(np.median([spreads[0] for _, spreads in seen])) + 1e-9
    scaled = [np.abs(shifts) / (spreads + floor) for shifts, spreads in seen]
    chance = np.sort(np.concatenate([values[1:] for values in scaled]))
    observed = np.array([values[0] for values in scaled])
    as_far = len(chance) - np.searchsorted(chance, observed * (1 - 1e-9))
    found[places] = (1 + as_far) / (1 + len(chance))
    return found


def q_values(p: Array) -> Array:
    """The false discovery rate at which each layer would just count as changed (Benjamini and Hochberg, 1995)."""
    order = np.argsort(p)
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    found = np.empty(len(p))
    found[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return found


def _distances(before: Sequence[float], after: Sequence[float]) -> tuple[Array, Array]:
    """(1 + SHUFFLES,) shifts of the lower quartile, as logarithms, and scatter within the halves; the first as measured."""
    values = np.log(np.array([*before, *after]))
    one, two = np.split(values[_orders(len(before), len(after))], [len(before)], axis=1)
    shifts = np.quantile(two, QUARTILE, axis=1) - np.quantile(one, QUARTILE, axis=1)
    return shifts, np.sqrt((one.var(axis=1) + two.var(axis=1)) / 2)


@cache
def _orders(before: int, after: int) -> NDArray[np.int64]:
    """The same for every layer of so many rounds, so that two tables always compare alike."""
    draws = np.random.default_rng((before, after))
    return np.stack([np.arange(before + after), *(draws.permutation(before + after) for _ in range(SHUFFLES))])
