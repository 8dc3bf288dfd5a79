"""Any folder of images with a subfolder per class, either in the folder itself or in its train/, val/ and test/."""

from __future__ import annotations

import math
import os
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from device_agents.support.stand_ins import stand_in
from device_agents.support.text import did_you_mean
from netadapt.training.datasets import DataError, what_it_is
from netadapt.training.datasets.arrays import INVALID_IMAGE, check_pixels
from netadapt.training.datasets.images import ImageSource, LabelledImages, damaged, is_small

_ENDINGS = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".jp2", ".tga",
})  # fmt: skip
_OTHER_ENDINGS: Mapping[str, str] = {
    ".heic": "HEIC", ".heif": "HEIC", ".avif": "AVIF", ".jxl": "JPEG XL", ".svg": "SVG", ".psd": "Photoshop", ".dng": "raw",
    ".cr2": "raw", ".cr3": "raw", ".nef": "raw", ".arw": "raw", ".orf": "raw", ".rw2": "raw", ".raf": "raw", ".dcm": "DICOM",
}  # fmt: skip
"""The kinds of images that are not read, by their endings."""
_PARTS: Mapping[str, str] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "holdout": "val", "eval": "val", "evaluation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What a folder is by a word of its name, in lower case: train, and also train_images, seg_train and train2017."""
_WORDS = re.compile(r"[^\W\d_]+")
_END = re.compile(r"(?:set|data|images?|imgs?|split)$")
_LITTER = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}
)
"""Names, in lower case, of what operating systems and other programs put into folders, beside those that begin with a dot."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What sets an image upright, by its EXIF orientation; 1 is upright."""
_DAMAGED_EXIF = (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, struct.error)
_DRAFT = 2
"""JPEGs are unpacked at this many times the resolution or more."""
_WHITE = (255, 255, 255)


@dataclass(slots=True)
class _LeftOut:
    """The files below the folder that are not learnt from."""

    skip_damaged: bool
    others: Counter[str] = field(default_factory=Counter)
    """The number of files that are no images, by ending."""
    damaged: list[Path] = field(default_factory=list)

    def remarks(self, root: Path) -> list[str]:
        found = []
        if litter := sum(_is_litter(file.name) and not _within_litter(file.parent, root) for file in root.rglob("*")):
            found.append(f"{litter} files and folders of other programs in it, such as those that begin with a dot, are left out")
        if self.others:
            endings = ", ".join(f"{many} {ending or 'without an ending'}" for ending, many in self.others.most_common(3))
            found.append(f"{self.others.total()} files in it are no images by their endings and are left out: {endings}")
        if self.damaged:
            found.append(f"{len(self.damaged)} images in it that cannot be read are left out, such as {self.damaged[0]}")
        return found


def load_folder(path: str, resolution: int) -> LabelledImages:
    """The images of a folder, each with its shorter side scaled to the resolution and the middle square cut out.

    `DataError` names what is missing, or the image that is damaged.
    """
    return _load(path, resolution, _LeftOut(skip_damaged=False))


def load_readable(path: str, resolution: int) -> LabelledImages:
    """The same without the images that are damaged or of a kind that is not read."""
    return _load(path, resolution, _LeftOut(skip_damaged=True))


