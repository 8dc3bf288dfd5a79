"""The calibration: a small correction of the sum of single layers, fitted on whole networks and checked on others.

A layer measured alone pays costs that a network pays once or not at all: the call, the wake-up of threads, the copies of its
activations into the blocked layout of the runtime and back. On the other hand, its weights stay in the cache, while those of a
large network do not. The latency of a network is therefore modelled as

    sum over its layers of  scale * kind * (latency - call) + ms_per_layout_byte * bytes + ms_per_narrow_byte * bytes + ms_per_layer
    plus, for the network,  call + ms_per_cold_byte * (bytes of weights beyond the cache)

It is fitted on whole networks and, where the runtime tells the latency of each operator inside a running network, on these hundreds
of latencies too. A term is used only if it lowers the leave-one-out error of the fit noticeably. Two terms have limits that are
measured: an operator costs something between nothing and an empty call, and a byte of weights no more than it costs a layer whose
weights are never in the cache.

The factor `kind` belongs to the operator: an addition, for one, reads a tensor that was written long before, which a lone addition
always finds in the cache. These factors follow from layers inside networks, and a ridge penalty keeps them at one where such layers
say little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agents.support.dataclass_json import read_as
from profiler.errors import TableError
from profiler.layers.layer import ITEM_BYTES, LayerSpec

Array = NDArray[np.float64]

NETWORKS_PER_TERM = 2
UNFITTED_PERCENT = 10.0
"""Standard deviation assumed for a plain sum. On held-out networks of our own it missed by 3 % (LiteRT) to 50 % (ONNX Runtime)."""
EARNS_ITS_PLACE = 0.9
"""Each further term must lower the leave-one-out error to this fraction or less."""
KIND_PENALTY = 0.1
"""A factor of a kind that differs from one by 0.1 costs the fit as much as an error of 1 % of the latency of a network."""
KIND_LIMIT = 0.4
"""The scale of a kind lies within so much of the common scale, ..."""
LEAST_SCALE = 0.5
"""... which is at least this where kinds have factors."""


@dataclass(frozen=True, slots=True)
class Sums:
    """The terms of the calibration for a network, summed over its layers; a single layer is a network of one.

    The fields are floats, or arrays of one shape for many networks at once.
    """

    latency_ms: Any
    """Alone; what exceeds a call is multiplied by the factor of the kind."""
    layout_bytes: Any
    """Bytes of inputs and outputs of the layers, with channels rounded up to whole tiles: copied when a layer runs alone."""
    narrow_bytes: Any
    """Bytes of those inputs and outputs that are narrower than one tile: a runtime may copy these within a network, too."""
    layers: Any
    weight_bytes: Any

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.latency_ms + other.latency_ms,
            self.layout_bytes + other.layout_bytes,
            self.narrow_bytes + other.narrow_bytes,
            self.layers + other.layers,
            self.weight_bytes + other.weight_bytes,
        )

    def terms(self) -> Array:
        """Array of shape (term,) or (term, network). All weights count as cold."""
        return np.stack([np.asarray(getattr(self, field.name), dtype=np.float64) for field in fields(self)])


NOTHING = Sums(0.0, 0.0, 0.0, 0.0, 0.0)


def sums_of(layer: LayerSpec, latency_ms: float, calibration: Calibration) -> Sums:
    """The terms of one layer that takes so long alone."""
    tile = calibration.tile
    # a tensor without dimensions is one number
    pixels = [(math.prod(shape[:-1]), shape[-1]) for shape in (*layer.inputs, layer.output) if shape]
    item_bytes = ITEM_BYTES.get(layer.dtype, 4)
    return Sums(
        calibration.of_kind(layer.op, latency_ms),
        item_bytes * sum(count * -(-channels // tile) * tile for count, channels in pixels),
        item_bytes * sum(count * channels for count, channels in pixels if channels < tile),
        1,
        layer.weight_bytes,
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fitted coefficients. The default is the plain sum. `TableError` for coefficients that are not finite."""

    scale: float = 1.0
    ms_per_layout_byte: float = 0.0
    ms_per_narrow_byte: float = 0.0
    ms_per_layer: float = 0.0
    ms_per_cold_byte: float = 0.0
    cache_bytes: int = 0
    """Bytes of weights that stay in the cache from one inference to the next; fitted like the coefficients."""
    call_ms: float = 0.0
    """The latency of an empty call, which each layer alone pays; 0 where it was not measured."""
    kinds: Mapping[str, float] = field(default_factory=dict)
    """Factors of operators that take longer or shorter inside networks than others do; one for operators that are not named."""
    tile: int = 8
    """Channels of one tile (`profiler.latency.staircase.tile_of`). The coefficients hold for layout bytes counted in these only."""
    networks: int = 0
    """The number of networks in the fit, ..."""
    layers_inside: int = 0
    """... and of layers inside them."""
    residual_percent: float = 0.0
    """Root mean square of the leave-one-out errors of the fit."""
    mean_error_percent: float | None = None
    """Mean absolute leave-one-out error, the estimate of the error during a build; None without a fit."""

    def __post_init__(self) -> None:
        if not all(
            math.isfinite(value) for value in (*self._coefficients(), *self.kinds.values(), self.call_ms, self.residual_percent)
        ):
            raise TableError("the table's calibration is not finite; build it again")
        if self.tile < 1:
            raise TableError(f"the table's calibration has tiles of {self.tile} channels; build it again")

    @property
    def uncertainty_percent(self) -> float:
        """Standard deviation of the relative error for a network that took no part in the fit."""
        terms = sum(value != 0 for value in self._coefficients())
        if self.networks <= terms:
            return UNFITTED_PERCENT
        # the terms were chosen and fitted on these same networks, so each costs one degree of freedom
        return self.residual_percent * math.sqrt(self.networks / (self.networks - terms))

    def _coefficients(self) -> tuple[float, ...]:
        return (self.scale, self.ms_per_layout_byte, self.ms_per_narrow_byte, self.ms_per_layer, self.ms_per_cold_byte)

    def latency_ms(self, sums: Sums) -> float:
        """The calibrated latency of one network."""
        return float(self.latencies_ms(sums))

    def latencies_ms(self, sums: Sums) -> Array:
        """The calibrated latencies of many networks: an array of the shape of the fields of `sums`."""
        terms = _in_network(sums.terms(), self.cache_bytes, self.call_ms)
        latencies: Array = self.call_ms + np.tensordot(np.array(self._coefficients()), terms, axes=1)
        return latencies

    def of_kind(self, op: str, latency_ms: Any) -> Any:
        """A latency alone, or an array of them, with what exceeds a call multiplied by the factor of the operator."""
        return self.call_ms + self.kinds.get(op, 1.0) * (latency_ms - self.call_ms)

    def share_ms(self, part: Sums, whole: Sums) -> float:
        """The share of one layer in the latency of its network; the shares of all layers add up to `latency_ms(whole)`."""
        terms = _share(part, whole, self.cache_bytes, self.call_ms)
        return float(np.array(self._coefficients()) @ terms + self.call_ms * part.layers / whole.layers)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Calibration:
        return read_as(cls, plain)


