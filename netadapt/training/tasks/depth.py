"""Depth estimation: the distance of every pixel, learnt with an L1 loss and scored by δ1, RMSE and REL.

As in FastDepth (Wofk et al., 2019, https://arxiv.org/abs/1903.03273; metrics.py and the validation loop of main.py in
https://github.com/dwofk/fast-depth), every metric is the mean over an image's pixels and then over the images, so that each
image counts the same. Others (Eigen et al., 2014) average over the pixels of all images at once, which gives a slightly higher
RMSE. Unlike FastDepth's, the metrics leave out pixels whose depth is not known, as the loss does.
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
"""A pixel counts as right in δ1 if prediction and truth differ by less than this factor."""
MIN_PREDICTION_M = 1e-3
"""Lower predictions, which may be negative, are raised to this for δ1, which divides by them."""
MAX_ZOOM = 1.5
MAX_DEGREES = 5.0
COLOUR_JITTER = 0.4
"""The largest relative change of brightness, contrast and saturation. All three limits are FastDepth's."""
ASPECT = 304 / 228
"""Width over height of the crops that were squeezed into square images; a rotation must be of the crop, not of the square."""
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow, which FastDepth's change of saturation uses


class Depth:
    """The task of estimating depth. Outputs are metres (n, 1, h, w).

    Targets are stored as int16 millimetres (n, 1, h, w), 0 where the depth is not known, and decoded to metres. 16 bits hold up
    to 32.7 m in half the memory of floats; they are signed because torch indexes and compares signed integers on every device.
    """

    name = "depth"
    accuracy = Metric("delta1", "δ1", decimals=3)
    metrics = (
        Metric("rmse_m", "RMSE", decimals=3, unit="m", lower_is_better=True),
        Metric("rel", "REL", decimals=3, lower_is_better=True),
    )

    @property
    def recipe(self) -> Recipe:
        """The default trainings: FastDepth's batches of 8, momentum, weight decay and 20 epochs, but ten times its learning rate.

        FastDepth's 0.01 suits the raw NYU video, which has hundreds of times more pairs. The labelled pairs make 100 batches an
        epoch, and after two epochs at 0.01 a network is hardly better than a constant distance. Rates of 0.2 to 0.4 gained
        nothing over 0.1.
        """
        common: dict[str, Any] = {"batch_size": 8, "weight_decay": 1e-4}
        return Recipe(
            from_scratch=TrainSettings(0.1, epochs=20, schedule="one_cycle", **common),
            # so few batches cannot make up for what random zooms and colours disturb
            short_term=TrainSettings(0.01, steps=20, schedule="constant", augment=False, **common),
            long_term=TrainSettings(0.05, epochs=10, schedule="cosine", **common),
        )

    def accepts_targets(self, images: Tensor, targets: Tensor) -> bool:
        n, _, height, width = images.shape
        return targets.shape == (n, 1, height, width) and str(targets.dtype) == "torch.int16"

    def decode_targets(self, targets: Tensor) -> Tensor:
        return targets.float() / 1000

    def accepts_outputs(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        return outputs == (images[0], 1, *images[2:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        known = _known(targets)
        errors = (outputs - targets.where(known, 0)).abs() * known
        return errors.sum() / known.sum().clamp(min=1)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """δ1, RMSE and REL of every image, by their names; images without a single known depth are left out."""
        usable = _known(targets).flatten(1).any(dim=1)
        predicted, truth = outputs[usable].float().flatten(1), targets[usable].flatten(1)  # (k, pixels)
        known = _known(truth)
        truth = truth.where(known, 1)  # any divisor: these pixels get no weight below
        ratio = predicted.clamp(min=MIN_PREDICTION_M) / truth
        errors = predicted - truth
        pixels = {
            "delta1": ratio.maximum(1 / ratio) < DELTA1,
            "rmse_m": errors.square(),
            "rel": errors.abs() / truth,
        }
        means = {name: (values * known).sum(dim=1) / known.sum(dim=1) for name, values in pixels.items()}
        return means | {"rmse_m": means["rmse_m"].sqrt()}

    def augment(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batch with FastDepth's random zoom, rotation, mirroring and colours, in one resampling and one mixing of channels.

        Simplified for speed: the three changes of colour have a fixed order, colours are not clipped to the range of a camera,
        and contrast changes about the mean of all images instead of each image's own. Pixels that are rotated in from outside
        the image have the mean colour and no known depth.
        """
        images, targets = warped(images, targets, generator, mirrored=part.mirrored)
        return recoloured(images, part, generator), targets


def _known(targets: Tensor) -> Tensor:
    """True for every depth that is known, in the shape of the depths."""
    return (targets > 0) & targets.isfinite()


def warped(images: Tensor, targets: Tensor, generator: torch.Generator, *, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Images (n, c, h, w) and depths (n, 1, h, w), each pair zoomed in by 1 to 1.5, rotated by up to 5°, and perhaps mirrored.

    Depths are divided by the zoom, because an object that appears larger is nearer. Where `mirrored` is false nothing is flipped.
    """
    import torch
    from torch.nn import functional

    n = len(images)
    zoom = 1 + (MAX_ZOOM - 1) * torch.rand(n, generator=generator)
    angle = math.radians(MAX_DEGREES) * (2 * torch.rand(n, generator=generator) - 1)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0) if mirrored else torch.ones(n)
    cosine, sine, zero = angle.cos() / zoom, angle.sin() / zoom, torch.zeros(n)
    # the place in the old image of a pixel of the new one, with both coordinates from -1 to 1
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
    """Normalised images (n, c, h, w), each with its brightness, contrast and saturation multiplied by factors from 0.6 to 1.4.

    The three changes of an image are one affine map of its channels.
    """
    import torch

    n, channels, height, width = images.shape
    brightness, contrast, saturation = (1 + COLOUR_JITTER * (2 * torch.rand(3, n, generator=generator) - 1)).unbind()
    grey = torch.tensor(_GREY if channels == 3 else [1 / channels] * channels)
    own = saturation.view(-1, 1, 1) * torch.eye(channels)  # (n, c, c): the share of each channel in itself
    mixing = own + (1 - saturation).view(-1, 1, 1) * grey.expand(channels, channels)
    black = torch.tensor([-mean / std for mean, std in zip(part.mean, part.std, strict=True)])
    gain = (brightness * contrast).view(-1, 1, 1)
    # brightness scales the distance from black, contrast the distance from the mean, which is 0 in normalised images
    offset = (contrast * (1 - brightness)).view(-1, 1, 1) * black.view(1, -1, 1)
    mixed = torch.baddbmm(offset.to(images.device), (gain * mixing).to(images.device), images.flatten(2))  # (n, c, h * w)
    return mixed.view(n, channels, height, width)
