"""Permutation tests for changed layers, with a bounded rate of false discoveries.

Each layer has a few rounds before and a few after. If its latency did not change, the two groups are exchangeable: the distance
between them is compared with the distances after shuffling the rounds. Half a dozen rounds have so few permutations that no single
layer of hundreds could be significant. The distance is therefore divided by the layer's own scatter, which gives one null
distribution for all layers together (Tusher, Tibshirani and Chu, 2001). The procedure of Benjamini and Hochberg (1995) bounds the
expected rate of false discoveries.
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
    """The p-value of each layer, given its rounds before and after in ms; 1 for a layer with too few rounds. Shape (layer,)."""
    found = np.ones(len(pairs))
    places = [place for place, pair in enumerate(pairs) if min(map(len, pair)) >= FEWEST_ROUNDS]
    if not places:
        return found
    seen = [_distances(*pairs[place]) for place in places]
    # added to every scatter, so that one that happens to be tiny does not make a large distance
    floor = float(np.median([spreads[0] for _, spreads in seen])) + 1e-9
    scaled = [np.abs(shifts) / (spreads + floor) for shifts, spreads in seen]
    chance = np.sort(np.concatenate([values[1:] for values in scaled]))
    observed = np.array([values[0] for values in scaled])
    as_far = len(chance) - np.searchsorted(chance, observed * (1 - 1e-9))
    found[places] = (1 + as_far) / (1 + len(chance))
    return found


def q_values(p: Array) -> Array:
    """For each p-value the smallest rate of false discoveries at which it is significant (Benjamini and Hochberg, 1995)."""
    order = np.argsort(p)
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    found = np.empty(len(p))
    found[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return found


def _distances(before: Sequence[float], after: Sequence[float]) -> tuple[Array, Array]:
    """Differences of the log lower quartiles and scatter within the groups, each (1 + SHUFFLES,), the first as measured."""
    values = np.log(np.array([*before, *after]))
    one, two = np.split(values[_orders(len(before), len(after))], [len(before)], axis=1)
    shifts = np.quantile(two, QUARTILE, axis=1) - np.quantile(one, QUARTILE, axis=1)
    return shifts, np.sqrt((one.var(axis=1) + two.var(axis=1)) / 2)


@cache
def _orders(before: int, after: int) -> NDArray[np.int64]:
    """Permutations of shape (1 + SHUFFLES, round), the first one the identity. They depend on the counts only."""
    draws = np.random.default_rng((before, after))
    return np.stack([np.arange(before + after), *(draws.permutation(before + after) for _ in range(SHUFFLES))])
