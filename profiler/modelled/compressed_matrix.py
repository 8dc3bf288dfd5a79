"""Products of compressed sparse matrices with sparse vectors, as in EIE (Han et al., ISCA 2016).

Only weights and inputs that are not zero are read and multiplied. The rows of the matrix are dealt out to the units, which have
equal work here, so that the cycles are the fewest that are possible. A convolution is such a product at each output pixel.
The weights stay in the memories of the units where all have room (`weight_buffer_bytes`), 8 bits each with their position.
"""

from __future__ import annotations

import numpy as np

from profiler.modelled.hardware import Hardware
from profiler.modelled.work import WEIGHT, Costs, Work, dram_bytes, mac_pj, moved, share_of_macs

VERSION = 1
LEVELS = ("dram", "buffer", "array")
STORED_BITS = 8


def cost(work: Work, hardware: Hardware) -> Costs:
    """The costs at each channel count."""
    energy, macs = hardware.energy, work.macs
    done = macs * share_of_macs(hardware.sparsity.skips, work.assumptions)
    nothing, weights = np.zeros_like(macs), work.values[WEIGHT]
    stored_bytes = weights * work.assumptions.weight_density * STORED_BITS / 8
    from_dram = np.where(stored_bytes > hardware.memory.weight_buffer_bytes, weights, 0.0)
    counts = np.stack([nothing, from_dram, nothing])
    prices = [[energy.dram] * 3, [energy.buffer, energy.weight_buffer, energy.buffer], [energy.array] * 3]
    data_pj = moved(work, hardware, LEVELS, [list(counts), [nothing, done, done], [done, nothing, nothing]], prices)
    cycles = done / hardware.units / hardware.array.macs_per_cycle / hardware.sparsity.balance
    active = np.minimum(work.outputs, hardware.units)
    cycles = cycles * hardware.units / active
    compute_pj = done * mac_pj(hardware, work.assumptions)
    return Costs(LEVELS, data_pj, compute_pj, cycles, dram_bytes(work, hardware, counts), active, macs, "")
