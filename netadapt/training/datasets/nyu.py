"""NYU Depth V2 (Silberman et al., 2012): photographs of rooms, each with the distance of every pixel as a Kinect saw it.

Two layouts: the labelled subset in one .npz file (`rgb_jpeg` and `depth_png` the bytes of all images, `rgb_offset` and
`depth_offset` where each begins, `depth_scale_m` and `depth_bias_m` to make metres of depths above 0, `nyu_index`, and `split`
which says train or test); and the folder that FastDepth uses, of which every .h5 file in train/SCENE and val/official holds `rgb`,
uint8 (3, 480, 640), and `depth`, float32 metres (480, 640).

Images are cut as FastDepth does to judge networks (dataloaders/nyu.py in https://github.com/dwofk/fast-depth): scaled to a height
of 250 pixels, the middle 228 by 304 cut out, and that squeezed into a square.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from netadapt.registry import MissingPackage
from netadapt.training.datasets import DataError
from netadapt.training.datasets.arrays import MOST_PIXELS, Array, read_arrays, read_image
from netadapt.training.datasets.images import LabelledImages, check_size
from netadapt.training.memory_limit import growing_at_most

_ARRAYS = ("rgb_jpeg", "rgb_offset", "depth_png", "depth_offset", "depth_scale_m", "depth_bias_m", "nyu_index", "split")
_HEIGHT = 250
_CROP = (228, 304)
_BYTES_PER_PIXEL = 5  # three colours and 16 bits of depth
_MOST_M = 32.0
_MOST_BYTES = 1 << 27  # an .h5 file of the set takes 3 MB; libhdf5 allocates whatever a damaged one names

Pair = tuple[Image.Image, Array]
"""A photograph and its depths in metres (h, w), 0 where not known."""


def load_nyu(path: str, resolution: int) -> LabelledImages:
    """Split as the data say: into official training and test images. `DataError` if it is neither layout, or damaged."""
    where = Path(path)
    if not path or not where.exists():
        raise DataError(
            f"there is no NYU Depth V2 at {path!r}; give nyu:PATH, the .npz file or the folder of train/ and val/official/"
        )
    return _from_folder(where, resolution) if where.is_dir() else _from_npz(where, resolution)


def _from_npz(file: Path, resolution: int) -> LabelledImages:
    arrays = read_arrays(file, _ARRAYS, "the labelled part of NYU Depth V2")
    index, split = arrays["nyu_index"], arrays["split"].astype(str)
    count = len(index)
    if not count or not (len(arrays["rgb_offset"]) == len(arrays["depth_offset"]) == count + 1 == len(split) + 1):
        raise DataError(f"{file} is damaged: it tells the split of {len(split)} images and has {count}")
    check_size(count, _BYTES_PER_PIXEL, resolution)
    images, depths = _squares(_pairs_in(file, arrays), count, resolution)
    # images of one scene bear consecutive numbers, and a scene is never in both parts: a run of numbers holds whole scenes
    runs = np.cumsum(np.diff(index, prepend=index[0]) != 1)
    return _images(images, depths, split == "test", runs)


def _pairs_in(file: Path, arrays: dict[str, Array]) -> Iterator[Pair]:
    scale, bias = float(arrays["depth_scale_m"]), float(arrays["depth_bias_m"])
    spans = zip(pairwise(arrays["rgb_offset"].tolist()), pairwise(arrays["depth_offset"].tolist()), strict=True)
    for number, (rgb, depth) in enumerate(spans):
        try:
            photograph = read_image(arrays["rgb_jpeg"][slice(*rgb)]).convert("RGB")
            stored = np.asarray(read_image(arrays["depth_png"][slice(*depth)]))
            yield _checked(photograph, np.where(stored > 0, stored * scale + bias, 0))
        except ValueError as exc:
            raise DataError(f"{file} is damaged: pair {number} is no image with its depths") from exc


def _from_folder(root: Path, resolution: int) -> LabelledImages:
    training, test = sorted(root.glob("train/*/*.h5")), sorted(root.glob("val/official/*.h5"))
    if not training or not test:
        raise DataError(
            f"{root} is not NYU Depth V2 as FastDepth uses it: there must be .h5 files in train/SCENE/ and val/official/"
        )
    files = [*training, *test]
    check_size(len(files), _BYTES_PER_PIXEL, resolution)
    _h5py()  # says what is missing before anything is read
    images, depths = _squares(map(_pair_of, files), len(files), resolution)
    _, scenes = np.unique([str(file.parent) for file in files], return_inverse=True)
    return _images(images, depths, np.arange(len(files)) >= len(training), scenes)


def _pair_of(file: Path) -> Pair:
    try:
        with growing_at_most(_MOST_BYTES), _h5py().File(file, "r") as opened:
            if max(opened["rgb"].size // 3, opened["depth"].size) > MOST_PIXELS:  # what is not stored there is filled in when read
                raise ValueError("an image that is too large")
            rgb, depth = np.asarray(opened["rgb"]), np.asarray(opened["depth"], dtype=np.float32)
        return _checked(Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))), depth)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as exc:
        raise DataError(f"{file} does not hold rgb (3, h, w) and depth (h, w), or is damaged; mend or remove it") from exc


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as exc:
        raise MissingPackage("reading .h5 files needs h5py; pip install 'netadapt-profiler[h5]'") from exc
    return h5py


def _checked(photograph: Image.Image, depth: Array) -> Pair:
    if depth.ndim != 2 or photograph.size != depth.shape[::-1]:
        raise ValueError("depths of another size than their image")
    return photograph, depth


def _images(images: Array, depths: Array, is_test: Array, scenes: Array) -> LabelledImages:
    official = torch.from_numpy(is_test) if is_test.any() else None
    return LabelledImages(
        "nyu", (), torch.from_numpy(images), torch.from_numpy(depths), official, task="depth",
        scenes=torch.from_numpy(scenes.astype(np.int64)),
    )  # fmt: skip


def _squares(pairs: Iterator[Pair], count: int, resolution: int) -> tuple[Array, Array]:
    """uint8 (n, 3, r, r) and int16 millimetres (n, 1, r, r)"""
    images = np.empty((count, 3, resolution, resolution), np.uint8)
    depths = np.empty((count, 1, resolution, resolution), np.int16)
    for number, (photograph, depth) in enumerate(pairs):
        images[number] = square_image(photograph, resolution).transpose(2, 0, 1)
        depths[number, 0] = millimetres(square_depth(depth, resolution))
    return images, depths


def square_image(photograph: Image.Image, resolution: int) -> Array:
    """uint8 (r, r, 3), bilinearly."""
    width = round(photograph.width * _HEIGHT / photograph.height)
    left, top = (width - _CROP[1]) // 2, (_HEIGHT - _CROP[0]) // 2
    scaled = photograph.resize((width, _HEIGHT), Image.Resampling.BILINEAR)
    middle = scaled.crop((left, top, left + _CROP[1], top + _CROP[0]))
    return np.asarray(middle.resize((resolution, resolution), Image.Resampling.BILINEAR))


def square_depth(depth: Array, resolution: int) -> Array:
    """(r, r), the same cut of depths (h, w), each the nearest: a mean over an edge would be a distance at which nothing is."""
    height, width = depth.shape
    scaled_width = round(width * _HEIGHT / height)
    rows = _nearest(height, _HEIGHT)[(_HEIGHT - _CROP[0]) // 2 :][_nearest(_CROP[0], resolution)]
    columns = _nearest(width, scaled_width)[(scaled_width - _CROP[1]) // 2 :][_nearest(_CROP[1], resolution)]
    square: Array = depth[np.ix_(rows, columns)]
    return square


def _nearest(before: int, after: int) -> Array:
    """Of `after` pixels in place of `before`, the one nearest to each one's middle."""
    return ((np.arange(after) + 0.5) * before / after).astype(np.int64)


def millimetres(depth_m: Array) -> Array:
    """As they are stored; what is no depth, or beyond 32 m, counts as not known."""
    known = np.isfinite(depth_m) & (depth_m > 0) & (depth_m < _MOST_M)
    return np.where(known, np.round(np.where(known, depth_m, 0) * 1000), 0).astype(np.int16)
