"""From the sum of lone layers to the network: a small correction, fitted on whole networks and tested on others.

A lone layer pays what a network pays once, or not at all: the call itself, the wake-up of its threads, the copy of its input into
the runtime's blocked layout and back out. And its weights stay in the cache, which those of a large network do not. So a network
takes

    sum over its layers of  scale * latency + ms_per_layout_byte * bytes + ms_per_narrow_byte * bytes + ms_per_layer
    and of the network      ms_per_cold_byte * (bytes of weights beyond the cache)

where each term has to earn its place: it is used only if networks left out of the fit are predicted better with it than without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agents.support.dataclass_json import read_as
from profiler.errors import TableError
from profiler.layers.layer import ITEM_BYTES, LayerSpec

Array = NDArray[np.float64]

NETWORKS_PER_TERM = 2
UNFITTED_PERCENT = 10.0
"""The assumed error of a plain sum; on our held-out networks, 3 % (LiteRT) to 50 % (ONNX Runtime, small images)."""
EARNS_ITS_PLACE = 0.9
"""Each further term must reduce the leave-one-out error to this part of what it was."""


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums over a network's layers that the calibration works on. A single layer is a network of one.

    Fields are floats, or arrays of one shape for many networks at once.
    """

    latency_ms: Any
    layout_bytes: Any
    """Bytes of the activations that change their layout when their layer runs alone, in whole tiles of channels."""
    narrow_bytes: Any
    """Bytes of the activations narrower than one tile, which a runtime may keep in the plain layout within a network too."""
    layers: Any
    weight_bytes: Any

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def terms(self) -> Array:
        """(term,) or (term, network), with all weights as if they were cold."""
        return np.stack([np.asarray(getattr(self, field.name), dtype=np.float64) for field in fields(self)])


NOTHING = Sums(0.0, 0.0, 0.0, 0.0, 0.0)


