"""Sizes of layers as linear expressions of the widths of blocks, such as `49 * pw13 + 0`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from profiler.errors import LayerError

WidthChoices = Mapping[str, Sequence[int]]
"""All widths that each block may have, in ascending order; the last is its full width."""


@dataclass(frozen=True, slots=True)
class ChannelExpression:
    """A size: a constant plus a multiple of the width of each block, all divided by a whole number."""

    constant: int
    blocks: Mapping[str, int]
    """The factor of each block's width."""
    divisor: int = 1

    def scaled(self, factor: int) -> ChannelExpression:
        """The expression times a factor."""
        return ChannelExpression(
            self.constant * factor, {block: times * factor for block, times in self.blocks.items()}, self.divisor
        )

    def over(self, divisor: int) -> ChannelExpression:
        """The expression divided by a whole number."""
        return replace(self, divisor=self.divisor * divisor)

    def plus(self, other: ChannelExpression) -> ChannelExpression:
        """The sum of both expressions."""
        if self.divisor != other.divisor:
            common = math.lcm(self.divisor, other.divisor)
            one, two = (replace(term.scaled(common // term.divisor), divisor=common) for term in (self, other))
            return one.plus(two)
        blocks = dict(self.blocks)
        for block, times in other.blocks.items():
            blocks[block] = blocks.get(block, 0) + times
        return ChannelExpression(self.constant + other.constant, blocks, self.divisor)

    def at(self, widths: Mapping[str, int]) -> int:
        """The size at these widths, which must contain all blocks of the expression. `LayerError` if it is no whole number."""
        total = self.constant + sum(times * widths[block] for block, times in self.blocks.items())
        if total % self.divisor:
            raise LayerError(f"{total} channels cannot be divided by {self.divisor}")
        return total // self.divisor

    def along(self, block: str, values: NDArray[np.int64], widths: Mapping[str, int]) -> NDArray[np.int64]:
        """The sizes for many widths `values` of one block, in the shape of `values`; the others keep `widths`."""
        rest = self.constant + sum(times * widths[name] for name, times in self.blocks.items() if name != block)
        return (rest + self.blocks.get(block, 0) * values) // self.divisor

    def choices(self, widths: WidthChoices, granularity: int) -> tuple[int, ...]:
        """All sizes that the expression can take, in ascending order.

        With several blocks their number would be a product, so these are the multiples of the granularity and the full size.
        """
        if not self.blocks:
            return (self.constant // self.divisor,)
        if len(self.blocks) > 1:
            full = self.at({block: widths[block][-1] for block in self.blocks})
            return tuple(sorted({*range(self.constant // self.divisor + granularity, full, granularity), full}))
        ((block, times),) = self.blocks.items()
        return tuple((self.constant + times * width) // self.divisor for width in widths[block])
