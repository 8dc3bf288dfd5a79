"""The network and images of commands that take a trained network by name, or a step of a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netadapt.weight_pruning.source import Source, SourceRequest


def source_with_warnings(request: SourceRequest, random: str = "") -> Source:
    """The source, after warnings on standard error: what of its file of weights did not fit and, if the end of a sentence about
    that is given, that its weights are random. Errors as for `open_source`."""
    from netadapt.weight_pruning.source import open_source

    source = open_source(request)
    for remark in source.remarks:
        print(f"warning: {request.weights}: {remark}", file=sys.stderr)
    if random and not source.trained:
        print(f"warning: the weights of {source.name} are random{random}", file=sys.stderr)
    return source