def sums_of(layer: LayerSpec, latency_ms: float, tile: int) -> Sums:
    """The sums of a single layer, with channels in tiles of `tile`."""
    pixels = [(math.prod(shape[:-1]), shape[-1]) for shape in (*layer.inputs, layer.output)]
    item_bytes = ITEM_BYTES.get(layer.dtype, 4)
    return Sums(
        latency_ms,
        item_bytes * sum(count * -(-channels // tile) * tile for count, channels in pixels),
        item_bytes * sum(count * channels for count, channels in pixels if channels < tile),
        1,
        layer.weight_bytes,
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """The coefficients of the correction; the default is the plain sum. Raises `TableError` if one of them is not finite."""

    scale: float = 1.0
    ms_per_layout_byte: float = 0.0
    ms_per_narrow_byte: float = 0.0
    ms_per_layer: float = 0.0
    ms_per_cold_byte: float = 0.0
    cache_bytes: int = 0
    """Bytes of weights that stay in the cache from one inference to the next; found by the fit, like the coefficients."""
    tile: int = 8
    """Channels of one tile (`profiler.latency.staircase.tile_of`). The coefficients hold for layout bytes counted in these only."""
    networks: int = 0
    """How many networks it was fitted on."""
    residual_percent: float = 0.0
    """Root mean square error on those networks, each predicted from the others."""
    mean_error_percent: float | None = None
    """Mean absolute error on the same networks: the table's own estimate of its error, without any held-out network."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (*self._coefficients(), self.residual_percent)):
            raise TableError("the table's calibration is not finite; build it again")
        if self.tile < 1:
            raise TableError(f"the table's calibration has tiles of {self.tile} channels; build it again")

    @property
    def uncertainty_percent(self) -> float:
        """Standard deviation of the error on a network that the correction was not fitted to."""
        terms = sum(value != 0 for value in self._coefficients())
        if self.networks <= terms:
            return UNFITTED_PERCENT
        # the terms were chosen and fitted on these same networks: each of them costs one
        return self.residual_percent * math.sqrt(self.networks / (self.networks - terms))

    def _coefficients(self) -> tuple[float, ...]:
        return (self.scale, self.ms_per_layout_byte, self.ms_per_narrow_byte, self.ms_per_layer, self.ms_per_cold_byte)

    def latency_ms(self, sums: Sums) -> float:
        return float(self.latencies_ms(sums))

    def latencies_ms(self, sums: Sums) -> Array:
        """Latencies of many networks at once, in ms."""
        latencies: Array = np.tensordot(np.array(self._coefficients()), _cooled(sums.terms(), self.cache_bytes), axes=1)
        return latencies

    def share_ms(self, part: Sums, whole: Sums) -> float:
        """One layer's share of a network's latency; the shares of all its layers add up to it."""
        cold = max(0, whole.weight_bytes - self.cache_bytes) / whole.weight_bytes if whole.weight_bytes else 0.0
        return float(np.array(self._coefficients()) @ replace(part, weight_bytes=cold * part.weight_bytes).terms())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Calibration:
        return read_as(cls, plain)


def _cooled(terms: Array, cache_bytes: int) -> Array:
    """The terms, (term,) or (term, network), with the weights reduced by those that stay in the cache."""
    cooled = terms.copy()
    cooled[-1] = np.maximum(0.0, cooled[-1] - cache_bytes)
    return cooled


TERMS = ("scale", "ms_per_layout_byte", "ms_per_narrow_byte", "ms_per_layer", "ms_per_cold_byte")
"""The latency of the single layer, the layout copies, those that are not saved, the call, and the cold weights."""
COLD = len(TERMS) - 1
CACHES_BYTES = (0, *(2**exponent for exponent in range(19, 26)))
"""The cache sizes that are tried: none, and 0.5 to 32 MiB. A network can use only a part of the size that the maker states."""


def fit(networks: Sequence[tuple[Sums, float]], tile: int = 8) -> Calibration:
    """Least squares of the relative error over (sums, measured ms).

    Fewer than two networks give the plain sum: the ratio of one network would say nothing about another.
    """
    most = min(len(TERMS), len(networks) // NETWORKS_PER_TERM)
    if most == 0:
        return Calibration(tile=tile, networks=len(networks))
    measured = np.array([latency for _, latency in networks])
    terms = np.stack([sums.terms() for sums, _ in networks], axis=1)
    designs = {size: (_cooled(terms, size) / measured).T for size in CACHES_BYTES}
    sets = [(0, *others) for size in range(most) for others in combinations(range(1, len(TERMS)), size)]
    choices = [(chosen, size) for chosen in sets for size in (CACHES_BYTES if COLD in chosen else (0,))]
    choices = [(chosen, size) for chosen, size in choices if designs[size][:, chosen].any(axis=0).all()]
    errors = {choice: _leave_one_out(designs[choice[1]][:, choice[0]]) for choice in choices}
    best = min(choices, key=lambda choice: _rms(errors[choice]) / EARNS_ITS_PLACE ** len(choice[0]))
    chosen, cache_bytes = best
    coefficients = dict(zip((TERMS[term] for term in chosen), map(float, _solve(designs[cache_bytes][:, chosen])), strict=True))
    return Calibration(
        **({"scale": 1.0} | coefficients),
        cache_bytes=cache_bytes,
        tile=tile,
        networks=len(networks),
        residual_percent=100 * _rms(errors[best]),
        mean_error_percent=100 * float(np.abs(errors[best]).mean()),
    )


def _solve(design: Array) -> Array:
    """Coefficients that bring every row's sum nearest to one; columns of nine orders of magnitude are first brought to one size."""
    size = np.abs(design).max(axis=0) + 1e-300
    solution, *_ = np.linalg.lstsq(design / size, np.ones(len(design)), rcond=1e-9)
    scaled: Array = solution / size
    return scaled


def _leave_one_out(design: Array) -> Array:
    """Relative error of each network predicted from all others."""
    rows = np.arange(len(design))
    return np.array([float(design[row] @ _solve(design[rows != row])) - 1 for row in rows])


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))
