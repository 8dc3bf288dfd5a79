"""TFLite files written again: with all weights inside the flatbuffer, and with entries added to their metadata."""

from __future__ import annotations

from collections.abc import Mapping

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.formats.tflite.schema import IDENTIFIER, AlignedBuffer


def packed(contents: bytes, metadata: Mapping[str, str] | None = None) -> bytes:
    """The same TFLite file with these entries, and with all weights inside the flatbuffer.

    The quantiser appends weights to a flatbuffer that is larger than 256 kB, where the profiler and older runtimes do not look.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(contents, 0))
    for number, buffer in enumerate(model.buffers):
        data = None if buffer.data is None else np.asarray(buffer.data, np.uint8)
        if buffer.offset > 1:  # 0 and 1 mark buffers inside the flatbuffer
            data = np.frombuffer(contents, np.uint8, buffer.size, buffer.offset)
        model.buffers[number] = AlignedBuffer(data)
    for key, text in (metadata or {}).items():
        model.metadata = [*(model.metadata or ()), schema.MetadataT(name=key, buffer=len(model.buffers))]
        model.buffers = [*model.buffers, AlignedBuffer(np.frombuffer(text.encode(), np.uint8))]
    builder = flatbuffers.Builder(len(contents))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())
