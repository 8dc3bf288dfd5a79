"""Images and labels as plain arrays: .npz files such as Keras' and MedMNIST's, and the idx files of MNIST and its relatives.

Images are (n, h, w), (n, h, w, c) or (n, c, h, w) with one or three channels. They are bytes, or floats from 0 to 1 or to 255, or
have 16 bits. Labels are numbers (n,) or (n, 1), or one-hot vectors (n, k). Nobody knows if a mirrored image is of the same class,
so none is mirrored.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netadapt.training.datasets import DataError, idx_in
from netadapt.training.datasets.arrays import DAMAGED_ARCHIVE, Array, read_arrays
from netadapt.training.datasets.images import LabelledImages, check_size, resized

_PAIRS = (
    ("x{}", "y{}"), ("{}x", "{}y"), ("{}images", "{}labels"), ("images{}", "labels{}"), ("{}data", "{}labels"),
    ("x", "y"), ("images", "labels"), ("image", "label"), ("data", "labels"), ("data", "target"), ("arr0", "arr1"),
)  # fmt: skip
"""The names, in lower case, without underscores and with the name of a part, under which images and their labels are found."""
_NEEDED = "x_train, y_train, x_test and y_test, or those of CIFAR-10: webp, offset, label, is_test, classes"
_IDX_BYTES = 0x08  # the data type of unsigned bytes
_MOST_BYTES = 2_000_000_000
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def load_npz(path: str, resolution: int) -> LabelledImages:
    """The images of an .npz file at this resolution. `DataError` if it has none with labels, or is damaged."""
    file = Path(path)
    if not path or not file.is_file():
        raise DataError(f"there is no file {path!r}; give npz:PATH, a file with the arrays {_NEEDED}")
    try:
        with zipfile.ZipFile(file) as archive:
            names = {
                Path(name).stem.lower().replace("_", ""): Path(name).stem for name in archive.namelist() if name.endswith(".npy")
            }
    except DAMAGED_ARCHIVE as exc:
        raise DataError(f"{file} is damaged or not an .npz file of plain arrays; use another copy") from exc
    pairs: dict[str, tuple[str, str]] = {}
    for part, word in (("train", "train"), ("val", "val"), ("val", "valid"), ("test", "test")):
        found = [(first.format(word), second.format(word)) for first, second in _PAIRS]
        both = next((pair for pair in found if all(name in names for name in pair)), None)
        if both and both not in pairs.values():
            pairs[part] = both
    if not pairs:
        raise DataError(
            f"{file} has the arrays {', '.join(sorted(names.values())[:8]) or 'none'}; give a file with the arrays {_NEEDED}"
        )
    arrays = read_arrays(file, [names[name] for pair in pairs.values() for name in pair], "images with labels in arrays")
    parts = {part: (arrays[names[first]], arrays[names[second]]) for part, (first, second) in pairs.items()}
    labelled = _labelled(file.stem, file, parts, resolution)
    used = {name for pair in pairs.values() for name in pair}
    unused = ", ".join(name for plain, name in names.items() if plain not in used)
    return replace(labelled, remarks=(*labelled.remarks, f"in it, {unused} is not used")) if unused else labelled


def load_idx(path: str, resolution: int) -> LabelledImages:
    """The images of MNIST or another dataset of the same form at this resolution. `DataError` if they are not there, or damaged."""
    folders = idx_in(Path(path)) if path and Path(path).is_dir() else []
    if not folders:
        raise DataError(
            f"there is no folder of idx files {path!r}; give idx:PATH, a folder with train-images-idx3-ubyte and others"
        )
    folder, *others = folders
    if others:
        raise DataError(f"there are several datasets in {path}, {folder} and {others[0]}; give the path of one")
    parts = {}
    for part, begin in (("train", "train"), ("test", "t10k"), ("test", "test")):
        files = [_idx_file(folder, f"*{begin}[-_.]{kind}?idx?[-_.]ubyte") for kind in ("images", "labels")]
        if files[0] and files[1]:
            parts[part] = _idx(files[0]), _idx(files[1])
    if "train" not in parts:
        raise DataError(f"{folder} lacks the training images or their labels; download train-images and train-labels again")
    name = folder.parent.name if folder.name == "raw" else folder.name
    fashion = "fashion" in str(folder).lower()
    return _labelled(name, folder, parts, resolution, _FASHION if fashion else ())


def _idx_file(folder: Path, pattern: str) -> Path | None:
    """The file of this name, or else the compressed one; None if there is neither."""
    plain, packed = ([file for file in sorted(folder.glob(f"{pattern}{end}")) if file.is_file()] for end in ("", ".gz"))
    found = plain or packed
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1].name} are of several datasets; give a folder with one of them")
    return found[0] if found else None


def _idx(file: Path) -> Array:
    """The array of bytes in an idx file, which may be compressed: two zeros, the data type, the number of axes, their sizes."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        zeros, kind, axes = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    except (OSError, EOFError, zlib.error, struct.error) as exc:
        raise DataError(f"{file} is not an idx file, or damaged; download it again") from exc
    if zeros or kind != _IDX_BYTES or len(data) - 4 - 4 * axes != int(np.prod(shape, dtype=object)):
        raise DataError(f"{file} is not an idx file of bytes, or damaged; download it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _labelled(
    name: str, place: Path, parts: Mapping[str, tuple[Array, Array]], resolution: int, names: tuple[str, ...] = ()
) -> LabelledImages:
    """The images of all parts together; validation images are the holdout or, where there are no test images, these."""
    found = dict(parts)
    if "train" not in found:
        raise DataError(f"{place} has no training images; give a file with the arrays {_NEEDED}")
    remarks = []
    if "val" in found and "test" not in found:
        found["test"] = found.pop("val")
        remarks.append("its validation images are the test part, as there is no other")
    elif "val" in found:
        remarks.append("its validation images are the holdout, whatever --holdout says")
    images = torch.cat([_images(pixels, place, resolution) for pixels, _ in found.values()])
    labels = np.concatenate([_labels(targets, len(pixels), place) for pixels, targets in found.values()])
    present, targets = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise DataError(f"{place} has images of one class only; there must be two or more")
    counts = torch.tensor([len(pixels) for pixels, _ in found.values()])
    part_of = torch.arange(len(found)).repeat_interleave(counts)
    is_part = {part: part_of == number for number, part in enumerate(found)}
    known = names if len(names) == len(present) else tuple(map(str, present))
    return LabelledImages(
        name, known, images, torch.from_numpy(targets.astype(np.int64)), is_part.get("test"), mirrored=False,
        is_holdout=is_part.get("val"), remarks=tuple(remarks),
    )  # fmt: skip


