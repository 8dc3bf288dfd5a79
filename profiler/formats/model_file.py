"""The model file formats, with the reader and the writer of each. A new format is one line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agents.support.errors import ToolError
from device_agents.support.loading import load
from device_agents.support.stand_ins import stand_in
from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given
from profiler.layers.graph import Graph
from profiler.runtimes import RUNTIMES


@dataclass(frozen=True, slots=True)
class Format:
    """A model file format. Its reader and writer are named rather than imported, because their packages are slow to import."""

    name: str
    reader: str
    """The `module:function` that turns a path, and what is given of the inputs, into a Graph."""
    writer: str
    """The `module:function` that turns a Graph and a seed into the bytes of a file."""
    executed_writer: str | None = None
    """The same for executed operators, which a runtime has to leave as they are; None if these are written like others."""
    resizer: str | None = None
    """The `module:function` that turns the file of an extracted layer and the layer into its file for the layer's shapes; None if
    extracted layers have the shapes of their file."""
    executed_reader: str | None = None
    """The `module:function` that turns a name, the bytes of a model, the operators of a profile and the channels of a block into a
    model whose `graph` has what the runtime executes and whose `stretch` is a part of it; None if nothing is known of that. The
    bytes are the file itself if there is a matcher, else the graph that the runtime saved, and the file is a last argument."""
    executed_matcher: str | None = None
    """For a format whose runtimes save no graph: the `module:function` that turns the layers by our rules and the operators of a
    profile into the node of each operator. It raises `ModelError` if these contradict each other."""
    ruled_reader: str | None = None
    """The `module:function` that turns a name and a file into such a model by our rules; None where only a runtime can tell."""
    completer: str | None = None
    """The `module:function` that turns a path, and what is given of the inputs, into the bytes of one file that runs by itself;
    None if every file does as it is."""
    part_reader: str | None = None
    """The `module:function` that turns a path, and what is given of the inputs, into what can be listed of a file that cannot be
    read as a whole: layers, a file of them, and a sentence on the rest; or into None. None for a format without such parts."""
    remarker: str | None = None
    """The `module:function` that turns a path into a sentence on what of the file is not measured as it is, or None; None for no
    such parts."""

    def read(self, path: Path, given: Given = NOTHING) -> Graph:
        """The fused groups in the file. Raises `ModelError` if the file is damaged or cannot be measured."""
        graph: Graph = load(self.reader)(path, given)
        return graph

    def part(self, path: Path, given: Given = NOTHING) -> tuple[Graph, bytes, str] | None:
        """What can be listed of a file that cannot be read, a file of just that, and a sentence on the rest; None if nothing."""
        found: tuple[Graph, bytes, str] | None = None if self.part_reader is None else load(self.part_reader)(path, given)
        return found

    def complete(self, path: Path, given: Given = NOTHING) -> bytes:
        """The model as one file of fixed shapes, with all weights in it; a file that is like this already stays as it is.

        Raises `ModelError` if weights are missing or a shape is not known.
        """
        data: bytes = path.read_bytes() if self.completer is None else load(self.completer)(path, given)
        return data

    def remark(self, path: Path) -> str | None:
        """A sentence on what of a file that can be read is left out or made up; None if nothing is."""
        text: str | None = None if self.remarker is None else load(self.remarker)(path)
        return text

    def write(self, graph: Graph, seed: int = 0) -> bytes:
        """A file of the graph with random weights from the seed; a single layer from a file of this format stays as it was there.

        Raises `ModelError` if the format cannot represent a layer.
        """
        layer = graph.nodes[0].layer if len(graph.nodes) == 1 else None
        opaque = layer.opaque if layer is not None else None
        if opaque is not None and (opaque.file_format == self.name or self.name not in RUNNABLE):
            data: bytes = graph.opaques[opaque.digest]
            if self.resizer is not None:
                data = load(self.resizer)(data, layer)
            return data
        writer = self.executed_writer if graph.executed and self.executed_writer else self.writer
        written: bytes = load(writer)(graph, seed)
        return written


FORMATS = {
    "onnx": Format(
        "onnx",
        "profiler.formats.onnx.reader:read_onnx",
        "profiler.formats.onnx.writer:write_onnx",
        "profiler.formats.onnx.executed_writer:write_executed",
        "profiler.formats.onnx.opaque:at_shapes",
        "profiler.formats.onnx.executed:read_executed",
        completer="profiler.formats.onnx.complete:complete_onnx",
        part_reader="profiler.formats.onnx.known_part:known_part",
        remarker="profiler.formats.onnx.complete:made_up_weights",
    ),
    "tflite": Format(
        "tflite",
        "profiler.formats.tflite.reader:read_tflite",
        "profiler.formats.tflite.writer:write_tflite",
        executed_reader="profiler.formats.tflite.executed:read_executed",
        executed_matcher="profiler.formats.tflite.executed:matched",
        ruled_reader="profiler.formats.tflite.executed:executed_by_rules",
        completer="profiler.formats.tflite.complete:complete_tflite",
        remarker="profiler.formats.tflite.complete:other_signatures",
    ),
    "json": Format("json", "profiler.formats.fake:read_fake", "profiler.formats.fake:write_fake"),
}
RUNNABLE = ("onnx", "tflite")
"""The formats of users' model files. Scripts of the fake runtime are not among them."""
MODEL_SUFFIXES = tuple(f".{name}" for name in RUNNABLE)
"""The endings of such files."""
_TORCH = "a PyTorch file; export the network with torch.onnx.export and give the .onnx file"
_TENSORFLOW = "a TensorFlow model; convert it with tf.lite.TFLiteConverter and give the .tflite file"
OTHER_SUFFIXES: Mapping[str, str] = {
    ".lite": "most likely a TFLite file; rename it to .tflite", ".tfl": "most likely a TFLite file; rename it to .tflite",
    ".ort": "in ONNX Runtime's own format, which cannot be read; give the .onnx file that it was made from",
    ".pt": _TORCH, ".pth": _TORCH, ".ckpt": _TORCH, ".safetensors": _TORCH, ".pt2": _TORCH, ".pte": _TORCH,
    ".pb": _TENSORFLOW, ".h5": _TENSORFLOW, ".keras": _TENSORFLOW,
    ".engine": "built by TensorRT for one GPU; give the .onnx file that it was made from, with --runtime onnxruntime-tensorrt",
    ".parquet": "a table; tables and models are different arguments, see --help", ".zip": "an archive; unpack it",
}  # fmt: skip
"""What other files are by their endings, and what to do with them."""


