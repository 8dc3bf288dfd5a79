"""A warning about networks of which only a part may have been measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from profiler.formats.onnx.branches import decided_by_inputs


def warn_of_branches(models: Sequence[Path]) -> None:
    """Say on standard error which operators of ONNX files run one part or another by the value of an input, which is made up."""
    for model in models:
        for node, name in decided_by_inputs(model) if model.suffix.lower() == ".onnx" else ():
            print(
                f"warning: {model}: what {node} runs depends on the value of the input {name}, which is made up here, so another "
                "part of the network may be the one that matters; make the input a constant in the file to choose",
                file=sys.stderr,
            )