def _images(pixels: Array, place: Path, resolution: int) -> Tensor:
    """The middle squares of the images as uint8 (n, 3, resolution, resolution); grey ones in three equal channels."""
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim == 4 and pixels.shape[-1] not in (1, 3) and pixels.shape[1] in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise DataError(
            f"{place}: images of shape {pixels.shape} are not (n, h, w), or (n, h, w, c) with 1 or 3 channels; reshape them"
        )
    check_size(len(pixels), 3, resolution)
    side = min(pixels.shape[1:3])
    top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
    square = _eight_bits(pixels[:, top : top + side, left : left + side], place)
    images = torch.from_numpy(np.ascontiguousarray(square.transpose(0, 3, 1, 2)))
    return resized(images, resolution).expand(-1, 3, -1, -1)


def _eight_bits(pixels: Array, place: Path) -> Array:
    """The pixels as bytes, scaled by their data type and range."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype == np.uint16 and high > 255:
        scale = 1 / 257
    elif pixels.dtype.kind in "fb" and low >= 0 and high <= 1:
        scale = 255.0
    elif pixels.dtype.kind in "iuf" and low >= 0 and 1 < high <= 255:
        scale = 1.0
    else:
        raise DataError(
            f"{place}: pixels of type {pixels.dtype} from {low:g} to {high:g} are not those of images; give bytes from 0 to 255 or "
            "floats from 0 to 1, not yet normalised"
        )
    return np.round(pixels * scale).astype(np.uint8)


def _labels(targets: Array, count: int, place: Path) -> Array:
    """The number of each image's class (n,)."""
    flat = targets
    if targets.ndim == 2 and targets.shape[1] > 1 and np.all((targets == 0) | (targets == 1)) and np.all(targets.sum(axis=1) == 1):
        flat = targets.argmax(axis=1)  # one-hot
    elif targets.ndim == 2 and targets.shape[1] == 1:
        flat = targets[:, 0]
    if flat.shape != (count,) or flat.dtype.kind not in "iufb" or not np.all(np.isfinite(flat) & (flat == np.round(flat))):
        raise DataError(
            f"{place}: labels of type {targets.dtype} and shape {targets.shape} are not a class for each of {count} images"
        )
    return flat.astype(np.int64)
