"""Which candidate of an iteration wins, and which are dropped on the way there.

`accuracy`: the most accurate (the paper). `ratio`: the least accuracy lost for what is saved (the reference code and MobileNetV3):
the smallest (lost accuracy + 1e-6) / (saved price + 1e-5). A price is a fraction of the initial one, so that milliseconds and
bytes compare; where several budgets are not met yet, what is saved is the mean over them. Where accuracy was gained the ratio is
negative and smaller for smaller savings: that is the rule's own, and is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from netadapt.search.candidates import Amounts, Candidate, Rung
from netadapt.search.types import Result

RUNGS = (0.25, 0.5, 1.0)
"""Of the short-term steps: what a candidate has had at the end of each stretch; half of them go on to the next."""
_LOST = 1e-6
_SAVED = 1e-5


@dataclass(frozen=True, slots=True)
class Ranking:
    """Puts the results of one iteration in order."""

    rule: str
    accuracy: float = 0.0
    """Of the network that the candidates come from; ..."""
    prices: Amounts | None = None
    """... its prices of the resources whose budgets are not met; ..."""
    initial: Mapping[str, float] | None = None
    """... and the original's."""

    def key(self, result: Result) -> tuple[float, float]:
        """Smaller is better. Of equally good ones the cheaper is."""
        candidate = result.candidate
        if self.rule == "accuracy":
            return (-result.accuracy, candidate.price)
        return ((self.accuracy - result.accuracy + _LOST) / (self._saved(candidate) + _SAVED), candidate.price)

    def best(self, results: Sequence[Result]) -> Result:
        return min(results, key=self.key)  # min() takes the first of equals

    def better_half(self, results: Sequence[Result]) -> list[Result]:
        """In the order they came in; of three, two."""
        kept = sorted(results, key=self.key)[: (len(results) + 1) // 2]
        return [result for result in results if any(result is one for one in kept)]

    def _saved(self, candidate: Candidate) -> float:
        prices, initial = self.prices or {}, self.initial or {}
        saved = [(prices[name] - candidate.prices[name]) / initial[name] for name in prices]
        return sum(saved) / len(saved) if saved else 0.0


def first_rung(candidate: Candidate) -> Candidate:
    return replace(candidate, rung=Rung(0, 0.0, RUNGS[0]))


def next_rung(result: Result) -> Candidate:
    """The same candidate with its next stretch of steps to go."""
    rung = result.candidate.rung
    assert rung is not None
    return replace(result.candidate, rung=Rung(rung.number + 1, rung.end, RUNGS[rung.number + 1], result.weights))
