"""What a person says about the inputs of a model file: shapes that the file leaves open, and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.errors import ModelError
from profiler.layers.layer import Shape

Values = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Given:
    """Shapes in the layout of the file, and values, by the names of inputs."""

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    values: Mapping[str, Values] = field(default_factory=dict)
    """An array of the input's shape, or of a single number that stands for all elements."""
    options: tuple[str, ...] = ()
    """The options of a command that say the same."""

    def check_names(self, inputs: Sequence[str]) -> None:
        """`ModelError` if a name is that of no input."""
        for option, names in (("--shape", self.shapes), ("--input", self.values)):
            unknown = next((name for name in names if name not in inputs), None)
            if unknown is not None:
                raise ModelError(f"{option} names {unknown}, which is no input; the inputs are {', '.join(inputs) or 'none'}")

    def shape(self, name: str) -> Shape | None:
        """The shape that was given, or that of an array that was given; None if the file has to say it."""
        if name in self.shapes:
            return self.shapes[name]
        values = self.values.get(name)
        return tuple(values.shape) if values is not None and values.ndim else None

    def array(self, name: str, kind: np.dtype[Any] | str, shape: Shape | None) -> Values | None:
        """The values of an input of this type and shape; None if none are given. `kind` is a text for a type that numpy lacks.

        `ModelError` if they do not fit.
        """
        wanted = self.values.get(name)
        if wanted is None:
            return None
        if isinstance(kind, str) or wanted.dtype.kind not in "biuf" or shape is None or (wanted.ndim and wanted.shape != shape):
            raise ModelError(f"input {name} is {kind} of shape {shape}, not {wanted.dtype} of shape {wanted.shape}")
        if wanted.dtype.kind == "f" and kind.kind != "f":
            raise ModelError(f"input {name} takes {kind}, not {wanted.dtype}; give whole numbers")
        return np.array(np.broadcast_to(wanted.astype(kind), shape))


NOTHING = Given()


def given_inputs(shapes: Sequence[str], values: Sequence[str]) -> Given:
    """What options say: `NAME=1x3x320x320` and `NAME=file.npy` or `NAME=0.5`. `ModelError` for text that says something else."""
    found_shapes: dict[str, Shape] = {}
    for text in shapes:
        name, _, sizes = text.rpartition("=")
        try:
            found_shapes[name] = tuple(int(size) for size in sizes.split("x")) if sizes else ()
        except ValueError:
            name = ""
        if not name or min(found_shapes[name], default=1) < 1:
            raise ModelError(f"--shape {text} is not the name of an input and its shape, such as images=1x3x320x320")
    found_values: dict[str, Values] = {}
    for text in values:
        name, _, value = text.rpartition("=")
        if not name:
            raise ModelError(f"--input {text} is not the name of an input and its values, such as ids=ids.npy or ids=1")
        found_values[name] = _values(value)
    options = [word for text in shapes for word in ("--shape", text)] + [word for text in values for word in ("--input", text)]
    return Given(found_shapes, found_values, tuple(options))


def _values(text: str) -> Values:
    if text.endswith(".npy"):
        try:
            array: Values = np.load(Path(text), allow_pickle=False)
        except (OSError, ValueError, EOFError) as exc:
            raise ModelError(f"the values {text} cannot be read: {exc}") from exc
        return array
    for kind in (int, float):
        try:
            return np.asarray(kind(text))
        except (ValueError, OverflowError):
            continue
    raise ModelError(f"the value {text} is neither a number nor an .npy file")
