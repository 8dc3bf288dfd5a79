"""Row-stationary dataflow: Eyeriss (Chen, Emer, Sze, ISCA 2016; Chen et al., JSSC 2017).

A set of units computes a strip of `strip` output rows: each unit keeps a row of a filter and slides it over a row of the input;
partial sums move up through the rows of the kernel. A unit interleaves `channels` input channels of `filters` filters. The array
holds several sets: `channel_sets` over input channels, whose sums are added on their way, and `filter_sets` over filters. `images`
images are processed together. The shared buffer keeps inputs of a pass and partial sums of `held` filters.

The mapping of least energy is searched among those that fit, with sets in powers of two, for all channel counts at once. Every
count of accesses rises with the channels under each mapping, so that the energy of the best mapping rises too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import lru_cache

import numpy as np

from profiler.errors import HardwareError
from profiler.modelled.hardware import Hardware, Mapped, UnitArray
from profiler.modelled.work import (
    Array,
    Costs,
    Geometry,
    Work,
    mac_pj,
    share_of_macs,
    stored_bits,
    total,
)

VERSION = 1
LEVELS = ("dram", "buffer", "array", "unit")
_POWERS = tuple(2**power for power in range(12))
"""The numbers of sets that are tried: channels of networks are multiples of powers of two."""
_SMALL = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)


@dataclass(frozen=True, slots=True)
class Mappings:
    """The mappings that fit, as columns of shape (mapping, 1)."""

    strip: Array
    channels: Array
    filters: Array
    channel_sets: Array
    filter_sets: Array
    images: Array
    held: Array
    """Filters of which partial sums are in the buffer at once, as whole passes, ..."""
    room: Array
    """... and the most that have room there, if these are all."""
    kernel_rows: int
    """Rows of a filter that the array has room for; taller filters are folded, ..."""
    folds: int
    """... into so many parts."""
    column_tiles: int
    """Parts of a row, for images of which no strip fits into the buffer."""


def cost(work: Work, hardware: Hardware) -> Costs:
    """The costs of the mapping of least energy at each channel count. `HardwareError` if no mapping fits."""
    found = mappings(work.geometry, hardware) if work.mapping is None else _given(work.geometry, hardware, work.mapping)
    energy, assumptions, geometry = hardware.energy, work.assumptions, work.geometry
    images, folds = float(geometry.batch), found.folds
    strips, image_groups = np.ceil(geometry.out_height / found.strip), np.ceil(images / found.images)
    columns = -(-geometry.out_width // found.column_tiles)
    rows = (found.strip - 1) * geometry.stride_height + (found.kernel_rows - 1) * geometry.dilation_height + 1
    # input channels of a group, a folded filter counting as several
    inputs, outputs, groups = work.inputs * folds, work.outputs, work.groups
    channel_passes = np.ceil(inputs / (found.channels * found.channel_sets))
    filter_passes = np.ceil(outputs / (found.filters * found.filter_sets))
    psums = groups * outputs * geometry.out_pixels

    # DRAM: a strip is read with the rows that it shares with the next one; inputs once for each group of filters that is held
    read_columns = geometry.in_width if found.column_tiles == 1 else geometry.columns_of(columns) * found.column_tiles
    whole_rows = (found.strip - 1) * geometry.stride_height + (geometry.kernel_height - 1) * geometry.dilation_height + 1
    read_rows = np.where(strips > 1, strips * np.minimum(whole_rows, geometry.in_height), geometry.in_height)
    once = groups * work.inputs * images
    dram = [
        once * read_rows * read_columns * np.where(outputs <= found.room, 1, np.ceil(outputs / found.held)),
        groups * work.inputs * outputs * geometry.kernel * image_groups * strips * found.column_tiles,
        psums + np.zeros_like(found.strip),
    ]
    # the shared buffer: an input once per pass; partial sums there and back between passes, the last time to DRAM
    passing = groups * inputs * images * strips * rows * geometry.columns_of(columns) * found.column_tiles
    weights = groups * work.inputs * outputs * geometry.kernel * image_groups * strips * found.column_tiles
    buffer = [passing * filter_passes, weights, psums * (2 * channel_passes - 2)]
    # between units: each set receives the inputs of its pass, in each row of the kernel; a weight goes to all rows of a strip
    array = [
        passing * np.ceil(outputs / found.filters) * found.kernel_rows,
        weights / strips * geometry.out_height,
        psums * (found.kernel_rows * np.ceil(inputs / found.channels) - channel_passes),
    ]
    macs = work.macs
    done = macs * share_of_macs((*hardware.sparsity.gates, *hardware.sparsity.skips), assumptions)
    # in a unit: an input is read to see whether it is zero, unless zeros are skipped; weight, partial sum there and back
    reads = done if "input" in hardware.sparsity.skips else macs
    unit = [reads, done, 2 * done]

    counts, shape = (dram, buffer, array, unit), np.broadcast_shapes(found.strip.shape, macs.shape)
    prices = [[energy.dram] * 3, [energy.buffer, energy.weight_buffer, energy.buffer], [energy.array] * 3, [energy.unit] * 3]
    pj = [
        [
            price * energy.unit_pj / hardware.word_bits * stored_bits(hardware, assumptions, kind, level)
            for kind, price in enumerate(costs)
        ]
        for level, costs in zip(LEVELS, prices, strict=True)
    ]
    by_level = [
        sum((count * each for count, each in zip(counts[level], pj[level], strict=True)), np.zeros(shape)) for level in range(4)
    ]
    stored_bytes = [stored_bits(hardware, assumptions, kind, "dram") / 8 for kind in range(3)]
    outside_bytes = sum((count * each for count, each in zip(dram, stored_bytes, strict=True)), np.zeros(shape))
    compute_pj = done * mac_pj(hardware, assumptions)
    passes = groups * channel_passes * filter_passes * strips * image_groups * found.column_tiles
    in_pass = found.channels * found.filters * geometry.kernel_width * columns * found.images
    skipped = share_of_macs(hardware.sparsity.skips, assumptions) / hardware.sparsity.balance
    cycles = passes * in_pass * skipped / hardware.array.macs_per_cycle

    whole = total(hardware, compute_pj, by_level[1] + by_level[2] + by_level[3], cycles, by_level[0], outside_bytes)
    best = np.argmin(whole.energy_pj + 1e-9 * cycles, axis=0)  # of equal energy, the faster one
    at = (best, np.arange(len(best)))
    sets = np.minimum(found.channel_sets, np.ceil(inputs / found.channels)) * np.minimum(
        found.filter_sets, np.ceil(outputs / found.filters)
    )
    chosen = [[np.broadcast_to(count, shape)[at] for count in kinds] for kinds in counts]
    return Costs(
        LEVELS,
        np.array([[count * each for count, each in zip(*pair, strict=True)] for pair in zip(chosen, pj, strict=True)]),
        compute_pj,
        cycles[at],
        np.array([count * each for count, each in zip(chosen[0], stored_bytes, strict=True)]),
        (found.kernel_rows * found.strip * sets)[at],
        macs,
        _text(found, int(best[0])),
    )


@lru_cache(maxsize=4096)
def mappings(geometry: Geometry, hardware: Hardware) -> Mappings:
    """All mappings that fit."""
    folds = -(-geometry.kernel_height // hardware.array.rows)
    kernel_rows = -(-geometry.kernel_height // folds)
    words = hardware.memory.buffer_bytes * 8 // hardware.word_bits
    column_tiles = 1
    while column_tiles <= geometry.out_width:
        columns = -(-geometry.out_width // column_tiles)
        found = [
            fitted
            for strip in _strips(geometry.out_height, hardware.array, kernel_rows)
            for images in sorted({min(2**power, geometry.batch) for power in range(geometry.batch.bit_length() + 1)})
            for fitted in _fitted(geometry, hardware, words, kernel_rows, columns, strip, images)
        ]
        if found:
            break
        column_tiles *= 2
    else:
        raise HardwareError(
            f"{hardware.name} has no room for a row of {geometry.in_width} pixels with a kernel of {geometry.kernel_height}x"
            f"{geometry.kernel_width}; give a description with a larger buffer or memory of its units"
        )
    return _mappings(np.array(found, dtype=np.float64), kernel_rows, folds, column_tiles)


def _mappings(table: Array, kernel_rows: int, folds: int, column_tiles: int) -> Mappings:
    """Of an array of shape (mapping, field), with the fields in the order of `Mappings`."""
    strip, channels, filters, channel_sets, filter_sets, images, held, room = (column[:, None] for column in table.T)
    return Mappings(
        strip, channels, filters, channel_sets, filter_sets, images, held, room, kernel_rows, folds, column_tiles
    )  # fmt: skip


def _given(geometry: Geometry, hardware: Hardware, mapping: Mapped) -> Mappings:
    folds = -(-geometry.kernel_height // hardware.array.rows)
    table = np.array([[*astuple(mapping), mapping.held]], dtype=np.float64)
    return _mappings(table, -(-geometry.kernel_height // folds), folds, 1)


def _strips(out_height: int, array: UnitArray, kernel_rows: int) -> list[int]:
    """The tallest equal strips of which a power of two fit side by side, or of which one is folded over the array's height."""
    limits = [array.cols // power for power in _POWERS] + [array.cols * fold for fold in range(1, array.rows // kernel_rows + 1)]
    return sorted({-(-out_height // -(-out_height // limit)) for limit in limits if limit})


def _fitted(
    geometry: Geometry, hardware: Hardware, words: int, kernel_rows: int, columns: int, strip: int, images: int
) -> Iterator[tuple[int, ...]]:
    """The mappings with this strip and so many images that fit, in the order of the fields of `Mappings`."""
    memory, array, width = hardware.memory, hardware.array, geometry.kernel_width
    across = array.cols // strip
    sets = array.rows // kernel_rows * across if across else array.rows // kernel_rows // -(-strip // array.cols)
    rows = (strip - 1) * geometry.stride_height + (kernel_rows - 1) * geometry.dilation_height + 1
    for channels in _SMALL:
        if memory.unit_words:
            most = (memory.unit_words - channels * width) // (channels * width + 1)
        else:
            most = min(memory.unit_weight_words // (channels * width), memory.unit_psum_words)
            most = most if channels * width <= memory.unit_input_words else 0
        for channel_sets in _POWERS:
            left = words - images * channels * channel_sets * rows * geometry.columns_of(columns)
            room = left // (images * strip * columns)
            if most < 1 or channel_sets > sets or room < 1:
                break
            filter_sets = max(power for power in _POWERS if power <= min(sets // channel_sets, room))
            # the most filters that fit, and a round number of them, which divides the filters of more layers
            for filters in {most, max(size for size in _SMALL if size <= most)}:
                fitting = min(filters, room // filter_sets)
                held = room // (fitting * filter_sets) * fitting * filter_sets
                yield strip, channels, fitting, channel_sets, filter_sets, images, held, room


def _text(found: Mappings, place: int) -> str:
    each = {
        "strip": found.strip, "channels": found.channels, "filters": found.filters, "channel_sets": found.channel_sets,
        "filter_sets": found.filter_sets, "images": found.images, "held": found.held,
    }  # fmt: skip
    return ", ".join(f"{name} {int(values[place, 0])}" for name, values in each.items())
