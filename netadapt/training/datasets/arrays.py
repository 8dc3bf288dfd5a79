"""Arrays from .npz files and images from bytes, read so that damaged or malicious files cause one error and no harm."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from netadapt.training.datasets import DataError

Array = npt.NDArray[Any]
MAX_PIXELS = 40_000_000
"""The largest image that is read; photographs have fewer pixels."""
_MAX_RATIO, _HARMLESS_BYTES = 100, 64_000_000
"""Arrays may take this many times the size of their file when they are unpacked, and these bytes in any case."""
DAMAGED_ARCHIVE = (
    OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    RuntimeError,  # an entry that is encrypted, or compressed in a way that zipfile does not know
    MemoryError,  # an entry that claims to be larger than it is
)  # fmt: skip
"""The errors that numpy and zipfile raise for damaged files, depending on the place of the damage."""
INVALID_IMAGE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_arrays(file: Path, names: Sequence[str], what: str) -> dict[str, Array]:
    """The arrays of these names in an .npz file; `what` names its content in errors.

    `DataError` if an array is missing or would have to be unpickled, or the file is damaged or unpacks to far more than its size.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            unpacked_bytes = sum(item.file_size for item in archive.zip.infolist())
            if unpacked_bytes > _HARMLESS_BYTES + _MAX_RATIO * file.stat().st_size:
                raise DataError(f"{file} is damaged: it would unpack to {unpacked_bytes / 1e6:.0f} MB; use another copy of {what}")
            return {name: archive[name] for name in names}
    except KeyError as exc:
        raise DataError(f"{file} is not {what}; give a file with the arrays {', '.join(names)}") from exc
    except DAMAGED_ARCHIVE as exc:
        # numpy's own message would advise to unpickle the file
        raise DataError(f"{file} is damaged or not an .npz file of plain arrays; use another copy of {what}") from exc


def read_image(data: Array) -> Image.Image:
    """The image that these bytes of an image file, uint8 (k,), hold. `ValueError` if they hold none."""
    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            check_pixels(image)
            image.load()
            return image.copy()
    except INVALID_IMAGE as exc:
        raise ValueError("not an image") from exc


def check_pixels(image: Image.Image) -> None:
    """Check, before the image is unpacked, that it has no more than `MAX_PIXELS` pixels. `ValueError` if it has more."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"an image of {image.width} by {image.height} pixels is too large")
