"""What an engine is asked, and what it answers: one layer at several channel counts at once, as arrays over these counts.

An array over the channel counts has the shape (count,). Everything is for a whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.modelled.hardware import DATA_TYPES, Hardware, Mapped

Array = NDArray[np.float64]
INPUT, WEIGHT, OUTPUT = range(3)


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the layer itself does not tell. Densities are shares of values that are not zero."""

    batch: int = 1
    bits: int = 16
    """Of inputs, weights and outputs."""
    input_density: float = 1.0
    weight_density: float = 1.0
    output_density: float = 1.0

    @property
    def densities(self) -> tuple[float, float, float]:
        """In the order of `DATA_TYPES`."""
        return self.input_density, self.weight_density, self.output_density


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a convolution that do not depend on channels; a matrix product is one of 1x1 over a row of positions."""

    batch: int
    in_height: int
    in_width: int
    """Without padding."""
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_height: int = 1
    stride_width: int = 1
    dilation_height: int = 1
    dilation_width: int = 1

    def rows_of(self, out_rows: int) -> int:
        """Input rows, padding included, that so many output rows read."""
        return (out_rows - 1) * self.stride_height + (self.kernel_height - 1) * self.dilation_height + 1

    def columns_of(self, out_columns: int) -> int:
        return (out_columns - 1) * self.stride_width + (self.kernel_width - 1) * self.dilation_width + 1

    @property
    def kernel(self) -> int:
        """Weights of a filter for one channel."""
        return self.kernel_height * self.kernel_width

    @property
    def in_pixels(self) -> int:
        return self.batch * self.in_height * self.in_width

    @property
    def out_pixels(self) -> int:
        return self.batch * self.out_height * self.out_width


@dataclass(frozen=True, slots=True)
class Work:
    """A layer with multiply-accumulates, at several channel counts."""

    geometry: Geometry
    groups: Array
    inputs: Array
    """Input channels of a group, ..."""
    outputs: Array
    """... and output channels of a group."""
    assumptions: Assumptions
    mapping: Mapped | None = None
    """The mapping to run it with; None to search."""

    @property
    def macs(self) -> Array:
        return self.groups * self.inputs * self.outputs * self.geometry.kernel * self.geometry.out_pixels

    @property
    def values(self) -> Array:
        """The number of inputs, weights and outputs, each once, of shape (data type, count)."""
        return np.stack(
            [
                self.groups * self.inputs * self.geometry.in_pixels,
                self.groups * self.inputs * self.outputs * self.geometry.kernel,
                self.groups * self.outputs * self.geometry.out_pixels,
            ]
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """What a layer costs by an engine. Energies are in picojoules."""

    levels: tuple[str, ...]
    """The memories and wires that data moves through, from the outside in; the first is `dram`."""
    data_pj: Array
    """Of shape (level, data type, count), with the data types in the order of `DATA_TYPES`."""
    compute_pj: Array
    cycles: Array
    """Without waiting for memory outside the chip."""
    dram_bytes: Array
    """Of shape (data type, count)."""
    active_units: Array
    macs: Array
    mapping: str = ""
    """The mapping at the first count, for people."""
    waiting: Array | None = None
    """Cycles of waiting for memory beside these, by an engine that knows them; None where bandwidth is all that is known."""


@dataclass(frozen=True, slots=True)
class Total:
    """Energy and duration, with what the chip spends beside computing and moving data."""

    energy_pj: Array
    overhead_pj: Array
    """The part of it that clock and control spend."""
    time_ns: Array
    """The longer of computing and of moving data from and to the memory outside."""


def total(hardware: Hardware, compute_pj: Array, data_pj: Array, cycles: Array, dram_pj: Array, dram_bytes: Array) -> Total:
    """Add clock, control and waiting. `data_pj` is all data movement on the chip, `dram_pj` that outside; arrays of one shape."""
    compute_ns = cycles * 1e3 / hardware.clock_mhz
    outside_ns = dram_bytes / hardware.dram.gb_per_s if hardware.dram.gb_per_s else np.zeros_like(compute_ns)
    time_ns = np.maximum(compute_ns, outside_ns)
    on_chip_pj = compute_pj + data_pj
    with_clock_pj = (on_chip_pj + hardware.power.clock_mw * time_ns) / (1 - hardware.power.control_share)
    return Total(with_clock_pj + dram_pj, with_clock_pj - on_chip_pj, time_ns)


def total_of(hardware: Hardware, costs: Costs) -> Total:
    """The same of an engine's answer, over its counts."""
    by_level = costs.data_pj.sum(axis=1)
    cycles = costs.cycles if costs.waiting is None else costs.cycles + costs.waiting
    return total(hardware, costs.compute_pj, by_level[1:].sum(axis=0), cycles, by_level[0], costs.dram_bytes.sum(axis=0))


