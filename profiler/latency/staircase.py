"""The staircase: how the latency of a layer grows with its channels on one device with one runtime.

Kernels work on tiles of 8, 16 or 32 channels. On some axes a partly filled tile costs as much as a full one, so that latency rises
in flat steps. On others slower code handles the remainder, so that 40 channels can cost more than 48. On others there is no step.
Vendors do not document this, so it is detected from sweeps: measurements of layers that differ in one channel count only.
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
"""The unit of widths. A width that is no multiple of it is compared only with widths of the same remainder."""
STEPS = (8, 16, 32, 64)
EARNS_ITS_PLACE = 0.6
"""A rule with more parameters must lower the error to this fraction or less, because sweeps are short and may be noisy."""
GOOD_ENOUGH = 0.015
"""A rule with a smaller relative error than this is not replaced by one with more parameters."""


@dataclass(frozen=True, slots=True)
class Staircase:
    """The rule for one axis of one kind of layer. The default has no step wider than the granularity.

    `ValueError` if the step is not a multiple of the granularity.
    """

    step: int = GRANULARITY
    """Channels of one tile."""
    flat: bool = True
    """True if a partly filled tile costs as much as a full one; if False, latency depends on the number of empty channels."""
    granularity: int = GRANULARITY

    def __post_init__(self) -> None:
        if self.granularity < 1 or self.step < self.granularity or self.step % self.granularity:
            raise ValueError(f"a step of {self.step} channels is no multiple of {self.granularity}")

    def coordinate(self, width: int) -> int:
        """The width rounded up to whole tiles. Between widths of one phase, latency is taken as linear in this."""
        return -(-width // self.step) * self.step

    def phase(self, width: int) -> int:
        """Empty channels of the last tile, as far as they matter. Only widths of one phase are interpolated between.

        Below one tile each width is a phase of its own, because runtimes use other kernels for so few channels.
        """
        if self.below_one_tile(width):
            return self.step + -width % self.step
        return -width % (self.granularity if self.flat else self.step)

    def below_one_tile(self, width: int) -> bool:
        return width < self.step

    def places(self, widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Phases and coordinates of an array of widths, both of its shape."""
        within = -widths % (self.granularity if self.flat else self.step)
        phases: NDArray[np.int64] = np.where(widths < self.step, self.step + -widths % self.step, within)
        return phases, -(-widths // self.step) * self.step

    @property
    def phases(self) -> tuple[int, ...]:
        """The phases that multiples of the granularity can have, in channels."""
        return (0,) if self.flat else tuple(range(0, self.step, self.granularity))


Kind = tuple[str, str]
"""A kind of layer and an axis, which share a staircase: `("conv2d 1x1", "out")`."""
Staircases = Mapping[Kind, Staircase]


def kind_of(layer: LayerSpec) -> str:
    """The part of a layer that decides on the kernel: operation, kernel size, groups and precision, but not the image size."""
    groups = f" g{layer.groups}" if layer.least_channels > 1 else ""
    plain = " from plain" if layer.block > 1 and layer.reads_plain and layer.op == "conv2d" else ""
    return "{} {}x{}".format(layer.op, *layer.kernel) + groups + plain + ("" if layer.dtype == "float32" else f" {layer.dtype}")


def axes_of(layer: LayerSpec) -> tuple[str, ...]:
    """The axes on which the channels of a layer can be chosen. A concatenation counts by all channels that it copies."""
    if layer.op == "concat":
        return ("out",)
    return ("in", "out") if layer.op in FREE_OUTPUT else ("in",)


def widths_of(layer: LayerSpec) -> tuple[int, ...]:
    """The channels of a layer on the axes of `axes_of`."""
    both = {"in": layer.in_channels, "out": layer.out_channels}
    return tuple(both[axis] for axis in axes_of(layer))


def rules_of(layer: LayerSpec, staircases: Staircases) -> tuple[Staircase, ...]:
    """The staircase of each axis of a layer; the default one for a kind that was not swept."""
    return tuple(staircases.get((kind_of(layer), axis), Staircase()) for axis in axes_of(layer))


def tile_of(staircases: Staircases) -> int:
    """The tile of the blocked layout in channels: the widest step of all convolutions, or the granularity if none was swept."""
    steps = [rule.step for (kind, _), rule in staircases.items() if kind.startswith("conv2d")]
    return max(steps, default=GRANULARITY)


def staircases_data(staircases: Staircases) -> list[dict[str, Any]]:
    """The staircases as JSON: a list of objects."""
    return [{"kind": kind, "axis": axis} | asdict(rule) for (kind, axis), rule in staircases.items()]


def read_staircases(plain: Iterable[Mapping[str, Any]]) -> Staircases:
    """The inverse of `staircases_data`. `ValueError`, `TypeError` or `KeyError` for anything else."""
    return {(str(item["kind"]), str(item["axis"])): read_as(Staircase, item) for item in plain}


Sweep = Sequence[tuple[int, float]]
"""Channels and latency in ms of layers that differ on one axis only."""


def detect(sweeps: Iterable[Sweep], granularity: int = GRANULARITY) -> Staircase:
    """The simplest rule that explains all sweeps of one kind and axis; the one without steps if there are no usable sweeps.

    A rule is a straight line over whole tiles and, unless it is flat, an offset for each phase. It is fitted to each sweep
    separately by least squares of the relative error. Rules are compared by their error per remaining degree of freedom.
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
    """All rules, the simplest first: no step, flat steps, steps with phases."""
    steps = [step for step in STEPS if step > granularity and step % granularity == 0]
    return [
        Staircase(granularity, True, granularity),
        *(Staircase(step, True, granularity) for step in steps),
        *(Staircase(step, False, granularity) for step in steps),
    ]


def _unexplained(sweep: Sweep, rule: Staircase) -> float | None:
    """Root of the squared relative errors per degree of freedom; None if the sweep has too few points for the rule."""
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
