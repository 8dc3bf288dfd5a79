"""`netadapt export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from profiler.console import Json, print_json
from profiler.progress import bar


class Format(StrEnum):
    onnx = "onnx"
    tflite = "tflite"


def export(
    run: options.Run,
    file_format: Annotated[Format, typer.Option("--format", help="The kind of file.")],
    step: Annotated[int | None, typer.Option(help="The step to export. Default: the last.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write. Default: one in the run's folder of exports.")] = None,
    precision: Annotated[str, typer.Option(help="float32 or int8. In int8 a TFLite file takes and gives integers.")] = "float32",
    calibration: Annotated[int, typer.Option(help="Training images that the ranges of int8 are taken from.")] = 256,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the file's latency on the device, too.")] = False,
    device: options.Device = None,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Write a step's network as a model file, compared with PyTorch, judged on the test images by its own runtime."""
    with needs_torch("the file is kept if it was written"):
        from netadapt.actions import ExportRequest
        from netadapt.actions import export as export_file

        with bar() as progress:
            done = export_file(
                ExportRequest(run, file_format.value, step, out, precision, calibration, measure, device, seed), progress
            )
        if as_json:
            print_json(printing.exported_data(done.file))
        else:
            print("\n".join(printing.exported_lines(done.file, done.task)))
