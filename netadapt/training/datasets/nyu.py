"""NYU Depth V2 (Silberman et al., 2012): photographs of rooms, each with the depth of every pixel as a Kinect measured it.

There are two layouts. One is the labelled subset in one .npz file with these arrays:

  rgb_jpeg, depth_png            the bytes of all images, one file after the other
  rgb_offset, depth_offset       where each file begins, and the end of the last
  depth_scale_m, depth_bias_m    a stored depth above 0 is, in metres, its product with the scale plus the bias
  nyu_index                      the number of each image in the whole dataset
  split                          train or test

The other is the folder that FastDepth uses: every .h5 file in train/SCENE and val/official holds `rgb`, uint8 (3, 480, 640), and
`depth`, float32 metres (480, 640).

Images are cropped as in FastDepth's evaluation (dataloaders/nyu.py in https://github.com/dwofk/fast-depth): scaled to a height of
250 pixels and cropped to the middle 228 by 304, which is then squeezed into a square.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from netadapt.registry import MissingPackage
from netadapt.training.datasets import DataError
from netadapt.training.datasets.arrays import MAX_PIXELS, Array, read_arrays, read_image
from netadapt.training.datasets.images import ImageSource, LabelledImages, is_small
from netadapt.training.memory_limit import growing_at_most

_ARRAYS = ("rgb_jpeg", "rgb_offset", "depth_png", "depth_offset", "depth_scale_m", "depth_bias_m", "nyu_index", "split")
_HEIGHT = 250
_CROP = (228, 304)  # (h, w)
_BYTES_PER_PIXEL = 5  # three colours and 16 bits of depth
_MAX_DEPTH_M = 32.0  # int16 millimetres hold 32.767 m
_MAX_BYTES = 1 << 27  # an .h5 file of the dataset takes 3 MB, but libhdf5 allocates whatever size a damaged one names

Pair = tuple[Image.Image, Array]
"""A photograph and its depths in metres (h, w), 0 where a depth is not known."""


def load_nyu(path: str, resolution: int) -> LabelledImages:
    """The images of either layout at this resolution, with their official split into training and test images.

    `DataError` if the path holds neither layout, or is damaged; `MissingPackage` for a folder without h5py.
    """
    place = Path(path)
    if not path or not place.exists():
        raise DataError(
            f"there is no NYU Depth V2 at {path!r}; give nyu:PATH, the .npz file or the folder of train/ and val/official/"
        )
    return _read_folder(place, resolution) if place.is_dir() else _read_npz(place, resolution)


def _read_npz(file: Path, resolution: int) -> LabelledImages:
    arrays = read_arrays(file, _ARRAYS, "the labelled part of NYU Depth V2")
    index, split = arrays["nyu_index"], arrays["split"].astype(str)
    count = len(index)
    if not count or not (len(arrays["rgb_offset"]) == len(arrays["depth_offset"]) == count + 1 == len(split) + 1):
        raise DataError(
            f"{file} is damaged: it has {count} images, but not as many offsets and splits ({len(split)}); use another copy"
        )
    # the images of a scene have consecutive numbers, and no scene is in both splits: a run of numbers consists of whole scenes
    runs = np.cumsum(np.diff(index, prepend=index[0]) != 1)
    scale, bias = float(arrays["depth_scale_m"]), float(arrays["depth_bias_m"])
    spans = list(zip(pairwise(arrays["rgb_offset"].tolist()), pairwise(arrays["depth_offset"].tolist()), strict=True))

    def pair(number: int) -> Pair:
        rgb, depth = spans[number]
        try:
            photograph = read_image(arrays["rgb_jpeg"][slice(*rgb)]).convert("RGB")
            stored = np.asarray(read_image(arrays["depth_png"][slice(*depth)]))
            return _checked(photograph, np.where(stored > 0, stored * scale + bias, 0))
        except ValueError as exc:
            raise DataError(f"{file} is damaged: pair {number} is no image with its depths; use another copy") from exc

    return _labelled_images(pair, resolution, split == "test", runs)


def _read_folder(root: Path, resolution: int) -> LabelledImages:
    training, test = sorted(root.glob("train/*/*.h5")), sorted(root.glob("val/official/*.h5"))
    if not training or not test:
        raise DataError(
            f"{root} is not NYU Depth V2 as FastDepth uses it: there must be .h5 files in train/SCENE/ and val/official/"
        )
    files = [*training, *test]
    _h5py()  # where it is missing, the error comes before anything is read
    _, scenes = np.unique([str(file.parent) for file in files], return_inverse=True)
    return _labelled_images(lambda number: _pair_of(files[number]), resolution, np.arange(len(files)) >= len(training), scenes)


def _pair_of(file: Path) -> Pair:
    try:
        with growing_at_most(_MAX_BYTES), _h5py().File(file, "r") as opened:
            # a file of a few bytes may name a huge array: whatever it does not store is filled in when it is read
            if max(opened["rgb"].size // 3, opened["depth"].size) > MAX_PIXELS:
                raise ValueError("the image is too large")
            rgb, depth = np.asarray(opened["rgb"]), np.asarray(opened["depth"], dtype=np.float32)
        return _checked(Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))), depth)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as exc:
        raise DataError(f"{file} does not hold rgb (3, h, w) and depth (h, w), or is damaged; replace or remove it") from exc


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as exc:
        raise MissingPackage("reading .h5 files needs h5py; pip install 'netadapt-profiler[h5]'") from exc
    return h5py


def _checked(photograph: Image.Image, depth: Array) -> Pair:
    """The two as a pair. `ValueError` if they differ in size."""
    if depth.ndim != 2 or photograph.size != depth.shape[::-1]:
        raise ValueError("the depths have another size than their image")
    return photograph, depth


def _labelled_images(pair: Callable[[int], Pair], resolution: int, is_test: Array, scenes: Array) -> LabelledImages:
    """The pairs of these numbers, cropped to squares: images, uint8 (3, r, r), and depths, int16 millimetres (1, r, r)."""
    count = len(is_test)

    def read(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        photograph, depth = pair(number)
        pixels = np.ascontiguousarray(square_image(photograph, resolution).transpose(2, 0, 1))
        return torch.from_numpy(pixels), torch.from_numpy(millimetres(square_depth(depth, resolution)))[None]

    images: torch.Tensor | ImageSource = ImageSource(count, read)
    targets = torch.zeros(count, dtype=torch.int64)
    if is_small(count, _BYTES_PER_PIXEL, resolution):
        images = torch.empty((count, 3, resolution, resolution), dtype=torch.uint8)
        targets = torch.empty((count, 1, resolution, resolution), dtype=torch.int16)
        for number in range(count):
            images[number], targets[number] = read(number)
    return LabelledImages(
        "nyu", (), images, targets, torch.from_numpy(is_test) if is_test.any() else None, task="depth",
        scenes=torch.from_numpy(scenes.astype(np.int64)),
    )  # fmt: skip


def square_image(photograph: Image.Image, resolution: int) -> Array:
    """The crop of a photograph that FastDepth evaluates on, squeezed bilinearly into a square, uint8 (r, r, 3)."""
    width = round(photograph.width * _HEIGHT / photograph.height)
    left, top = (width - _CROP[1]) // 2, (_HEIGHT - _CROP[0]) // 2
    scaled = photograph.resize((width, _HEIGHT), Image.Resampling.BILINEAR)
    middle = scaled.crop((left, top, left + _CROP[1], top + _CROP[0]))
    return np.asarray(middle.resize((resolution, resolution), Image.Resampling.BILINEAR))


def square_depth(depth: Array, resolution: int) -> Array:
    """The crop of depths (h, w) that matches `square_image`, (r, r).

    Every depth is that of the nearest pixel: a mean over an edge would be a distance at which there is nothing.
    """
    height, width = depth.shape
    scaled_width = round(width * _HEIGHT / height)
    rows = _nearest(height, _HEIGHT)[(_HEIGHT - _CROP[0]) // 2 :][_nearest(_CROP[0], resolution)]
    columns = _nearest(width, scaled_width)[(scaled_width - _CROP[1]) // 2 :][_nearest(_CROP[1], resolution)]
    square: Array = depth[np.ix_(rows, columns)]
    return square


def _nearest(before: int, after: int) -> Array:
    """The indices (after,) of the old pixels that are nearest to the centres of the new ones, of `before` in number."""
    return ((np.arange(after) + 0.5) * before / after).astype(np.int64)


def millimetres(depth_m: Array) -> Array:
    """Depths in metres as int16 millimetres of the same shape, 0 (not known) for values that are not from 0 to 32 m."""
    known = np.isfinite(depth_m) & (depth_m > 0) & (depth_m < _MAX_DEPTH_M)
    return np.where(known, np.round(np.where(known, depth_m, 0) * 1000), 0).astype(np.int16)
