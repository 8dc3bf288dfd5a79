"""From the sum of lone layers to the network: a small correction, fitted on whole networks and tested on others.

A lone layer pays what a network pays once, or not at all: the call itself, the copy of its input into the runtime's blocked layout
and back out. And its weights stay in the cache, which a network's do not. So a network takes

    sum over its layers of  scale * latency + ms_per_activation_byte * bytes + ms_per_layer + ms_per_weight_byte * bytes

where each term has to earn its place: it is used only if networks left out of the fit are predicted better with it than without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.errors import TableError

TERMS = ("scale", "ms_per_activation_byte", "ms_per_layer", "ms_per_weight_byte")
"""The lone layer's latency, the layout copies, the call, the cold weights."""
NETWORKS_PER_TERM = 2
UNFITTED_PERCENT = 10.0
"""What a plain sum is trusted to; between 3 % (LiteRT) and 50 % (ONNX Runtime, small pictures) off in our own closures."""
EARNS_ITS_PLACE = 0.9
"""Each further term must bring the leave-one-out error down to this part of what it was."""


@dataclass(frozen=True, slots=True)
class Sums:
    """A network as the calibration sees it: sums over its layers. A lone layer is a network of one."""

    latency_ms: float
    activation_bytes: int
    layers: int
    weight_bytes: int

    def terms(self) -> NDArray[np.float64]:
        return np.array([self.latency_ms, self.activation_bytes, self.layers, self.weight_bytes], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coefficients of the correction; the default is the naive sum."""

    scale: float = 1.0
    ms_per_activation_byte: float = 0.0
    ms_per_layer: float = 0.0
    ms_per_weight_byte: float = 0.0
    networks: int = 0
    """How many networks it was fitted on."""
    residual_percent: float = 0.0
    """Root mean square error on those networks, each predicted from the others."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (*self._coefficients(), self.residual_percent)):
            raise TableError("the table's calibration is not finite; build it again")

    @property
    def uncertainty_percent(self) -> float:
        """Standard deviation of what the correction leaves unexplained of a network."""
        return self.residual_percent if self.networks >= NETWORKS_PER_TERM else UNFITTED_PERCENT

    def _coefficients(self) -> tuple[float, ...]:
        return (self.scale, self.ms_per_activation_byte, self.ms_per_layer, self.ms_per_weight_byte)

    def latency_ms(self, sums: Sums) -> float:
        return float(sums.terms() @ np.array(self._coefficients()))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Calibration:
        return cls(**plain)


def fit(networks: Sequence[tuple[Sums, float]]) -> Calibration:
    """Least squares of the relative error over (sums, measured ms).

    Fewer than two networks give the naive sum: one network's ratio would say nothing about another's.
    """
    most = min(len(TERMS), len(networks) // NETWORKS_PER_TERM)
    if most == 0:
        return Calibration(networks=len(networks))
    measured = np.array([latency for _, latency in networks])
    design = np.stack([sums.terms() for sums, _ in networks]) / measured[:, None]
    sets = [(0, *others) for size in range(most) for others in combinations(range(1, len(TERMS)), size)]
    errors = {chosen: _leave_one_out(design[:, chosen]) for chosen in sets}
    chosen = min(sets, key=lambda terms: errors[terms] / EARNS_ITS_PLACE ** len(terms))
    coefficients = dict(zip((TERMS[term] for term in chosen), map(float, _solve(design[:, chosen])), strict=True))
    return Calibration(**({"scale": 1.0} | coefficients), networks=len(networks), residual_percent=100 * errors[chosen])


def _solve(design: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients that bring every row's sum nearest to one; columns of nine orders of magnitude are first brought to one size."""
    size = np.abs(design).max(axis=0) + 1e-300
    solution, *_ = np.linalg.lstsq(design / size, np.ones(len(design)), rcond=1e-9)
    scaled: NDArray[np.float64] = solution / size
    return scaled


def _leave_one_out(design: NDArray[np.float64]) -> float:
    """Root mean square relative error of each network predicted from all others."""
    rows = np.arange(len(design))
    errors = [float(design[row] @ _solve(design[rows != row])) - 1 for row in rows]
    return math.sqrt(sum(error**2 for error in errors) / len(errors))
