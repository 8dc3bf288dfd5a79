"""Any folder of images with a subfolder per class, either in the folder itself or in its train/ and test/ (or val/)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from netadapt.training.datasets import DataError
from netadapt.training.datasets.arrays import INVALID_IMAGE, check_pixels
from netadapt.training.datasets.images import LabelledImages, check_size

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_TEST_FOLDERS = ("test", "val", "valid", "validation")


def load_folder(path: str, resolution: int) -> LabelledImages:
    """The images of a folder, each with its shorter side scaled to the resolution and the middle square cut out.

    `DataError` names what is missing, or the image that is damaged.
    """
    root = Path(path)
    if not path or not root.is_dir():
        raise DataError(f"there is no folder {path!r}; give folder:PATH, a folder with a subfolder of images per class")
    training, test = root, None
    if (root / "train").is_dir():
        training, test = root / "train", next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)
    classes = tuple(sorted(folder.name for folder in _subfolders(training) if _images_in(folder)))
    if not classes:
        raise DataError(f"there are no images in the subfolders of {training}; it must hold one subfolder per class")
    if len(classes) < 2:
        raise DataError(f"{training} holds images of one class only, {classes[0]!r}; there must be two subfolders or more")
    files = _labelled(training, classes)
    test_files = _labelled(test, classes) if test else []
    if test and not test_files:
        raise DataError(f"there are no images in the subfolders of {test}; add some, or remove the folder")
    check_size(len(files) + len(test_files), 3, resolution)
    images = torch.stack([_image(file, resolution) for file, _ in (*files, *test_files)])
    labels = torch.tensor([label for _, label in (*files, *test_files)])
    is_test = torch.arange(len(labels)) >= len(files) if test else None
    return LabelledImages(root.name, classes, images, labels, is_test)


def _labelled(part: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """The image files below this folder, each with the number of its class."""
    unknown = [folder for folder in _subfolders(part) if folder.name not in classes and _images_in(folder)]
    if unknown:
        raise DataError(f"{unknown[0]} is a class without training images; add some, or remove the folder")
    return [(file, label) for label, name in enumerate(classes) if (part / name).is_dir() for file in _images_in(part / name)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in _ENDINGS and file.is_file())


def _image(file: Path, resolution: int) -> torch.Tensor:
    """The middle square of an image file, uint8 (3, resolution, resolution)."""
    try:
        with Image.open(file) as image:
            check_pixels(image)
            colours = image.convert("RGB")
            scale = resolution / min(colours.size)
            width, height = (max(resolution, round(side * scale)) for side in colours.size)
            left, top = (width - resolution) // 2, (height - resolution) // 2
            scaled = colours.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(scaled.crop((left, top, left + resolution, top + resolution)))
    except INVALID_IMAGE as exc:
        raise DataError(f"{file} is not an image, or damaged, or too large; replace or remove it") from exc
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
