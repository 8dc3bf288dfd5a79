"""Small rooms with boxes in them, rendered here: images with exact depths, for a first run of a depth network without any data.

Rays are cast from a camera inside a box, the room, at smaller boxes on its floor. What is learnt from them says nothing about
photographs, but everything about whether the line works.
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
"""Images of each room, from different places."""
_TEST_SHARE = 5  # every fifth room
_SEED = 0  # the rooms are the same for everybody; a run's seed moves the holdout only
_HALF_VIEW = (0.50, 0.375)  # of what the camera sees at 1 m: FastDepth's crop of a Kinect's view, 304 by 228 of 333 by 250 pixels
_LEAST_M = 0.3


def load_scenes(path: str, resolution: int) -> LabelledImages:
    """`scenes`, or `scenes:COUNT` for another number of images. `DataError` if that is none."""
    count = _count(path)
    check_size(count, 5, resolution)
    images = np.empty((count, 3, resolution, resolution), np.uint8)
    depths = np.empty((count, 1, resolution, resolution), np.int16)
    rooms = np.arange(count) // VIEWS
    for room in range(rooms[-1] + 1):
        generator = np.random.default_rng((_SEED, room))
        boxes = _boxes(generator)
        for number in np.flatnonzero(rooms == room):
            image, depth = render(boxes, *_camera(boxes[0], generator), resolution)
            images[number], depths[number, 0] = image, millimetres(depth)
    is_test = torch.from_numpy(rooms % _TEST_SHARE == _TEST_SHARE - 1)
    return LabelledImages(
        "scenes", (), torch.from_numpy(images), torch.from_numpy(depths), is_test, task="depth", scenes=torch.from_numpy(rooms)
    )


def _count(path: str) -> int:
    if path and not (path.isdecimal() and int(path) >= VIEWS * _TEST_SHARE):
        raise DataError(
            f"scenes are rendered here and have no path; give scenes, or scenes:COUNT from {VIEWS * _TEST_SHARE}, not {path!r}"
        )
    return int(path or IMAGES)


def _boxes(generator: np.random.Generator) -> Array:
    """The room and what stands in it, (k, 12): lowest and highest corner in metres, colour, length, strength and kind of pattern.

    Height is the second coordinate, 0 the floor.
    """
    width, height, length = generator.uniform((2.5, 2.3, 3.5), (6.0, 3.2, 9.0))
    rows = [_box(generator, (0.0, 0.0, 0.0), (width, height, length))]
    for _ in range(generator.integers(3, 9)):
        size = generator.uniform((0.3, 0.3, 0.3), (1.6, 1.8, 1.6))
        corner = generator.uniform((0, 0, 0), (width, 1e-6, length)) - (size / 2) * (1, 0, 1)
        rows.append(_box(generator, corner, corner + size))
    return np.array(rows)


def _box(generator: np.random.Generator, low: Any, high: Any) -> Array:
    look = generator.uniform((0.25, 0.25, 0.25, 0.15, 0.0, 0.0), (1.0, 1.0, 1.0, 0.8, 0.5, 3.0))
    return np.concatenate([low, high, look])


def _camera(room: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Where it stands, near one end of the room, and its axes as rows: to the right, up, forward."""
    high = room[3:6]
    place = high * generator.uniform((0.25, 0.45, 0.04), (0.75, 0.65, 0.2))
    turn, tilt = generator.uniform((-0.5, -0.35), (0.5, 0.05))
    forward = np.array([np.sin(turn) * np.cos(tilt), np.sin(tilt), np.cos(turn) * np.cos(tilt)])
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    return place, np.stack([right, np.cross(forward, right), forward])


def render(boxes: Array, place: Array, axes: Array, resolution: int) -> tuple[Array, Array]:
    """An image, uint8 (3, r, r), and its depths in metres along the camera's axis (r, r), as a Kinect tells them.

    Rays end where they leave the first box, the room, or enter one of the others.
    """
    boxes, place, axes = (values.astype(np.float32) for values in (boxes, place, axes))
    steps = (np.arange(resolution, dtype=np.float32) + 0.5) * 2 / resolution - 1
    across, up = np.meshgrid(steps * np.float32(_HALF_VIEW[0]), -steps * np.float32(_HALF_VIEW[1]))
    rays = axes[0][:, None, None] * across + axes[1][:, None, None] * up + axes[2][:, None, None]  # of length 1 along the axis
    rays[np.abs(rays) < 1e-6] = 1e-6
    slopes = 1 / rays
    depth, hit = np.full_like(up, np.inf), np.zeros(up.shape, np.int64)
    for number, box in enumerate(boxes):
        one, other = ((corner - place)[:, None, None] * slopes for corner in (box[:3], box[3:6]))
        enters, leaves = np.minimum(one, other).max(axis=0), np.maximum(one, other).min(axis=0)
        distance = leaves if number == 0 else np.where((enters < leaves) & (enters > _LEAST_M), enters, np.float32(np.inf))
        hit[distance < depth] = number
        depth = np.minimum(depth, distance)
    return _colours(boxes.T[:, hit], place[:, None, None] + rays * depth, rays, depth), depth


def _colours(surfaces: Array, points: Array, rays: Array, depth: Array) -> Array:
    """Patterned surfaces (12, r, r), lit from the camera and from above, darker far away; uint8 (3, r, r)."""
    low, high, colour, (length, strength, kind) = surfaces[:3], surfaces[3:6], surfaces[6:9], surfaces[9:]
    face = np.minimum(np.abs(points - low), np.abs(points - high)).argmin(axis=0)  # the axis that stands on the surface
    waves = np.sin(points * (np.float32(2 * np.pi) / length))
    waves[face == np.arange(3)[:, None, None]] = 0
    checks, stripes, dots = np.sign(waves).sum(axis=0) / 2, waves.sum(axis=0), (waves**2).sum(axis=0) - 1
    pattern = np.where(kind < 1, checks, np.where(kind < 2, stripes, dots))
    towards = np.abs(np.take_along_axis(rays, face[None], axis=0)[0]) / np.sqrt((rays**2).sum(axis=0))
    tint = 1 + 0.12 * (face - 1)  # floor and ceiling, sides and ends differ
    light = tint * (0.45 + 0.55 * towards) / (1 + (depth / 6) ** 2)
    shown: Array = (255 * np.clip(colour * (light * (1 + strength * pattern)), 0, 1)).astype(np.uint8)
    return shown