def _load(path: str, resolution: int, left_out: _LeftOut) -> LabelledImages:
    root = Path(path)
    if not path or not root.is_dir():
        raise DataError(f"there is no folder {path!r}; give folder:PATH, a folder with a subfolder of images per class")
    parts, remarks = _parts(_inner(root))
    training = parts["train"]
    classes = tuple(folder.name for folder in _subfolders(training) if _has_images(folder))
    if not classes:
        if _own_images(training):
            raise DataError(f"{training} holds images without classes; move each into a subfolder that is called as its class")
        raise DataError(f"there are no images in the subfolders of {training}; it must hold one per class{_held_instead(training)}")
    if len(classes) < 2:
        raise DataError(f"{training} holds images of one class only, {classes[0]!r}; there must be two subfolders or more")
    files: list[tuple[Path, int, str]] = []
    for part, folder in parts.items():
        files += [(file, label, part) for file, label in _labelled(folder, classes, left_out)]
    remarks += [
        f"there are no images of {classes[label]!r} in its {part} part"
        for part in parts
        for label in sorted(set(range(len(classes))) - {label for _, label, where in files if where == part})[:1]
    ]
    if not is_small(len(files), 3, resolution):

        def read(number: int) -> tuple[torch.Tensor, torch.Tensor]:
            file, label, _ = files[number]
            return _image(file, resolution), torch.tensor(label)

        source = ImageSource(len(files), read, lambda number: str(files[number][0].relative_to(root)), left_out.skip_damaged)
        masks = {part: torch.tensor([name == part for _, _, name in files]) for part in parts}
        return LabelledImages(
            root.name, classes, source, torch.tensor([label for _, label, _ in files]), masks.get("test"),
            is_holdout=masks.get("val"), remarks=(*remarks, *left_out.remarks(root)),
        )  # fmt: skip
    images, labels, of_part = [], [], []
    first: DataError | None = None
    for file, label, part in files:
        try:
            images.append(_image(file, resolution))
        except DataError as exc:
            left_out.damaged.append(file)
            first = first or exc
            continue
        labels.append(label)
        of_part.append(part)
    if first is not None and not left_out.skip_damaged:
        raise damaged(first, len(left_out.damaged), len(files)) from first
    if empty := [folder for part, folder in parts.items() if part not in of_part]:
        raise DataError(f"no image below {empty[0]} can be read; check the files")
    masks = {part: torch.tensor([name == part for name in of_part]) for part in parts}
    return LabelledImages(
        root.name, classes, torch.stack(images), torch.tensor(labels), masks.get("test"), is_holdout=masks.get("val"),
        remarks=(*remarks, *left_out.remarks(root)),
    )  # fmt: skip


def _held_instead(folder: Path) -> str:
    """What the largest file is in a folder without images, as the end of a sentence."""
    files = [file for file in folder.rglob("*") if file.is_file() and not _within_litter(file, folder)]
    if not files:
        return ""
    largest = max(files, key=lambda file: file.stat().st_size)
    return f", but {largest.relative_to(folder)} in it is {what_it_is(largest) or 'no image'}"


def _inner(root: Path) -> Path:
    """The folder itself, or the only one in it, as archives often hold a folder of everything."""
    while True:
        children = [child for child in _subfolders(root) if _has_images(child)]  # annotations may lie beside the images
        if len(children) != 1 or _own_images(root) or _own_images(children[0]) or not _subfolders(children[0]):
            return root
        root = children[0]


