"""No local reuse: a grid of multipliers with adder trees and no memory of their own, as in DianNao (Chen et al., ASPLOS 2014).

In each cycle every multiplier reads a weight of its own from the weight buffer, each row reads an input, which all columns share,
and each column adds the products of its rows to a partial sum. The names of the taxonomy are those of Chen, Emer, Sze (ISCA 2016).
"""

from __future__ import annotations

import numpy as np

from profiler.modelled.hardware import Hardware
from profiler.modelled.work import Costs, Work, dram_bytes, dram_counts, mac_pj, moved, share_of_macs

VERSION = 1
LEVELS = ("dram", "buffer")


def cost(work: Work, hardware: Hardware) -> Costs:
    """The costs at each channel count."""
    rows, columns, energy = hardware.array.rows, hardware.array.cols, hardware.energy
    inputs, pixels = work.inputs * work.geometry.kernel, work.geometry.out_pixels
    row_steps, column_steps = np.ceil(inputs / rows), np.ceil(work.outputs / columns)
    macs, counts = work.macs, dram_counts(work, hardware)
    done = macs * share_of_macs(hardware.sparsity.gates, work.assumptions)
    in_buffer = [work.groups * inputs * pixels * column_steps, done, work.groups * work.outputs * pixels * row_steps]
    prices = [[energy.dram] * 3, [energy.buffer, energy.weight_buffer, energy.buffer]]
    data_pj = moved(work, hardware, LEVELS, [list(counts), in_buffer], prices)
    cycles = work.groups * row_steps * column_steps * pixels / hardware.array.macs_per_cycle
    active = np.ceil(inputs / row_steps) * np.ceil(work.outputs / column_steps)
    mapping = f"row_steps {int(row_steps[0])}, column_steps {int(column_steps[0])}"
    compute_pj = done * mac_pj(hardware, work.assumptions)
    return Costs(LEVELS, data_pj, compute_pj, cycles, dram_bytes(work, hardware, counts), active, macs, mapping)
