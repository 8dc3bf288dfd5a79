"""The staircase: how a layer's latency grows with its channels on this device with this runtime.

Kernels work on tiles of 8, 16 or 32 channels. On some axes a part-filled tile costs as much as a full one, so latency climbs in
flat steps; on others the rest is done by slower code, so that 40 channels can cost more than 48; on others again there is no step
at all. No device documents this, so it is found from a few sweeps, one channel count after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agents.support.dataclass_json import read_as
from profiler.layers.layer import FREE_OUTPUT, LayerSpec

GRANULARITY = 8
"""Widths are distinguished at multiples of this many channels; widths between them are never interpolated."""
STEPS = (8, 16, 32, 64)
EARNS_ITS_PLACE = 0.6
"""A rule with more parameters must reduce the error to this part of what it was, because sweeps are short and may be noisy."""
GOOD_ENOUGH = 0.015
"""A rule that explains its sweeps this well is not replaced by one with more parameters."""


@dataclass(frozen=True, slots=True)
class Staircase:
    """The rule for one axis of one kind of layer. The default has no steps wider than the granularity."""

    step: int = GRANULARITY
    """Channels of one tile."""
    flat: bool = True
    """Whether a part-filled tile costs what a full one costs; if not, it matters how many of its channels are empty."""
    granularity: int = GRANULARITY

    def __post_init__(self) -> None:
        if self.granularity < 1 or self.step < self.granularity or self.step % self.granularity:
            raise ValueError(f"a step of {self.step} channels is no multiple of {self.granularity}")

    def coordinate(self, width: int) -> int:
        """Channels of the tiles that this width needs. Between equal phases, latency is taken to be linear in them."""
        return -(-width // self.step) * self.step

    def phase(self, width: int) -> int:
        """Empty channels of the last tile, as far as they matter. Only widths of one phase are compared with each other.

        Below one tile every width has its own phase: runtimes have smaller kernels for so few channels, or none.
        """
        if self.below_one_tile(width):
            return self.step + -width % self.step
        return -width % (self.granularity if self.flat else self.step)

    def below_one_tile(self, width: int) -> bool:
        return width < self.step

    def places(self, widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Phases and coordinates of an array of widths."""
        within = -widths % (self.granularity if self.flat else self.step)
        phases: NDArray[np.int64] = np.where(widths < self.step, self.step + -widths % self.step, within)
        return phases, -(-widths // self.step) * self.step

    @property
    def phases(self) -> tuple[int, ...]:
        """The phases of the multiples of the granularity."""
        return (0,) if self.flat else tuple(range(0, self.step, self.granularity))


Kind = tuple[str, str]
"""The kind of layer and the axis that have a staircase, such as ("conv2d 1x1", "out")."""
Staircases = Mapping[Kind, Staircase]


def kind_of(layer: LayerSpec) -> str:
    """The kind of layers that run the same kernel, whose tiles depend on the number of groups, not on the size of the image."""
    groups = f" g{layer.groups}" if layer.least_channels > 1 else ""
    return "{} {}x{}".format(layer.op, *layer.kernel) + groups + ("" if layer.dtype == "float32" else f" {layer.dtype}")


def axes_of(layer: LayerSpec) -> tuple[str, ...]:
    """The axes on which a layer's channels can be chosen."""
    return ("in", "out") if layer.op in FREE_OUTPUT else ("in",)


def widths_of(layer: LayerSpec) -> tuple[int, ...]:
    """The layer's channels on the axes of `axes_of`."""
    return (layer.in_channels, layer.out_channels) if layer.op in FREE_OUTPUT else (layer.in_channels,)


def rules_of(layer: LayerSpec, staircases: Staircases) -> tuple[Staircase, ...]:
    """The staircase of each axis of the layer; the default one if its kind was never swept."""
    return tuple(staircases.get((kind_of(layer), axis), Staircase()) for axis in axes_of(layer))


def tile_of(staircases: Staircases) -> int:
    """Channels that the runtime lays out together: the widest step of any convolution; the granularity where none was swept."""
    steps = [rule.step for (kind, _), rule in staircases.items() if kind.startswith("conv2d")]
    return max(steps, default=GRANULARITY)


def staircases_data(staircases: Staircases) -> list[dict[str, Any]]:
    """The staircases as JSON data."""
    return [{"kind": kind, "axis": axis} | asdict(rule) for (kind, axis), rule in staircases.items()]


def read_staircases(plain: Iterable[Mapping[str, Any]]) -> Staircases:
    """The inverse of `staircases_data`. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
    return {(str(item["kind"]), str(item["axis"])): read_as(Staircase, item) for item in plain}


Sweep = Sequence[tuple[int, float]]
"""Channels and milliseconds of layers that differ on one axis only."""


def detect(sweeps: Iterable[Sweep], granularity: int = GRANULARITY) -> Staircase:
    """The simplest rule that explains all sweeps of one kind.

    Each rule is a straight line over whole tiles, plus, if it is not flat, an offset for every phase, fitted to each sweep on its
    own (least squares of the relative error); they are compared by the error per degree of freedom left.
    """
    usable = [tuple(sweep) for sweep in sweeps if len(sweep) >= 4]
    best, best_error, best_parameters = Staircase(granularity, True, granularity), math.inf, 0
    for rule in _rules(granularity):
        parameters = 1 + len(rule.phases)
        errors = [_unexplained(sweep, rule) for sweep in usable]
        if not errors or any(error is None for error in errors):
            continue
        error = math.sqrt(sum(value**2 for value in errors if value is not None) / len(errors))
        more = best_parameters and parameters > best_parameters
        if error < (EARNS_ITS_PLACE if more else 1.0) * best_error and not (more and best_error < GOOD_ENOUGH):
            best, best_error, best_parameters = rule, error, parameters
    return best


def _rules(granularity: int) -> list[Staircase]:
    """The rules that are tried, the simplest first: no step, flat steps, steps with phases."""
    steps = [step for step in STEPS if step > granularity and step % granularity == 0]
    return [
        Staircase(granularity, True, granularity),
        *(Staircase(step, True, granularity) for step in steps),
        *(Staircase(step, False, granularity) for step in steps),
    ]


def _unexplained(sweep: Sweep, rule: Staircase) -> float | None:
    """Root of the mean squared relative error per degree of freedom; None if the sweep has too few points for the rule."""
    widths = [width for width, _ in sweep]
    phases = sorted({rule.phase(width) for width in widths})
    columns = [[float(rule.coordinate(width)) for width in widths]]
    columns += [[float(rule.phase(width) == phase) for width in widths] for phase in phases]
    freedom = len(sweep) - len(columns)
    if freedom < 2 or len(set(columns[0])) < 2:
        return None
    latency = np.array([value for _, value in sweep])
    design = np.array(columns).T / latency[:, None]
    size = np.abs(design).max(axis=0)
    solution, *_ = np.linalg.lstsq(design / size, np.ones(len(sweep)), rcond=None)
    return math.sqrt(float(np.sum((design / size @ solution - 1) ** 2)) / freedom)
