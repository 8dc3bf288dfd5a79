"""CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of 32 by 32 pixels in ten classes, 10,000 of them for the test.

Two layouts: the folder of the official "binary version", and an .npz file of lossless WebP strips of 100 images each
(`webp` the bytes of all strips, `offset` where each begins, `label`, `is_test` and `classes`).
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """`DataError` if it is neither of the two layouts, or damaged."""
    where = Path(path)
    if not path or not where.exists():
        raise DataError(f"there is no CIFAR-10 at {path!r}; give cifar10:PATH, a folder of data_batch_*.bin or the .npz file")
    images, labels, is_test, classes = _from_folder(where) if where.is_dir() else _from_npz(where)
    return LabelledImages(
        "cifar10", classes, resized(torch.from_numpy(images), resolution), torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(is_test.astype(np.bool_)),
    )  # fmt: skip


def _from_folder(folder: Path) -> tuple[Array, Array, Array, tuple[str, ...]]:
    training = sorted(folder.glob("data_batch_*.bin"))
    test = folder / "test_batch.bin"
    if not training or not test.is_file():
        raise DataError(f"{folder} is not the binary version of CIFAR-10: data_batch_1.bin to 5 and test_batch.bin must be in it")
    records = [_records(file) for file in (*training, test)]
    is_test = np.repeat([file == test for file in (*training, test)], [len(part) for part in records])
    together = np.concatenate(records)
    return together[:, 1:].reshape(-1, 3, _SIDE, _SIDE), together[:, 0], is_test, CLASSES


def _records(file: Path) -> Array:
    data = np.fromfile(file, dtype=np.uint8)
    if not data.size or data.size % _RECORD_BYTES:
        raise DataError(f"{file} is damaged: {data.size} bytes are no whole number of records of {_RECORD_BYTES}")
    records = data.reshape(-1, _RECORD_BYTES)
    if records[:, 0].max() >= len(CLASSES):
        raise DataError(f"{file} is damaged: a label is {records[:, 0].max()}, above 9")
    return records


def _from_npz(file: Path) -> tuple[Array, Array, Array, tuple[str, ...]]:
    arrays = read_arrays(file, _ARRAYS, "CIFAR-10")
    strips = list(_strips(file, arrays["webp"], arrays["offset"]))
    images = np.concatenate(strips).transpose(0, 3, 1, 2)  # (n, c, h, w)
    labels, is_test = arrays["label"], arrays["is_test"]
    classes = tuple(str(name) for name in arrays["classes"])
    if not len(images) == len(labels) == len(is_test) or labels.max() >= len(classes):
        raise DataError(f"{file} is damaged: its labels do not fit its {len(images)} images and {len(classes)} classes")
    return np.ascontiguousarray(images), labels, is_test, classes


def _strips(file: Path, webp: Array, offset: Array) -> Iterator[Array]:
    for number, (start, end) in enumerate(pairwise(offset.tolist())):
        try:
            yield np.asarray(read_image(webp[start:end]).convert("RGB")).reshape(-1, _SIDE, _SIDE, 3)
        except ValueError as exc:
            raise DataError(f"{file} is damaged: strip {number} is no image of {_SIDE} pixels' width") from exc
