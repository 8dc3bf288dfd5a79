"""Datasets: squares that are dark or bright, to be told apart, and the same for the toy task."""

from __future__ import annotations

from dataclasses import replace

import torch

from netadapt.training.datasets.images import LabelledImages

COUNT = 80


def load_squares(path: str, resolution: int) -> LabelledImages:
    """Half are dark and half are bright, with noise from a seed of its own."""
    noise = torch.randint(0, 100, (COUNT, 3, resolution, resolution), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(COUNT) % 2
    images = (noise + 150 * labels.view(-1, 1, 1, 1)).byte()
    return LabelledImages("squares", ("dark", "bright"), images, labels, is_test=None)


def load_squares_for_toy_task(path: str, resolution: int) -> LabelledImages:
    return replace(load_squares(path, resolution), task="toy")
