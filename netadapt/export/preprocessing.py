"""What has to be done to an image before it is fed to an exported file, told beside the file and in its metadata.

TFLite has a schema of metadata of its own, for which there is no package that is still kept; so both formats have the same JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx

from device_agents.support.atomic import write_whole
from netadapt.errors import RunError
from netadapt.export.tflite_file import packed
from netadapt.input_shapes import InputShapes
from netadapt.training.types import Part
from profiler.formats.onnx.tensors import channels_last

KEY = "netadapt.preprocessing"
"""The key of the same JSON among the metadata of an ONNX or TFLite file."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The inputs of an exported file: (value / white - mean) / std, channel by channel; as they are where there is no mean."""

    layout: str
    """nchw or nhwc, of images."""
    shapes: tuple[tuple[int, ...], ...]
    """The shapes of the file's inputs in this layout."""
    white: float | None
    """The value of white before normalisation; None for inputs that the user's own data gives as they are fed."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_file: bool = False
    """True if the file normalises its inputs itself: white is then 1, the mean 0 and the std 1, for values from 0 to 255."""

    @classmethod
    def of(cls, part: Part, input_shapes: InputShapes, file_format: str) -> Preprocessing:
        """That of a file of this format whose network was trained on the part."""
        first = file_format == "onnx"
        shapes = input_shapes if first else tuple(map(channels_last, input_shapes))
        return cls("nchw" if first else "nhwc", shapes, 255.0 if part.mean else None, part.mean, part.std)

    def within_the_file(self) -> Preprocessing:
        """That of the same file, if it normalises its inputs itself."""
        return replace(self, white=1.0, mean=(0.0,) * len(self.mean), std=(1.0,) * len(self.std), in_file=True)

    @property
    def text(self) -> str:
        """One sentence for people."""
        if self.in_file:
            return f"inputs are values from 0 to 255 as they are, {self.layout}; the file normalises them itself"
        if self.white is None:
            return "inputs are fed as the data gives them"
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        return f"inputs are (value / {self.white:g} - mean) / std with mean {mean} and std {std}, {self.layout}"


def told(path: Path) -> Path:
    """The path of the JSON file beside an exported file, such as step003.onnx.preprocessing.json."""
    return path.with_name(f"{path.name}.preprocessing.json")


def tell(preprocessing: Preprocessing, path: Path) -> None:
    """Write the JSON file beside the exported file and the file's own metadata. `RunError` if one cannot be written."""
    text = json.dumps(asdict(preprocessing), indent=1) + "\n"
    write_whole(told(path), text, RunError)
    if path.suffix == ".onnx":
        model = onnx.load(path)
        model.metadata_props.add(key=KEY, value=json.dumps(asdict(preprocessing)))
        write_whole(path, model.SerializeToString(), RunError)
    else:
        write_whole(path, packed(path.read_bytes(), {KEY: json.dumps(asdict(preprocessing))}), RunError)
