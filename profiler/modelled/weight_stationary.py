"""Weight-stationary systolic array, as in tensor processing units.

Each unit keeps one weight: rows are inputs of a filter (channels times kernel), columns are filters. Inputs move along the rows,
partial sums down the columns. The weights of a tile are loaded while the tile before is computed, one row in a cycle.
"""

from __future__ import annotations

import numpy as np

from profiler.modelled.hardware import Hardware
from profiler.modelled.work import Costs, Work, dram_bytes, dram_counts, mac_pj, moved, share_of_macs

VERSION = 1
LEVELS = ("dram", "buffer", "array", "unit")


def cost(work: Work, hardware: Hardware) -> Costs:
    """The costs at each channel count."""
    rows, columns, energy = hardware.array.rows, hardware.array.cols, hardware.energy
    inputs, pixels = work.inputs * work.geometry.kernel, work.geometry.out_pixels
    row_tiles, column_tiles = np.ceil(inputs / rows), np.ceil(work.outputs / columns)
    macs, counts = work.macs, dram_counts(work, hardware)
    done = macs * share_of_macs(hardware.sparsity.gates, work.assumptions)
    nothing = np.zeros_like(macs)
    data_pj = moved(
        work, hardware, LEVELS,
        [
            list(counts),
            # a value of the input is read for each place of the kernel; partial sums of further row tiles are added to the first
            [work.groups * inputs * pixels * column_tiles, counts[1], work.groups * work.outputs * pixels * (2 * row_tiles - 1)],
            [macs, work.values[1] * rows, macs],
            [nothing, done, nothing],
        ],
        [
            [energy.dram] * 3, [energy.buffer, energy.weight_buffer, energy.buffer], [energy.array] * 3, [energy.unit] * 3,
        ],
    )  # fmt: skip
    tiles = work.groups * row_tiles * column_tiles
    cycles = tiles * max(pixels, rows) / hardware.array.macs_per_cycle + rows + columns
    active = np.ceil(inputs / row_tiles) * np.ceil(work.outputs / column_tiles)
    mapping = f"row_tiles {int(row_tiles[0])}, column_tiles {int(column_tiles[0])}, groups {int(work.groups[0])}"
    compute_pj = done * mac_pj(hardware, work.assumptions)
    return Costs(LEVELS, data_pj, compute_pj, cycles, dram_bytes(work, hardware, counts), active, macs, mapping)
