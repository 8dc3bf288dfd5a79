"""The command `netadapt demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netadapt.cli.errors import needs_torch


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for everything that the demo writes.")] = Path("runs/demo"),
    runtime: Annotated[str, typer.Option(help="The runtime to measure with: onnxruntime or litert.")] = "onnxruntime",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a demo that was interrupted.")] = False,
) -> None:
    """Run everything once on this machine: measure, build a table, adapt MobileNetV1 to 60 % of its latency, compare."""
    with needs_torch(f"everything done so far is kept in {out}; continue with --resume", [out]):
        from netadapt.demo import demo as run_demo

        run_demo(out, runtime, resume=resume)