def _parts(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each part, the training images first, with sentences about how the folders were understood."""
    remarks: list[str] = []
    parts: dict[str, Path] = {}
    others: list[Path] = []
    for folder in _subfolders(root):
        part = _part_of(folder)
        # a class may have such a name too, but it holds images and not classes
        if part is None or not any(_has_images(child) for child in _subfolders(folder)):
            others.append(folder)
        elif part in parts:
            raise DataError(f"{parts[part].name} and {folder.name} in {root} may both be the {part} part; rename or remove one")
        else:
            parts[part] = _inner(folder)
    if "train" not in parts:
        named = [folder.name for folder in others if _part_of(folder) and _has_images(folder)]
        with_images = [folder.name for folder in others if _has_images(folder)]
        if parts:
            names = " and ".join(folder.name for folder in parts.values())
            raise DataError(f"{root} has {names}, but no train folder; move the training images, with their classes, into one")
        if named and named == with_images:  # or else the parts would be the classes
            raise DataError(f"{' and '.join(named)} in {root} hold images without classes; give each a subfolder per class")
        if alike := _alike(root):
            raise DataError(
                f"{' and '.join(folder.name for folder in alike)} in {root} have the same subfolders, as parts of a dataset "
                "have and not classes; call them train, val and test, or give the path of one of them"
            )
        return {"train": root}, []
    classes = {child.name.lower() for child in _subfolders(parts["train"])}
    for part in parts.keys() - {"train"}:
        inside = [child.name.lower() for child in _subfolders(parts[part]) if _has_images(child)]
        if len(inside) == 1 and inside[0] not in classes:  # val/images, for example, of which a table has the classes
            others.append(parts.pop(part))
    unused = [folder.name for folder in others if _has_images(folder)]
    if unused:
        remarks.append(f"{', '.join(unused[:5])} in it, beside {parts['train'].name}, is no part with classes and is left out")
    if "val" in parts and "test" not in parts:
        parts["test"] = parts.pop("val")
        remarks.append(f"{parts['test'].name} in it is the test part, as there is no other")
    elif "val" in parts:
        remarks.append(f"{parts['val'].name} in it is the holdout, whatever --holdout says")
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}, remarks


def _alike(root: Path) -> list[Path]:
    """The subfolders, if there are two or more, that hold images in the same two or more subfolders, and none beside these."""
    folders = [folder for folder in _subfolders(root) if _has_images(folder)]
    inside = [{child.name for child in _subfolders(folder) if _has_images(child)} for folder in folders]
    same = len(folders) > 1 and len(inside[0]) > 1 and all(names == inside[0] for names in inside)
    return folders[:2] if same and not any(map(_own_images, folders)) else []


def _part_of(folder: Path) -> str | None:
    """The part that the folder is by its name."""
    words = _WORDS.findall(folder.name.lower())
    named = {_PARTS[name] for word in words for name in (word, _END.sub("", word)) if name in _PARTS}
    return named.pop() if len(named) == 1 else None


def _labelled(part: Path, classes: Sequence[str], left_out: _LeftOut) -> list[tuple[Path, int]]:
    """The image files below this folder, each with the number of its class. Everything else there is counted."""
    unknown = [folder for folder in _subfolders(part) if folder.name not in classes and _has_images(folder)]
    if unknown:
        hint = did_you_mean(unknown[0].name, classes)
        raise DataError(
            f"{unknown[0]} is a class without training images ({hint}); rename it, sort its images into the folders of their "
            "classes, or remove it"
        )
    files = []
    for label, name in enumerate(classes):
        for file in sorted((part / name).rglob("*")) if (part / name).is_dir() else ():
            if _within_litter(file, part) or not file.is_file():
                continue
            if _is_image(file):
                files.append((file, label))
            else:
                left_out.others[file.suffix.lower()] += 1
    if not files:
        raise DataError(f"there are no images in the subfolders of {part}; add some, or remove the folder")
    return files


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _within_litter(file: Path, root: Path) -> bool:
    return any(map(_is_litter, file.relative_to(root).parts))


def _is_image(file: Path) -> bool:
    """True for the ending of an image, be it of a kind that is read or not."""
    return file.suffix.lower() in _ENDINGS or file.suffix.lower() in _OTHER_ENDINGS


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not _is_litter(child.name))


def _own_images(folder: Path) -> bool:
    return any(_is_image(file) and not _is_litter(file.name) for file in folder.iterdir())


def _has_images(folder: Path) -> bool:
    """True if there are images anywhere below the folder."""
    return any(_is_image(file) and not _within_litter(file, folder) for file in folder.rglob("*"))


def _image(file: Path, resolution: int) -> torch.Tensor:
    """The middle square of an image file, uint8 (3, resolution, resolution). `DataError` if it cannot be read."""
    try:
        if kind := _OTHER_ENDINGS.get(file.suffix.lower()):
            raise DataError(f"{file} is a {kind} image, which is not read; convert such files to JPEG or PNG")
        with Image.open(file) as image:
            check_pixels(image)
            if min(image.size) > _DRAFT * resolution:  # a JPEG is unpacked at a smaller scale, which takes a fraction of the time
                share = _DRAFT * resolution / min(image.size)
                image.draft(None, (math.ceil(share * image.width), math.ceil(share * image.height)))
            colours = _upright(_eight_bits(image, file), image)
            scale = resolution / min(colours.size)
            width, height = (max(resolution, round(side * scale)) for side in colours.size)
            left, top = (width - resolution) // 2, (height - resolution) // 2
            scaled = colours.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(scaled.crop((left, top, left + resolution, top + resolution)))
            return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    except INVALID_IMAGE as exc:
        known = stand_in(file) if file.is_file() and os.access(file, os.R_OK) else None
        raise DataError(f"{file} is {known or 'not an image, or damaged, or too large; replace or remove it'}") from exc


def _upright(colours: Image.Image, image: Image.Image) -> Image.Image:
    """The colours as the orientation in the image's EXIF data says. Damaged EXIF data say nothing.

    Pillow's own function writes the rest of the EXIF data anew, which fails for those of many cameras.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGED_EXIF:
        return colours
    return colours if turn is None else colours.transpose(turn)


def _eight_bits(image: Image.Image, file: Path) -> Image.Image:
    """The image in three channels of 8 bits: 16 bits keep their range, and what is transparent is white."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(f"{file} has pixels beyond 16 bits, whose white is not known; convert it to 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError(f"{file} has pixels in floats, whose white is not known; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*_WHITE, 255)), with_alpha).convert("RGB")
    return image.convert("RGB")
