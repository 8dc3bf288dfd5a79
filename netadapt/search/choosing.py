"""The selection of an iteration's winner, and successive halving, which drops candidates before the end of their fine-tune.

Two rules select the winner. `accuracy` takes the most accurate candidate (Yang et al., 2018). `ratio` takes the smallest
(lost accuracy + 1e-6) / (saved price + 1e-5), as the authors' code (https://github.com/denru01/netadapt) and MobileNetV3 do. Prices
are fractions of the initial ones there, so that milliseconds and bytes compare, and the saved price is the mean over the budgets
that are not met yet. Where accuracy was gained, the ratio is negative and prefers small savings: so does the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from netadapt.search.candidates import Amounts, Candidate, Rung
from netadapt.search.types import Result

RUNGS = (0.25, 0.5, 1.0)
"""The fraction of the short-term steps at the end of each rung; the better half of the candidates goes on to the next."""
# of the rule `ratio`: they keep it finite where nothing is saved, and above 0 where nothing is lost
_LOST = 1e-6
_SAVED = 1e-5


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of the results of one iteration, the best first."""

    rule: str
    """A name in `netadapt.search.types.SELECT_BY`."""
    accuracy: float = 0.0
    """The accuracy of the network that the candidates come from."""
    prices: Amounts | None = None
    """The prices of that network for the budgets that are not met yet."""
    initial: Amounts | None = None
    """The prices of the original network."""

    def key(self, result: Result) -> tuple[float, float]:
        """A sort key that is smaller for better results; among equally good ones, for cheaper networks."""
        candidate = result.candidate
        if self.rule == "accuracy":
            return (-result.accuracy, candidate.price)
        prices, initial = self.prices or {}, self.initial or {}
        savings = [(price - candidate.prices[name]) / initial[name] for name, price in prices.items()]
        saved = sum(savings) / len(savings) if savings else 0.0
        return ((self.accuracy - result.accuracy + _LOST) / (saved + _SAVED), candidate.price)

    def best(self, results: Sequence[Result]) -> Result:
        """The winner; of results with equal keys, the first."""
        return min(results, key=self.key)

    def better_half(self, results: Sequence[Result]) -> list[Result]:
        """The better half in the given order; two of three."""
        kept = sorted(results, key=self.key)[: (len(results) + 1) // 2]
        return [result for result in results if any(result is one for one in kept)]


def first_rung(candidate: Candidate) -> Candidate:
    """The candidate with only the first part of its short-term steps to do."""
    return replace(candidate, rung=Rung(0, 0.0, RUNGS[0]))


def next_rung(result: Result) -> Candidate:
    """The result's candidate with the next part of its short-term steps to do."""
    rung = result.candidate.rung
    assert rung is not None
    return replace(result.candidate, rung=Rung(rung.number + 1, rung.end, RUNGS[rung.number + 1], result.weights))