def _in_network(terms: Array, cache_bytes: int, call_ms: float) -> Array:
    """The same array without the bytes of weights that stay in the cache, and without what a call costs each layer."""
    found = terms.copy()
    found[LATENCY] -= call_ms * found[LAYERS]
    found[COLD] = np.maximum(0.0, found[COLD] - cache_bytes)
    return found


def _share(part: Sums, whole: Sums, cache_bytes: int, call_ms: float) -> Array:
    """The terms of one layer inside its network, of which a part of all weights stays in the cache: array of shape (term,)."""
    cold = max(0, whole.weight_bytes - cache_bytes) / whole.weight_bytes if whole.weight_bytes else 0.0
    return replace(part, latency_ms=part.latency_ms - call_ms * part.layers, weight_bytes=cold * part.weight_bytes).terms()


TERMS = ("scale", "ms_per_layout_byte", "ms_per_narrow_byte", "ms_per_layer", "ms_per_cold_byte")
"""The coefficients, in the order of the fields of `Sums`."""
LATENCY, COPIED, NARROW, LAYERS, COLD = range(5)
CACHES_BYTES = (0, *(2**exponent for exponent in range(19, 26)))
"""Cache sizes tried in the fit: none, and 0.5 to 32 MiB. The part that a network can use is less than the nominal size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What was measured of a device, beside its layers, and limits terms of the calibration."""

    call_ms: float = 0.0
    """The latency of an empty call; 0 if it was not measured."""
    ms_per_cold_byte: float = math.inf
    """What a byte of weights costs a layer alone whose weights are never in the cache."""

    def bounds(self, terms: Sequence[int]) -> tuple[Array, Array]:
        """The smallest and the largest coefficient of each of these terms."""
        low, high = np.full(len(TERMS), -math.inf), np.full(len(TERMS), math.inf)
        if self.call_ms:
            low[LAYERS], high[LAYERS] = 0.0, self.call_ms
            low[COPIED] = low[NARROW] = 0.0  # nothing that a lone operator does not do has to be taken off it
        if math.isfinite(self.ms_per_cold_byte):
            low[COLD], high[COLD] = 0.0, self.ms_per_cold_byte
        return low[list(terms)], high[list(terms)]


