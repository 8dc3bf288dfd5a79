"""Output-stationary array: each unit keeps the partial sum of one output until it is complete, as in ShiDianNao.

Rows are output pixels, of all images, and columns are filters. In each cycle a row gets an input, which all columns share, and a
column a weight, which all rows share. The names of the taxonomy are those of Chen, Emer, Sze (ISCA 2016).
"""

from __future__ import annotations

import numpy as np

from profiler.modelled.hardware import Hardware
from profiler.modelled.work import Costs, Work, dram_bytes, dram_counts, mac_pj, moved, share_of_macs

VERSION = 1
LEVELS = ("dram", "buffer", "array", "unit")


def cost(work: Work, hardware: Hardware) -> Costs:
    """The costs at each channel count."""
    energy, inputs, pixels = hardware.energy, work.inputs * work.geometry.kernel, work.geometry.out_pixels
    pixel_tiles, filter_tiles = -(-pixels // hardware.array.rows), np.ceil(work.outputs / hardware.array.cols)
    macs, counts = work.macs, dram_counts(work, hardware)
    done = macs * share_of_macs(hardware.sparsity.gates, work.assumptions)
    nothing = np.zeros_like(macs)
    data_pj = moved(
        work, hardware, LEVELS,
        [
            list(counts),
            [work.groups * inputs * pixels * filter_tiles, work.values[1] * pixel_tiles, work.values[2]],
            [macs, done, nothing],
            [nothing, nothing, 2 * done],
        ],
        [
            [energy.dram] * 3, [energy.buffer, energy.weight_buffer or energy.buffer, energy.buffer], [energy.array] * 3,
            [energy.unit] * 3,
        ],
    )  # fmt: skip
    cycles = work.groups * pixel_tiles * filter_tiles * inputs / hardware.array.macs_per_cycle
    active = -(-pixels // pixel_tiles) * np.ceil(work.outputs / filter_tiles)
    mapping = f"pixel_tiles {pixel_tiles}, filter_tiles {int(filter_tiles[0])}, groups {int(work.groups[0])}"
    compute_pj = done * mac_pj(hardware, work.assumptions)
    return Costs(LEVELS, data_pj, compute_pj, cycles, dram_bytes(work, hardware, counts), active, macs, mapping)
