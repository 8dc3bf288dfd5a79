"""An importance criterion: the last channels stay."""

from __future__ import annotations

from torch import Tensor

from netadapt.pruning.importance import Block


def last(block: Block, count: int, images: Tensor | None) -> list[int]:
    return list(range(block.positions - count, block.positions))
