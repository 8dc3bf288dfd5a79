"""scikit-learn's handwritten digits on cluttered backgrounds: a task that tells networks apart in minutes, without a download.

Each image has one digit in a colour of its own, turned, scaled and placed at random, among pieces of other digits, on a background
that blends two colours. The idea is that of cluttered MNIST (Mnih et al., 2014, https://arxiv.org/abs/1406.6247), the digits are
those of `digits.py`. Test images are made of digits that no other image has, as a whole or in pieces.
"""

from __future__ import annotations

import math

import torch
from sklearn import datasets
from torch import Tensor
from torch.nn import functional

from netadapt.training.datasets import DataError
from netadapt.training.datasets.images import LabelledImages, check_size

IMAGES = 8000
_MIN_IMAGES = 20
_TEST_SHARE = 0.2
"""Of the digits, and of the images made of them."""
_SEED = 0  # the images are always the same; the seed of a run only changes the holdout
_LEVELS = 16  # a pixel of a digit is the number of dark dots in a square of 4 by 4
_SIZES = (0.6, 0.9)  # of a digit, in sides of the image
_TURN = math.radians(15)
_PIECE = 4  # pixels of a digit
_PIECES = 4  # in each image, half of them over the digit
_PIECE_SIZES = (0.1, 0.25)
_CHUNK = 50  # images that are drawn at once, which then stay in the processor's cache


def load_clutter(path: str, resolution: int) -> LabelledImages:
    """The images for `clutter`, or as many as `clutter:COUNT` asks for. `DataError` if the count is not a number of at least 20."""
    if path and not (path.isdecimal() and int(path) >= _MIN_IMAGES):
        raise DataError(
            f"these images are drawn here and have no path; give clutter, or clutter:COUNT from {_MIN_IMAGES}, not {path!r}"
        )
    count = int(path or IMAGES)
    check_size(count, 3, resolution)
    bundle = datasets.load_digits()
    generator = torch.Generator().manual_seed(_SEED)
    order = torch.randperm(len(bundle.target), generator=generator)
    digits = (torch.from_numpy(bundle.images).float() / _LEVELS)[order]  # (1797, 8, 8)
    labels = torch.from_numpy(bundle.target).long()[order]
    images, targets = torch.empty((count, 3, resolution, resolution), dtype=torch.uint8), torch.empty(count, dtype=torch.int64)
    testing, test_digits = round(_TEST_SHARE * count), round(_TEST_SHARE * len(digits))
    for part, source in ((slice(testing), slice(test_digits)), (slice(testing, count), slice(test_digits, None))):
        chosen = torch.randint(len(digits[source]), (len(targets[part]),), generator=generator)
        targets[part] = labels[source][chosen]
        for one, drawn in zip(chosen.split(_CHUNK), images[part].split(_CHUNK), strict=True):
            drawn.copy_(_drawn(digits[source], one, resolution, generator))
    is_test = torch.arange(count) < testing
    return LabelledImages("clutter", tuple(map(str, range(10))), images, targets, is_test, mirrored=False)


def _drawn(digits: Tensor, chosen: Tensor, resolution: int, generator: torch.Generator) -> Tensor:
    """Images, uint8 (n, 3, r, r), of the chosen digits (n,) among pieces of all `digits` (k, 8, 8)."""
    count = len(chosen)
    pieces = digits.unfold(1, _PIECE, 1).unfold(2, _PIECE, 1).flatten(0, 2)
    images = _background(count, resolution, generator)
    for number in range(_PIECES + 1):
        if number == _PIECES // 2:
            shapes, sizes, turn = digits[chosen], _SIZES, _TURN
        else:
            shapes = pieces[torch.randint(len(pieces), (count,), generator=generator)]
            sizes, turn = _PIECE_SIZES, math.pi
        size = _uniform((count,), *sizes, generator)
        angle = _uniform((count,), -turn, turn, generator)
        place = _uniform((count, 2), -1, 1, generator) * (1 - size)[:, None]
        # grid_sample asks where in the shape each pixel of the image is: the other way round than it is moved
        turned = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2) / size[:, None, None]
        affine = torch.cat([turned, -turned @ place[:, :, None]], 2)
        grid = functional.affine_grid(affine, [count, 1, resolution, resolution], align_corners=False)
        cover = functional.grid_sample(shapes[:, None], grid, align_corners=False)
        colour = _uniform((count, 3, 1, 1), 0.5, 1, generator)
        images = images * (1 - cover) + colour * cover
    dark_on_light = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
    return (255 * torch.where(dark_on_light, 1 - images, images)).round().clamp(0, 255).byte()


def _background(count: int, resolution: int, generator: torch.Generator) -> Tensor:
    """Two dark colours that blend along a random direction, (n, 3, r, r)."""
    steps = torch.linspace(-1, 1, resolution)
    angle = _uniform((count, 1, 1, 1), 0, 2 * math.pi, generator)
    blend = (angle.cos() * steps + angle.sin() * steps[:, None]) / (2 * math.sqrt(2)) + 0.5
    one, other = (_uniform((count, 3, 1, 1), 0, 0.55, generator) for _ in range(2))
    return one * blend + other * (1 - blend)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low