def format_of(path: Path) -> Format:
    """The format of a file, by its ending. Raises `ModelError` if there is no such file or no such format."""
    if not path.exists():
        raise ModelError(f"there is no file {path}; check the path")
    ending = path.suffix.lower()
    if path.is_file() and ending in OTHER_SUFFIXES:
        raise ModelError(f"{path} is {OTHER_SUFFIXES[ending]}")
    if ending not in MODEL_SUFFIXES or not path.is_file():
        raise ModelError(f"{path} is not a model file; {' and '.join(MODEL_SUFFIXES)} files can be read")
    try:
        known = stand_in(path)
    except OSError as exc:
        raise ModelError(f"{path} cannot be read: {exc.strerror}") from exc
    if known:
        raise ModelError(f"{path} is {known}")
    return FORMATS[path.suffix.lstrip(".").lower()]


def format_for(path: Path, runtime: str, model_format: str) -> Format:
    """The format of a file that a runtime is to run, which reads files of `model_format`. Raises `ModelError` for any other."""
    found = format_of(path)
    if found.name != model_format:
        raise ModelError(f"{path} cannot run on {runtime}, which reads .{model_format} files; choose another --runtime")
    return found


def default_runtime(path: Path) -> str:
    """The first runtime that runs files of this format. Raises `ModelError` as `format_of` does."""
    return _first_runtime(format_of(path).name)


def _first_runtime(model_format: str) -> str:
    return next(runtime.name for runtime in RUNTIMES.values() if runtime.model_format == model_format)


def usual_runtime(plans: Iterable[Path]) -> str:
    """The runtime to build a table with where nobody has said which: that of the model files among these plans and model files.

    `ToolError` if there are none, as a plan fits every runtime, or if their formats need different ones.
    """
    found = {default_runtime(path) for path in plans if path.suffix.lower() in MODEL_SUFFIXES}
    if len(found) != 1:
        reason = f"these files are for {' and '.join(sorted(found))}" if found else "a plan can be measured with any"
        usual = sorted({_first_runtime(name) for name in RUNNABLE})
        raise ToolError(f"the runtime is missing: {reason}; name one, such as {' or '.join(usual)}")
    return found.pop()


def read_model(path: Path, given: Given = NOTHING) -> Graph:
    """The fused groups in a model file of any known format. Raises `ModelError` if it cannot be read."""
    return format_of(path).read(path, given)
