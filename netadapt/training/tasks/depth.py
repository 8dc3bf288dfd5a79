"""How far away every pixel is: L1 loss over the pixels whose depth is known, judged by δ1, RMSE and REL.

As in FastDepth (Wofk et al., 2019, https://arxiv.org/abs/1903.03273; metrics.py and the validation loop of main.py in
https://github.com/dwofk/fast-depth): every figure is the mean over an image's pixels and then over the images, so that each
image counts the same. Many others (Eigen et al., 2014) take all pixels together, which gives a somewhat higher RMSE. Unlike
FastDepth's, our figures leave out the pixels whose depth is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netadapt.training.recipe import Recipe, TrainSettings
from netadapt.training.types import Metric, Part

if TYPE_CHECKING:
    import torch
    from torch import Tensor


DELTA1 = 1.25
"""A pixel is right if prediction and truth differ by less than this factor."""
LEAST_M = 1e-3
"""A prediction below, which may even be negative, counts as this where factors are formed."""
MOST_ZOOM = 1.5
MOST_DEGREES = 5.0
JITTER = 0.4
ASPECT = 304 / 228
"""Images are squeezed into a square from crops of this width over height; rotations have to know."""
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow, which FastDepth's saturation comes from


class Depth:
    """Targets are stored as int16 millimetres (n, 1, h, w), 0 where not known, and used as metres; outputs are metres.

    16 bits hold up to 32.7 m at half the room of floats; signed, as torch can index and compare these on every device.
    """

    name = "depth"
    accuracy = Metric("delta1", "δ1", decimals=3)
    metrics = (
        Metric("rmse_m", "RMSE", decimals=3, unit="m", lower_is_better=True),
        Metric("rel", "REL", decimals=3, lower_is_better=True),
    )

    @property
    def recipe(self) -> Recipe:
        """FastDepth's batches of 8, momentum, weight decay and 20 epochs, but ten times its highest rate.

        FastDepth's 0.01 suits the raw NYU video, hundreds of times more pairs; the labelled ones make 100 batches an epoch, and
        after two of these a network is hardly better than a constant distance. Rates of 0.2 to 0.4 gained nothing over 0.1.
        """
        common: dict[str, Any] = {"batch_size": 8, "weight_decay": 1e-4}
        return Recipe(
            from_scratch=TrainSettings(0.1, epochs=20, schedule="one_cycle", **common),
            # random zooms and colours are more than so few batches can make good again
            short_term=TrainSettings(0.01, steps=20, schedule="constant", augment=False, **common),
            long_term=TrainSettings(0.05, epochs=10, schedule="cosine", **common),
        )

    def holds(self, images: Tensor, targets: Tensor) -> bool:
        n, _, height, width = images.shape
        return targets.shape == (n, 1, height, width) and str(targets.dtype) == "torch.int16"

    def unpacked(self, targets: Tensor) -> Tensor:
        return targets.float() / 1000

    def fits(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        return outputs == (images[0], 1, *images[2:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        known = _known(targets)
        missed = (outputs - targets.where(known, 0)).abs() * known
        return missed.sum() / known.sum().clamp(min=1)

    def judge(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Images without a single known depth are left out."""
        some = _known(targets).flatten(1).any(dim=1)
        found, true = outputs[some].float().flatten(1), targets[some].flatten(1)  # (n, pixels)
        known = _known(true)
        true = true.where(known, 1)  # any number that divides: these pixels do not count
        ratio = found.clamp(min=LEAST_M) / true
        missed = found - true
        right = ratio.maximum(1 / ratio) < DELTA1
        each = {"delta1": right, "rmse_m": missed.square(), "rel": missed.abs() / true}
        means = {name: (values * known).sum(dim=1) / known.sum(dim=1) for name, values in each.items()}
        return means | {"rmse_m": means["rmse_m"].sqrt()}

    def augmented(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Zoom, rotation, mirroring and colours as in FastDepth, in one resampling and one mixing of the colour channels.

        Left out for speed: the random order of the three changes of colour, the clipping of colours to what a camera can tell,
        and contrast is about the mean of all images rather than of each. What is rotated in from outside is of mean colour
        and unknown depth.
        """
        images, targets = warped(images, targets, generator, mirrored=part.mirrored)
        return recoloured(images, part, generator), targets


def _known(targets: Tensor) -> Tensor:
    return (targets > 0) & targets.isfinite()


def warped(images: Tensor, targets: Tensor, generator: torch.Generator, *, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Each enlarged about its middle by 1 to 1.5, which brings its depths as much nearer, rotated by up to 5°, mirrored or not."""
    import torch
    from torch.nn import functional

    n = len(images)
    zoom = 1 + (MOST_ZOOM - 1) * torch.rand(n, generator=generator)
    angle = math.radians(MOST_DEGREES) * (2 * torch.rand(n, generator=generator) - 1)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0) if mirrored else torch.ones(n)
    cosine, sine, zero = angle.cos() / zoom, angle.sin() / zoom, torch.zeros(n)
    # where a pixel of the new image, both coordinates from -1 to 1, comes from
    across = torch.stack([flip * cosine, -sine / ASPECT, zero], dim=1)
    down = torch.stack([flip * sine * ASPECT, cosine, zero], dim=1)
    matrix = torch.stack([across, down], dim=1).to(images.device)  # (n, 2, 3)
    grid = functional.affine_grid(matrix, [n, 1, *images.shape[-2:]], align_corners=False)
    nearer = targets / zoom.view(-1, 1, 1, 1).to(targets.device)
    return (
        functional.grid_sample(images, grid, mode="bilinear", align_corners=False),
        functional.grid_sample(nearer, grid, mode="nearest", align_corners=False),
    )


def recoloured(images: Tensor, part: Part, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation of each changed by up to 0.4 either way; normalised images in and out."""
    import torch

    n, channels, height, width = images.shape
    brightness, contrast, saturation = (1 + JITTER * (2 * torch.rand(3, n, generator=generator) - 1)).unbind()
    grey = torch.tensor(_GREY if channels == 3 else [1 / channels] * channels)
    kept = saturation.view(-1, 1, 1) * torch.eye(channels)  # (n, c, c): of each channel's own
    mixing = kept + (1 - saturation).view(-1, 1, 1) * grey.expand(channels, channels)
    black = torch.tensor([-mean / std for mean, std in zip(part.mean, part.std, strict=True)])
    gain = (brightness * contrast).view(-1, 1, 1)
    # brighter is further from black, more contrast is further from the mean, which is 0
    offset = (contrast * (1 - brightness)).view(-1, 1, 1) * black.view(1, -1, 1)
    mixed = torch.baddbmm(offset.to(images.device), (gain * mixing).to(images.device), images.flatten(2))  # (n, c, h * w)
    return mixed.view(n, channels, height, width)
