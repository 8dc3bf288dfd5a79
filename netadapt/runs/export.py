"""A step's network as a file to ship, and all that can be said of that file: how near to PyTorch, how accurate, how fast."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from netadapt.errors import SettingsError
from netadapt.export.files import file_scores
from netadapt.export.quantize import agreement, export_int8
from netadapt.pruning.pruner import sample
from netadapt.runs.measure import EXPORTERS
from netadapt.runs.models import Family
from netadapt.runs.records import Delivered
from netadapt.search.types import Step
from netadapt.training.trainer import score
from profiler.formats.model_file import default_runtime
from profiler.measure.benchmark import measure_files
from profiler.measure.opening import PATIENCE_S
from profiler.progress import ProgressReporter
from profiler.protocol.settings import Target

PRECISIONS = ("float32", "int8")
_COMPARED = 256
"""Images of the test part on which outputs are compared."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is asked for. `SettingsError` if it makes no sense."""

    path: Path
    """Ends in .onnx or .tflite."""
    precision: str = "float32"
    calibration: int = 256
    """Images of the training part, for int8."""
    seed: int = 1
    target: Target | None = None
    """Where to measure the file; None leaves it unmeasured."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"files can be written in {' and '.join(PRECISIONS)}, not in {self.precision!r}")
        if self.calibration < 1:
            raise SettingsError(f"--calibration is a number of images, at least 1, got {self.calibration}")

    @property
    def file_format(self) -> str:
        return self.path.suffix.lstrip(".")


def deliver(family: Family, step: Step, asked: Delivery, progress: ProgressReporter) -> Delivered:
    """Write the file, examine it, record it. The test images judge it; they had no part in making it."""
    model, shape = family.model(step), family.options.input_shape
    progress.begin("writing and examining the file", 2 + (asked.target is not None))
    calibration = None
    if asked.precision == "int8":
        images = sample(family.dataset.train, asked.calibration, asked.seed)
        calibration = len(images)
        export_int8(model, shape, asked.path, images)
    else:
        EXPORTERS[asked.file_format](model, shape, asked.path)
    progress.advance("written")
    shown = sample(family.dataset.test, _COMPARED, asked.seed)
    near = agreement(model, asked.path, shown)
    ours, pytorch = file_scores(asked.path, family.dataset.test), score(model, family.dataset.test)
    record = Delivered(
        step=step.iteration,
        path=str(asked.path),
        sha256=hashlib.sha256(asked.path.read_bytes()).hexdigest(),
        format=asked.file_format,
        precision=asked.precision,
        size_bytes=asked.path.stat().st_size,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        images=len(shown),
        max_abs_difference=near.max_abs_difference,
        cosine_similarity=near.cosine_similarity,
        top1_agreement=near.top1_agreement,
        calibration=calibration,
        accuracy=ours.accuracy,
        torch_accuracy=pytorch.accuracy,
        metrics=ours.metrics,
        torch_metrics=pytorch.metrics,
    )
    progress.advance("examined")
    family.run.add_delivered(record)
    if asked.target is not None:
        record = _measured(record, asked.path, asked.target, progress)
        family.run.add_delivered(record)
    return record


def target_for(path: Path, target: Target) -> Target:
    """The same device with a runtime that reads this file: the target's own if it does."""
    if target.model_format == path.suffix.lstrip("."):
        return target
    return replace(target, runtime=default_runtime(path))


def _measured(record: Delivered, path: Path, target: Target, progress: ProgressReporter) -> Delivered:
    target = target_for(path, target)
    found = measure_files([path], target, progress=progress, wait_s=PATIENCE_S)[path].estimate
    return replace(
        record,
        device=target.device,
        runtime=target.runtime,
        latency_ms=found.latency_ms,
        latency_ms_low=found.latency_ms_low,
        latency_ms_high=found.latency_ms_high,
    )