NO_LIMITS = Limits()


class LayerInside(NamedTuple):
    """A layer of a network whose runtime tells the latencies of its operators."""

    op: str
    sums: Sums
    """Its terms, without factors of kinds."""
    inside_ms: float
    """Its latency inside the running network."""


@dataclass(frozen=True, slots=True)
class FitNetwork:
    """A measured network to fit the calibration on."""

    sums: Sums
    """Its terms, without factors of kinds."""
    latency_ms: float
    layers: Sequence[LayerInside] = ()
    """Its layers; none where the runtime does not tell their latencies."""

    def equations(self, cache_bytes: int, call_ms: float, kinds: Sequence[str]) -> tuple[Array, Array, Array]:
        """The network and each of its layers as an equation of the fit.

        A design of shape (equation, term), one of shape (equation, kind) for what the factors of kinds change, and a target. The
        unit is the latency of the network, so that the error of a layer counts as much as it changes the network.
        """
        unit_ms = self.latency_ms - call_ms
        parts = [_share(layer.sums, self.sums, cache_bytes, call_ms) for layer in self.layers]
        by_kind = np.array(
            [[part[LATENCY] * (layer.op == op) for op in kinds] for layer, part in zip(self.layers, parts, strict=True)]
        )
        by_kind = by_kind.reshape(len(parts), len(kinds))
        inside_ms = [layer.inside_ms - call_ms * layer.sums.layers / self.sums.layers for layer in self.layers]
        terms = np.stack([_in_network(self.sums.terms(), cache_bytes, call_ms), *parts])
        return terms / unit_ms, np.vstack([by_kind.sum(axis=0), by_kind]) / unit_ms, np.array([unit_ms, *inside_ms]) / unit_ms


@dataclass(frozen=True, slots=True)
class _Equations:
    """All equations of a fit, for one size of the cache."""

    design: Array
    """Of shape (equation, term)."""
    by_kind: Array
    """Of shape (equation, kind)."""
    target: Array
    network: NDArray[np.intp]
    """The network that each equation belongs to; the first equation of each is the network as a whole."""

    @classmethod
    def of(cls, networks: Sequence[FitNetwork], cache_bytes: int, call_ms: float, kinds: Sequence[str]) -> _Equations:
        parts = [network.equations(cache_bytes, call_ms, kinds) for network in networks]
        owner = [np.full(len(target), place) for place, (_, _, target) in enumerate(parts)]
        design, by_kind, target = (np.concatenate(found) for found in zip(*parts, strict=True))
        return cls(design, by_kind, target, np.concatenate(owner))

    def solve(self, rows: NDArray[np.bool_], terms: Sequence[int], limits: Limits, *, kinds: bool) -> tuple[Array, Array]:
        """The coefficients of these terms, and what has to be added to the scale for each kind, by these equations."""
        design, target, (low, high) = self.design[rows][:, terms], self.target[rows], limits.bounds(terms)
        count = self.by_kind.shape[1] if kinds else 0
        if count:
            design = np.hstack([design, self.by_kind[rows]])
            penalty = np.hstack([np.zeros((count, len(terms))), KIND_PENALTY * np.eye(count)])
            design, target = np.vstack([design, penalty]), np.concatenate([target, np.zeros(count)])
            low[0] = LEAST_SCALE
            low, high = (np.concatenate([bound, np.full(count, end)]) for bound, end in ((low, -KIND_LIMIT), (high, KIND_LIMIT)))
        solution = _solve(design, target, low, high)
        return solution[: len(terms)], solution[len(terms) :]

    def leave_one_out(self, terms: Sequence[int], limits: Limits, *, kinds: bool = False) -> Array:
        """Relative error of each network, predicted from all others by these terms: an array of shape (network,)."""
        errors = []
        for place in range(self.network[-1] + 1):
            others = self.network != place
            whole = int(np.argmax(~others))
            coefficients, added = self.solve(others, terms, limits, kinds=kinds)
            errors.append(float(self.design[whole, terms] @ coefficients + self.by_kind[whole, : len(added)] @ added) - 1)
        return np.array(errors)