def stored_bits(hardware: Hardware, assumptions: Assumptions, data_type: int, level: str) -> float:
    """Bits that a value of this type takes, on average, in this level of memory.

    Run-length: a run of up to 31 zeros in 5 bits and a value, as many pairs in 64 bits as fit (3 of 16 bits, Chen et al., JSSC
    2017). Compressed columns: a count of 4 bits and a value for each that is not zero (Chen et al., JETCAS 2019). A code is not
    used where it would need more bits than the values themselves.
    """
    bits, sparsity = assumptions.bits, hardware.sparsity
    if DATA_TYPES[data_type] not in sparsity.coded or level not in sparsity.coded_in or sparsity.code == "none":
        return bits
    density = assumptions.densities[data_type]
    pair_bits = 64 / (64 // (bits + 5)) if sparsity.code == "run_length" else bits + 4
    return min(float(bits), density * pair_bits)


def dram_counts(work: Work, hardware: Hardware) -> Array:
    """Values that pass between DRAM and the shared buffer, of shape (data type, count), for the better of two orders.

    Inputs and weights have half of the buffer each. Either the inputs are read once, and all weights again for each part of the
    inputs that fits, or the other way round. Where the hardware keeps activations and they fit, they are not moved at all.
    """
    values, assumptions, memory = work.values, work.assumptions, hardware.memory
    half = max(memory.buffer_bytes / 2, 1.0)
    weight_half = memory.weight_buffer_bytes or half
    size_bytes = values * assumptions.bits / 8
    again = np.stack([np.ceil(size_bytes[INPUT] / half), np.ceil(size_bytes[WEIGHT] / weight_half)])
    weights_again, inputs_again = values[WEIGHT] * again[0] + values[INPUT], values[INPUT] * again[1] + values[WEIGHT]
    inputs_first = weights_again <= inputs_again
    counts = values.copy()
    counts[WEIGHT] *= np.where(inputs_first, again[0], 1)
    counts[INPUT] *= np.where(inputs_first, 1, again[1])
    if memory.keeps_activations:
        fits = size_bytes[INPUT] + size_bytes[OUTPUT] <= memory.buffer_bytes
        kept = np.where(fits, 0.0, 1.0)
        # what does not fit is written and read as a whole; the weights of a layer whose inputs fit are read once
        counts = np.stack([counts[INPUT] * kept, np.where(fits, values[WEIGHT], counts[WEIGHT]), counts[OUTPUT] * kept])
    return counts


def moved(
    work: Work, hardware: Hardware, levels: Sequence[str], counts: Sequence[Sequence[Array]], prices: Sequence[Sequence[float]]
) -> Array:
    """Energies in pJ of shape (level, data type, count) of so many accesses to words at these prices, which are for `word_bits`."""
    to_pj = hardware.energy.unit_pj / hardware.word_bits
    return np.array(
        [
            [
                number * (price * to_pj * stored_bits(hardware, work.assumptions, kind, level))
                for kind, (number, price) in enumerate(zip(numbers, costs, strict=True))
            ]
            for level, numbers, costs in zip(levels, counts, prices, strict=True)
        ]
    )


def dram_bytes(work: Work, hardware: Hardware, counts: Array) -> Array:
    """Bytes of these values, as they are stored, of shape (data type, count)."""
    bits = [stored_bits(hardware, work.assumptions, kind, "dram") for kind in range(len(DATA_TYPES))]
    return counts * (np.array(bits)[:, None] / 8)


def share_of_macs(names: tuple[str, ...], assumptions: Assumptions) -> float:
    """The share of multiply-accumulates of which no operand of these data types is zero; zeros are independent of each other."""
    named = [assumptions.densities[DATA_TYPES.index(name)] for name in names if name != "output"]
    return float(np.prod(named)) if named else 1.0


def mac_pj(hardware: Hardware, assumptions: Assumptions) -> float:
    """Energy of one multiply-accumulate, linear in the bits of each operand."""
    return hardware.energy.mac * hardware.energy.unit_pj * (assumptions.bits / hardware.word_bits) ** 2
