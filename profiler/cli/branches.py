"""A warning about networks of which only a part may have been measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from profiler.errors import ModelError
from profiler.formats.given import Given
from profiler.formats.onnx.branches import decided_by_inputs


def warn_of_branches(models: Sequence[Path], given: Given) -> None:
    """Say on standard error which operators of ONNX files run one part or another by the value of an input that is made up."""
    for model in models:
        try:
            decided = decided_by_inputs(model) if model.suffix.lower() == ".onnx" else []
        except ModelError as exc:  # the file has been measured, so that there is a result all the same
            print(f"warning: {exc}; whether it runs another part for other inputs is not known", file=sys.stderr)
            continue
        for node, name in decided:
            if name not in given.values:
                print(
                    f"warning: {model}: what {node} runs depends on the value of the input {name}, which is made up here, so "
                    f"another part of the network may be the one that matters; choose with --input {name}=VALUE",
                    file=sys.stderr,
                )
