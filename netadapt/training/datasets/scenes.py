"""Rendered images of rooms with boxes in them, with exact depths: a first run of a depth network needs no other data.

Rays are cast from a camera inside a box, the room, at smaller boxes on its floor. Networks that are trained on these images are
of no use for photographs; the images are for trying out the whole run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from netadapt.training.datasets import DataError
from netadapt.training.datasets.images import LabelledImages, check_size
from netadapt.training.datasets.nyu import millimetres

Array = npt.NDArray[Any]

IMAGES = 480
VIEWS = 4
"""The number of images of each room, taken from different places."""
_TEST_EVERY = 5  # every fifth room is in the test part
_SEED = 0  # the rooms are always the same; the seed of a run only changes the holdout
_HALF_VIEW = (0.50, 0.375)  # half of the width and height seen at 1 m: FastDepth's crop, 304 by 228 of a Kinect's 333 by 250 pixels
_MIN_DEPTH_M = 0.3  # boxes nearer to the camera are not drawn
_BYTES_PER_PIXEL = 5  # three colours and 16 bits of depth


def load_scenes(path: str, resolution: int) -> LabelledImages:
    """The images for `scenes`, or as many as `scenes:COUNT` asks for. `DataError` if the count is not a number of at least 20."""
    if path and not (path.isdecimal() and int(path) >= VIEWS * _TEST_EVERY):
        raise DataError(
            f"scenes are rendered here and have no path; give scenes, or scenes:COUNT from {VIEWS * _TEST_EVERY}, not {path!r}"
        )
    count = int(path or IMAGES)
    check_size(count, _BYTES_PER_PIXEL, resolution)
    images = np.empty((count, 3, resolution, resolution), np.uint8)
    depths = np.empty((count, 1, resolution, resolution), np.int16)
    rooms = np.arange(count) // VIEWS
    for room in range(rooms[-1] + 1):
        generator = np.random.default_rng((_SEED, room))
        boxes = _boxes(generator)
        for number in np.flatnonzero(rooms == room):
            image, depth = render(boxes, *_camera(boxes[0], generator), resolution)
            images[number], depths[number, 0] = image, millimetres(depth)
    is_test = torch.from_numpy(rooms % _TEST_EVERY == _TEST_EVERY - 1)
    return LabelledImages(
        "scenes", (), torch.from_numpy(images), torch.from_numpy(depths), is_test, task="depth", scenes=torch.from_numpy(rooms)
    )


def _boxes(generator: np.random.Generator) -> Array:
    """The room and the boxes in it, (k, 12).

    A row is the lowest and the highest corner in metres, the colour, and the wavelength in metres, strength and kind of the
    pattern. The second coordinate is the height above the floor.
    """
    width, height, length = generator.uniform((2.5, 2.3, 3.5), (6.0, 3.2, 9.0))
    rows = [_box(generator, (0.0, 0.0, 0.0), (width, height, length))]
    for _ in range(generator.integers(3, 9)):
        size = generator.uniform((0.3, 0.3, 0.3), (1.6, 1.8, 1.6))
        corner = generator.uniform((0, 0, 0), (width, 1e-6, length)) - (size / 2) * (1, 0, 1)
        rows.append(_box(generator, corner, corner + size))
    return np.array(rows)


def _box(generator: np.random.Generator, low: Any, high: Any) -> Array:
    surface = generator.uniform((0.25, 0.25, 0.25, 0.15, 0.0, 0.0), (1.0, 1.0, 1.0, 0.8, 0.5, 3.0))
    return np.concatenate([low, high, surface])


def _camera(room: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """The position of a camera near one end of the room, in metres (3,), and its axes as rows (3, 3): right, up, forward."""
    high = room[3:6]
    place = high * generator.uniform((0.25, 0.45, 0.04), (0.75, 0.65, 0.2))
    turn, tilt = generator.uniform((-0.5, -0.35), (0.5, 0.05))
    forward = np.array([np.sin(turn) * np.cos(tilt), np.sin(tilt), np.cos(turn) * np.cos(tilt)])
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    return place, np.stack([right, np.cross(forward, right), forward])


def render(boxes: Array, place: Array, axes: Array, resolution: int) -> tuple[Array, Array]:
    """An image, uint8 (3, r, r), and its depths in metres along the camera's axis (r, r), which is what a Kinect measures.

    A ray ends where it leaves the first box, which is the room, or enters one of the others. Its intersections with a box are
    found by the slab method (Kay and Kajiya, 1986).
    """
    boxes, place, axes = (values.astype(np.float32) for values in (boxes, place, axes))
    steps = (np.arange(resolution, dtype=np.float32) + 0.5) * 2 / resolution - 1
    across, up = np.meshgrid(steps * np.float32(_HALF_VIEW[0]), -steps * np.float32(_HALF_VIEW[1]))
    rays = axes[0][:, None, None] * across + axes[1][:, None, None] * up + axes[2][:, None, None]  # of length 1 along the axis
    rays[np.abs(rays) < 1e-6] = 1e-6  # they are divided by
    slopes = 1 / rays
    depth, hit = np.full_like(up, np.inf), np.zeros(up.shape, np.int64)
    for number, box in enumerate(boxes):
        one, other = ((corner - place)[:, None, None] * slopes for corner in (box[:3], box[3:6]))
        enters, leaves = np.minimum(one, other).max(axis=0), np.maximum(one, other).min(axis=0)
        distance = leaves if number == 0 else np.where((enters < leaves) & (enters > _MIN_DEPTH_M), enters, np.float32(np.inf))
        hit[distance < depth] = number
        depth = np.minimum(depth, distance)
    return _colours(boxes.T[:, hit], place[:, None, None] + rays * depth, rays, depth), depth


def _colours(surfaces: Array, points: Array, rays: Array, depth: Array) -> Array:
    """The colours of the surfaces that rays hit, uint8 (3, r, r): patterned, lit from the camera, and darker with the distance.

    `surfaces` (12, r, r) are the rows of the boxes, `points` (3, r, r) the places on them, `depth` (r, r) their depths.
    """
    low, high, colour, (length, strength, kind) = surfaces[:3], surfaces[3:6], surfaces[6:9], surfaces[9:]
    face = np.minimum(np.abs(points - low), np.abs(points - high)).argmin(axis=0)  # the axis that is normal to the surface
    waves = np.sin(points * (np.float32(2 * np.pi) / length))
    waves[face == np.arange(3)[:, None, None]] = 0
    checks, stripes, dots = np.sign(waves).sum(axis=0) / 2, waves.sum(axis=0), (waves**2).sum(axis=0) - 1
    pattern = np.where(kind < 1, checks, np.where(kind < 2, stripes, dots))
    facing = np.abs(np.take_along_axis(rays, face[None], axis=0)[0]) / np.sqrt((rays**2).sum(axis=0))
    tint = 1 + 0.12 * (face - 1)  # so that floor and ceiling, sides and ends differ
    light = tint * (0.45 + 0.55 * facing) / (1 + (depth / 6) ** 2)
    colours: Array = (255 * np.clip(colour * (light * (1 + strength * pattern)), 0, 1)).astype(np.uint8)
    return colours
