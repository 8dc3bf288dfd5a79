"""CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of 32 by 32 pixels in ten classes, 10,000 of them test images.

Three layouts: the folder of the official "binary version"; that of the "python version", which torchvision and Keras leave, also
of CIFAR-100; and an .npz file of lossless WebP strips of 100 images each (`webp`: the bytes of all strips; `offset`: where each
strip begins; `label`, `is_test` and `classes`).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from netadapt.training.datasets import DataError, batches_in
from netadapt.training.datasets.arrays import Array, read_arrays, read_image
from netadapt.training.datasets.images import LabelledImages, resized_or_streamed
from netadapt.training.datasets.plain_pickle import read_plain_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE  # a label, then the red, the green and the blue plane
_MOST_BYTES = 400_000_000  # all of CIFAR takes 180 MB
_ARRAYS = ("webp", "offset", "label", "is_test", "classes")


def load_cifar10(path: str, resolution: int) -> LabelledImages:
    """The images of either layout at this resolution. `DataError` if the path holds neither, or is damaged."""
    place = Path(path)
    if not path or not place.exists():
        raise DataError(f"there is no CIFAR-10 at {path!r}; give cifar10:PATH, a folder of data_batch_* or the .npz file")
    if place.is_dir():
        place, *others = batches_in(place) or [place]
        if others:
            raise DataError(f"there are several datasets in {path}, {place.name} and {others[0].name}; give the path of one")
    pickled = [file for name in ("data_batch_1", "train") if (file := place / name).is_file()]
    read = _read_npz if not place.is_dir() else _read_python_version if pickled else _read_folder
    try:
        images, labels, is_test, classes = read(place)
    except OSError as exc:
        raise DataError(f"{exc.filename or place} cannot be read: {exc.strerror or exc}") from exc
    targets = torch.from_numpy(labels.astype(np.int64))
    pixels = resized_or_streamed(torch.from_numpy(images), targets, resolution)
    return LabelledImages("cifar10", classes, pixels, targets, torch.from_numpy(is_test.astype(np.bool_)))


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


def _read_python_version(folder: Path) -> tuple[Array, Array, Array, tuple[str, ...]]:
    """The same from the files of the python version, which are pickles."""
    hundred = not (folder / "data_batch_1").is_file()
    training = [folder / "train"] if hundred else sorted(folder.glob("data_batch_?"))
    test, about = folder / ("test" if hundred else "test_batch"), folder / ("meta" if hundred else "batches.meta")
    if not test.is_file():
        raise DataError(f"{folder} is not the whole python version of CIFAR: {test.name} must be in it; download it again")
    images, labels, is_test = [], [], []
    for file in (*training, test):
        batch = _unpickled(file)
        pixels, classes = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
        if (
            not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.size != len(pixels) * 3 * _SIDE * _SIDE
            or not isinstance(classes, list) or len(classes) != len(pixels)
            or not all(isinstance(label, int) and 0 <= label < (100 if hundred else len(CLASSES)) for label in classes)
        ):  # fmt: skip
            raise DataError(f"{file} is not a batch of CIFAR: it must have data and as many labels; use another copy")
        images.append(pixels.reshape(-1, 3, _SIDE, _SIDE))
        labels += classes
        is_test += [file == test] * len(pixels)
    names = _unpickled(about).get("fine_label_names" if hundred else "label_names") if about.is_file() else None
    known = tuple(map(_text, names)) if isinstance(names, list) and len(names) == (100 if hundred else len(CLASSES)) else None
    others = tuple(map(str, range(100))) if hundred else CLASSES
    return np.concatenate(images), np.array(labels), np.array(is_test), known or others


def _unpickled(file: Path) -> dict[str, object]:
    """What a pickle of plain data holds, under names as text."""
    if file.stat().st_size > _MOST_BYTES:
        raise DataError(f"{file} is larger than all of CIFAR; use another copy")
    try:
        plain = read_plain_pickle(file.read_bytes())
    except ValueError as exc:
        raise DataError(f"{file} is not a batch of CIFAR, or damaged: {exc}; use another copy") from exc
    return {_text(name): value for name, value in plain.items()}


def _text(value: object) -> str:
    """A text of Python 2, which Python 3 has written as bytes when it saved the file again."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


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
