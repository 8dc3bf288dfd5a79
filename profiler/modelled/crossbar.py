"""Processing in memory: arrays of cells that hold the weights and multiply where they are, with converters around them.

A filter is a column, or several where a weight has more bits than a cell; its inputs are rows. Inputs are converted to voltages a
few bits at a time, sums of currents back to numbers. Weights are written once for all inferences, unless a layer needs more arrays
than there are: then it runs in turns, and its weights are written anew for every batch. Noise, and what it costs in accuracy, is
not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiler.errors import HardwareError
from profiler.modelled.hardware import Crossbar, Hardware
from profiler.modelled.work import Array, Costs, Work, dram_bytes, dram_counts, moved

VERSION = 1
LEVELS = ("dram", "buffer", "converter")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a layer lies on arrays, and how often its values are converted in one batch. Arrays over the channel counts."""

    arrays: Array
    rows: Array
    """Of one group, ..."""
    columns: Array
    """... as for all fields but `arrays`, `utilisation` and conversions."""
    row_tiles: Array
    utilisation: Array
    """The share of cells of all used arrays that hold a weight."""
    adc_conversions: Array
    dac_conversions: Array
    steps: int
    """Times that the arrays are read, all of them at once."""


def layout(work: Work, crossbar: Crossbar) -> Layout:
    """The layout of a layer at each channel count."""
    bits, pixels = work.assumptions.bits, work.geometry.out_pixels
    rows = work.inputs * work.geometry.kernel
    columns = work.outputs * -(-bits // crossbar.cell_bits) * (2 if crossbar.differential else 1)
    row_tiles, column_tiles = np.ceil(rows / crossbar.rows), np.ceil(columns / crossbar.cols)
    arrays = work.groups * row_tiles * column_tiles
    steps = pixels * -(-bits // crossbar.dac_bits)
    return Layout(
        arrays,
        rows,
        columns,
        row_tiles,
        work.groups * rows * columns / (arrays * crossbar.rows * crossbar.cols),
        steps * columns * work.groups * row_tiles,
        steps * rows * work.groups * column_tiles,
        steps,
    )


def cost(work: Work, hardware: Hardware) -> Costs:
    """The costs at each channel count. `HardwareError` if the description has no crossbar."""
    crossbar, energy = hardware.crossbar, hardware.energy
    if crossbar is None:
        raise HardwareError(f"{hardware.name} has the engine crossbar, but no section [crossbar]")
    found, counts, pixels = layout(work, crossbar), dram_counts(work, hardware), work.geometry.out_pixels
    cells = work.groups * found.rows * found.columns
    turns = np.ceil(found.arrays / crossbar.arrays)
    counts[1] = np.where(turns > 1, counts[1], 0)
    nothing = np.zeros_like(cells)
    column_tiles = found.arrays / work.groups / found.row_tiles
    in_buffer = [work.groups * found.rows * pixels * column_tiles, nothing, work.values[2]]
    data_pj = moved(work, hardware, LEVELS[:2], [list(counts), in_buffer], [[energy.dram] * 3, [energy.buffer] * 3])
    writing_pj = np.where(turns > 1, cells * crossbar.write_pj, 0.0)
    converting_pj = np.stack([found.dac_conversions * crossbar.dac_pj, writing_pj, found.adc_conversions * crossbar.adc_pj])
    adding_pj = crossbar.add_pj * found.steps * found.columns * work.groups * (found.row_tiles - 1)
    step_ns = max(crossbar.array_ns, crossbar.columns_per_adc * crossbar.adc_ns)
    return Costs(
        LEVELS,
        np.concatenate([data_pj, converting_pj[None]]),
        cells * found.steps * crossbar.cell_pj + adding_pj,
        turns * found.steps * step_ns * hardware.clock_mhz / 1e3,
        dram_bytes(work, hardware, counts),
        np.minimum(found.arrays, crossbar.arrays),
        work.macs,
        f"arrays {int(found.arrays[0])}, cells used {100 * found.utilisation[0]:.0f} %, turns {int(turns[0])}",
    )
