"""CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of 32 by 32 pixels in ten classes, 10,000 of them test images.

Two layouts: the folder of the official "binary version", and an .npz file of lossless WebP strips of 100 images each
(`webp`: the bytes of all strips; `offset`: where each strip begins; `label`, `is_test` and `classes`).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from netadapt.training.datasets import DataError
from netadapt.training.datasets.arrays import Array, read_arrays, read_image
from netadapt.training.datasets.images import LabelledImages, resized

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE  # a label, then the red, the green and the blue plane
_ARRAYS = ("webp", "offset", "label", "is_test", "classes")


def load_cifar10(path: str, resolution: int) -> LabelledImages:
    """The images of either layout at this resolution. `DataError` if the path holds neither, or is damaged."""
    place = Path(path)
    if not path or not place.exists():
        raise DataError(f"there is no CIFAR-10 at {path!r}; give cifar10:PATH, a folder of data_batch_*.bin or the .npz file")
    images, labels, is_test, classes = _read_folder(place) if place.is_dir() else _read_npz(place)
    return LabelledImages(
        "cifar10", classes, resized(torch.from_numpy(images), resolution), torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(is_test.astype(np.bool_)),
    )  # fmt: skip


def _read_folder(folder: Path) -> tuple[Array, Array, Array, tuple[str, ...]]:
    """Images, uint8 (n, 3, 32, 32), labels (n,), which of them are test images (n,), and the names of the classes."""
    training, test = sorted(folder.glob("data_batch_*.bin")), folder / "test_batch.bin"
    if not training or not test.is_file():
        raise DataError(f"{folder} is not the binary version of CIFAR-10: data_batch_1.bin to 5 and test_batch.bin must be in it")
    files, batches = [*training, test], []
    for file in files:
        data = np.fromfile(file, dtype=np.uint8)
        if not data.size or data.size % _RECORD_BYTES:
            raise DataError(f"{file} is damaged: its {data.size} bytes are not whole records of {_RECORD_BYTES}; use another copy")
        batches.append(data.reshape(-1, _RECORD_BYTES))
        if (largest := batches[-1][:, 0].max()) >= len(CLASSES):
            raise DataError(f"{file} is damaged: it has the label {largest}, above {len(CLASSES) - 1}; use another copy")
    is_test = np.repeat([file == test for file in files], [len(batch) for batch in batches])
    records = np.concatenate(batches)
    return records[:, 1:].reshape(-1, 3, _SIDE, _SIDE), records[:, 0], is_test, CLASSES


def _read_npz(file: Path) -> tuple[Array, Array, Array, tuple[str, ...]]:
    """The same as of a folder, from the .npz file."""
    arrays = read_arrays(file, _ARRAYS, "CIFAR-10")
    strips = []
    for number, (start, end) in enumerate(pairwise(arrays["offset"].tolist())):
        try:
            strip = read_image(arrays["webp"][start:end]).convert("RGB")
            strips.append(np.asarray(strip).reshape(-1, _SIDE, _SIDE, 3))
        except ValueError as exc:
            raise DataError(f"{file} is damaged: strip {number} is no image {_SIDE} pixels wide; use another copy") from exc
    images = np.concatenate(strips).transpose(0, 3, 1, 2)  # (n, c, h, w)
    labels, is_test, classes = arrays["label"], arrays["is_test"], tuple(str(name) for name in arrays["classes"])
    if not len(images) == len(labels) == len(is_test) or labels.max() >= len(classes):
        raise DataError(
            f"{file} is damaged: its labels do not fit its {len(images)} images and {len(classes)} classes; use another copy"
        )
    return np.ascontiguousarray(images), labels, is_test, classes
