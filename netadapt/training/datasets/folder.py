"""Any folder of pictures with a subfolder per class, itself or below train/ and test/ (or val/)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from netadapt.training.datasets import DataError, Pictures, check_size
from netadapt.training.datasets.arrays import NO_PICTURE, check_pixels

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_TEST_FOLDERS = ("test", "val", "valid", "validation")


def load_folder(path: str, resolution: int) -> Pictures:
    """Short side scaled to the resolution, the middle cut out. `DataError` names what is missing or the damaged picture."""
    root = Path(path)
    if not path or not root.is_dir():
        raise DataError(f"there is no folder {path!r}; give folder:PATH, a folder with a subfolder of pictures per class")
    training, test = _parts(root)
    classes = tuple(sorted(folder.name for folder in _subfolders(training) if _pictures_in(folder)))
    if not classes:
        raise DataError(f"there are no pictures in the subfolders of {training}; it must hold one subfolder per class")
    if len(classes) < 2:
        raise DataError(f"{training} holds pictures of one class only, {classes[0]!r}; there must be two subfolders or more")
    files = _labelled(training, classes)
    test_files = _labelled(test, classes) if test else []
    if test and not test_files:
        raise DataError(f"there are no pictures in the subfolders of {test}")
    check_size(len(files) + len(test_files), 3, resolution)
    images = torch.stack([_picture(file, resolution) for file, _ in (*files, *test_files)])
    labels = torch.tensor([label for _, label in (*files, *test_files)])
    is_test = torch.arange(len(labels)) >= len(files) if test else None
    return Pictures(root.name, classes, images, labels, is_test)


def _parts(root: Path) -> tuple[Path, Path | None]:
    training = root / "train"
    if not training.is_dir():
        return root, None
    return training, next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)


def _labelled(part: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    unknown = [folder.name for folder in _subfolders(part) if folder.name not in classes and _pictures_in(folder)]
    if unknown:
        raise DataError(f"{part / unknown[0]} is a class without training pictures")
    return [(file, label) for label, name in enumerate(classes) if (part / name).is_dir() for file in _pictures_in(part / name)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in _ENDINGS and file.is_file())


def _picture(file: Path, resolution: int) -> torch.Tensor:
    """uint8 (3, resolution, resolution)"""
    try:
        with Image.open(file) as picture:
            check_pixels(picture)
            pixels = _middle(picture.convert("RGB"), resolution)
    except NO_PICTURE as exc:
        raise DataError(f"{file} is not a picture, or damaged, or too large; mend or remove it") from exc
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _middle(picture: Image.Image, resolution: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    scale = resolution / min(picture.size)
    width, height = (max(resolution, round(side * scale)) for side in picture.size)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled.crop((left, top, left + resolution, top + resolution)))
