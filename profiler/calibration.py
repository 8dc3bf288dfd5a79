"""From the sum of lone layers to the network: a small correction, fitted on whole networks and tested on others.

A lone layer pays what a network pays once, or not at all: the call itself, the copy of its input into the runtime's blocked layout
and back out; and its weights stay in the cache, which a network's do not. The calibrated latency is

    overhead + sum over layers of  scale * latency + activation * activation bytes + weight * weight bytes

with no more terms than the networks at hand can carry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.errors import TableError

# the fewest networks for each number of terms: two for every coefficient, so that one odd network cannot bend the fit
TERMS = ("scale", "ms_per_activation_byte", "ms_per_weight_byte")
NETWORKS_PER_TERM = 2


@dataclass(frozen=True, slots=True)
class Sums:
    """A network as the calibration sees it: sums over its layers."""

    latency_ms: float
    activation_bytes: int
    weight_bytes: int

    def terms(self) -> NDArray[np.float64]:
        return np.array([self.latency_ms, self.activation_bytes, self.weight_bytes], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coefficients of the correction; the default is the naive sum."""

    scale: float = 1.0
    ms_per_activation_byte: float = 0.0
    ms_per_weight_byte: float = 0.0
    networks: int = 0
    """How many networks it was fitted on."""
    residual_percent: float = 0.0
    """Root mean square of what the fit leaves on those networks, corrected for the number of terms."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.scale, self.ms_per_activation_byte, self.ms_per_weight_byte)):
            raise TableError("the table's calibration is not finite; build it again")

    def latency_ms(self, sums: Sums) -> float:
        return float(sums.terms() @ np.array([self.scale, self.ms_per_activation_byte, self.ms_per_weight_byte]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Calibration:
        return cls(**plain)


def fit(networks: Sequence[tuple[Sums, float]]) -> Calibration:
    """Least squares of the relative error over (sums, measured ms), with as many terms as there are pairs of networks.

    Fewer than two networks give the naive sum: one network's ratio would say nothing about another's.
    """
    terms = min(len(TERMS), len(networks) // NETWORKS_PER_TERM)
    if terms == 0:
        return Calibration(networks=len(networks))
    measured = np.array([latency for _, latency in networks])
    design = np.stack([sums.terms()[:terms] for sums, _ in networks]) / measured[:, None]
    # columns differ by nine orders of magnitude: bring them to one size before solving
    size = np.abs(design).max(axis=0) + 1e-300
    solution, *_ = np.linalg.lstsq(design / size, np.ones(len(networks)), rcond=1e-6)
    coefficients = dict(zip(TERMS, solution / size, strict=False))
    left = design @ np.array([coefficients[name] for name in TERMS[:terms]]) - 1
    residual = math.sqrt(float(left @ left) / max(1, len(networks) - terms)) * 100
    return Calibration(
        **{name: float(value) for name, value in coefficients.items()}, networks=len(networks), residual_percent=residual
    )
