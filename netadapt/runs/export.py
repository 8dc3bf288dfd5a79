"""A step's network as a file to ship, examined: its agreement with PyTorch, its accuracy and its latency."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from netadapt.errors import SettingsError
from netadapt.export.files import file_scores
from netadapt.export.folding import folded
from netadapt.export.preprocessing import Preprocessing, tell
from netadapt.export.quantize import agreement, export_int8
from netadapt.pruning.pruner import sample
from netadapt.runs.measure import EXPORTERS
from netadapt.runs.models import RunModels
from netadapt.runs.records import ExportedFile, FileAgreement, TargetName
from netadapt.search.types import Step
from netadapt.training.trainer import score
from netadapt.training.trees import each_of
from profiler.formats.model_file import default_runtime
from profiler.measure.benchmark import measure_files
from profiler.measure.opening import PATIENCE_S
from profiler.progress import ProgressReporter
from profiler.protocol.settings import Target, TimingSettings

PRECISIONS = ("float32", "int8")
_COMPARED = 256
"""Images of the test part on which outputs are compared."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """A file that is asked for. `SettingsError` for a precision that cannot be written, or no images to calibrate on."""

    path: Path
    """The file to write; its name ends in .onnx or .tflite."""
    precision: str = "float32"
    calibration: int = 256
    """Training images that the ranges of int8 are taken from."""
    seed: int = 1
    target: Target | None = None
    """The target to measure the file on; None leaves it unmeasured."""
    timing: TimingSettings | None = None
    """The settings of the target's table, if the run has one; the file is measured with them, as the table's layers were."""
    fold_normalisation: bool = False
    """True for a file that normalises its inputs itself."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"files can be written in {' and '.join(PRECISIONS)}, not in {self.precision!r}")
        if self.calibration < 1:
            raise SettingsError(f"--calibration is a number of images, at least 1, got {self.calibration}")

    @property
    def file_format(self) -> str:
        return self.path.suffix.lstrip(".")


def export_step(
    models: RunModels, step: Step, asked: ExportOptions, progress: ProgressReporter
) -> tuple[ExportedFile, Preprocessing]:
    """Write the file, examine it, record it. The test images judge it; they had no part in making it.

    `SettingsError` if the normalisation of data that has none is to be folded.
    """
    model, shapes = models.model(step), models.options.input_shapes
    train, test = models.dataset.train, models.dataset.test
    preprocessing = Preprocessing.of(train, shapes, asked.file_format)
    if asked.fold_normalisation:
        if not train.mean:
            raise SettingsError(
                f"{models.dataset.name} gives inputs as they are fed, so there is nothing to fold; leave --fold-normalisation out"
            )
        model, where = folded(model, train.mean, train.std, shapes)
        progress.say(f"inputs are normalised {where}")
        train, test = train.in_raw_values(), test.in_raw_values()
        preprocessing = preprocessing.within_the_file()
    output = models.output_place(model)
    progress.begin("writing and examining the file", 2 + (asked.target is not None))
    calibration = None
    if asked.precision == "int8":
        inputs = sample(train, asked.calibration, asked.seed)
        calibration = len(each_of(inputs)[0])
        export_int8(model, shapes, asked.path, inputs, output)
    else:
        EXPORTERS[asked.file_format](model, shapes, asked.path)
    tell(preprocessing, asked.path)
    progress.advance("written")
    shown = sample(test, _COMPARED, asked.seed)
    near = agreement(model, asked.path, shown, output)
    record = ExportedFile(
        step=step.iteration,
        path=str(asked.path),
        sha256=hashlib.sha256(asked.path.read_bytes()).hexdigest(),
        format=asked.file_format,
        precision=asked.precision,
        size_bytes=asked.path.stat().st_size,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        agreement=FileAgreement(len(each_of(shown)[0]), near.max_abs_difference, near.cosine_similarity, near.top1_agreement),
        scores=file_scores(asked.path, test, output),
        torch_scores=score(model, test),
        calibration=calibration,
    )
    progress.advance("examined")
    models.run.add_exported(record)
    if asked.target is not None:  # only now, so that a device that fails leaves the record of the file
        target = target_for(asked.path, asked.target)
        timing = asked.timing if target == asked.target else None  # a table of another runtime is not the file's
        measured = measure_files([asked.path], target, settings=timing, progress=progress, wait_s=PATIENCE_S)
        found = measured[asked.path].estimate
        record = replace(record, target=TargetName.of(target), latency_ms=found.latency_ms)
        models.run.add_exported(record)
    return record, preprocessing


def target_for(path: Path, target: Target) -> Target:
    """The same device with a runtime that reads this file: the target's own runtime if it does."""
    if target.model_format == path.suffix.lstrip("."):
        return target
    return replace(target, runtime=default_runtime(path))
