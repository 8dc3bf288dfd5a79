"""The command `netadapt export`."""

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
    """The formats of model files, as typer offers them."""

    onnx = "onnx"
    tflite = "tflite"


def export(
    run: options.Run,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="The format of the file. Default: that of the ending of --out, else onnx.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="The step to export. Default: the last.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write. Default: one in the run's folder of exports.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32 or int8. The inputs and outputs of an int8 TFLite file are integers.")
    ] = "float32",
    calibration: Annotated[int, typer.Option(help="Number of training images that the int8 ranges are computed from.")] = 256,
    fold_normalisation: Annotated[
        bool,
        typer.Option(
            "--fold-normalisation",
            help="Let the file normalise its inputs itself, in the weights of its first layer where that is exact: it is then fed "
            "values from 0 to 255.",
        ),
    ] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Also measure the file's latency on the device.")] = False,
    device: options.Device = None,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Write a step's network as a model file, compare its outputs with PyTorch's, and score it on the test images."""
    with needs_torch("the file is kept if it was written"):
        from netadapt.actions import ExportRequest
        from netadapt.actions import export as export_file

        named = file_format.value if file_format else None
        with bar() as progress:
            done = export_file(
                ExportRequest(run, named, step, out, precision, calibration, measure, device, seed, fold_normalisation), progress
            )
        if as_json:
            print_json(printing.exported_data(done.file))
        else:
            print("\n".join([*printing.exported_lines(done.file, done.task), f"  {done.preprocessing.text}"]))