def fit(networks: Sequence[FitNetwork], tile: int = 8, limits: Limits = NO_LIMITS) -> Calibration:
    """Least squares of the errors of whole networks and of the layers inside them, in relation to the latency of the network.

    Subsets of terms are compared by their leave-one-out error on whole networks, with at most one term for two networks unless
    layers inside are known. Factors of kinds are used unless they make that error larger by a tenth. Fewer than two networks give
    the plain sum, because the ratio of a single network says nothing about others. `tile` is the one that the sums were made with.
    """
    inside = sum(len(network.layers) for network in networks)
    most = min(len(TERMS), (len(networks) + inside) // NETWORKS_PER_TERM)
    if len(networks) < NETWORKS_PER_TERM:
        return Calibration(tile=tile, networks=len(networks), call_ms=limits.call_ms)
    kinds = sorted({layer.op for network in networks for layer in network.layers})
    equations = {size: _Equations.of(networks, size, limits.call_ms, kinds) for size in CACHES_BYTES}
    sets = [(0, *others) for size in range(most) for others in combinations(range(1, len(TERMS)), size)]
    choices = [(chosen, size) for chosen in sets for size in (CACHES_BYTES if COLD in chosen else (0,))]
    choices = [(chosen, size) for chosen, size in choices if equations[size].design[:, chosen].any(axis=0).all()]
    found = {(chosen, size): equations[size].leave_one_out(chosen, limits) for chosen, size in choices}
    chosen, cache_bytes = best = min(choices, key=lambda choice: _rms(found[choice]) / EARNS_ITS_PLACE ** len(choice[0]))
    errors, by_kind = found[best], equations[cache_bytes].leave_one_out(chosen, limits, kinds=True)
    uses_kinds = bool(kinds) and EARNS_ITS_PLACE * _rms(by_kind) <= _rms(errors)
    everything = np.ones(len(equations[cache_bytes].target), dtype=np.bool_)
    solved, added = equations[cache_bytes].solve(everything, chosen, limits, kinds=uses_kinds)
    coefficients = dict(zip((TERMS[term] for term in chosen), map(float, solved), strict=True))
    errors = by_kind if uses_kinds else errors
    return Calibration(
        **coefficients,
        cache_bytes=cache_bytes,
        call_ms=limits.call_ms,
        kinds={op: 1 + float(more) / coefficients["scale"] for op, more in zip(kinds, added, strict=False)},
        tile=tile,
        networks=len(networks),
        layers_inside=inside,
        residual_percent=100 * _rms(errors),
        mean_error_percent=100 * float(np.abs(errors).mean()),
    )


def _solve(design: Array, target: Array, low: Array, high: Array) -> Array:
    """Least-squares coefficients for a design of shape (equation, term) and a target of shape (equation,).

    A coefficient beyond its bounds, `low` and `high` of shape (term,), is set to the bound, and the others are solved again.
    Columns are scaled first, because they differ by nine orders of magnitude.
    """
    coefficients = np.zeros(design.shape[1])
    free = np.ones(design.shape[1], dtype=np.bool_)
    while free.any():
        part = design[:, free]
        size = np.abs(part).max(axis=0) + 1e-300
        solution, *_ = np.linalg.lstsq(part / size, target - design[:, ~free] @ coefficients[~free], rcond=1e-9)
        coefficients[free] = solution / size
        beyond = free & ((coefficients < low) | (coefficients > high))
        if not beyond.any():
            break
        coefficients = np.where(beyond, np.clip(coefficients, low, high), coefficients)
        free &= ~beyond
    return coefficients


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))
