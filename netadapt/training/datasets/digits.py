"""The 1,797 handwritten digits of 8 by 8 pixels that come with scikit-learn: real images without a download.

They are from the UCI repository's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
"""

from __future__ import annotations

import torch
from sklearn import datasets

from netadapt.training.datasets import DataError
from netadapt.training.datasets.images import LabelledImages, resized

_LEVELS = 16  # a pixel is the number of dark dots in a square of 4 by 4


def load_digits(path: str, resolution: int) -> LabelledImages:
    """All digits in three equal channels, as networks for photographs expect, scaled to the resolution. `DataError` for a path.

    They have no test part of their own.
    """
    if path:
        raise DataError(f"digits come with scikit-learn and take no path, got {path!r}; give digits alone")
    bundle = datasets.load_digits()
    grey = torch.from_numpy(bundle.images).mul(255 / _LEVELS).round().byte().unsqueeze(1)  # (n, 1, 8, 8)
    images = resized(grey, resolution).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(bundle.target).long()
    return LabelledImages("digits", tuple(str(digit) for digit in range(10)), images, labels, is_test=None, mirrored=False)
