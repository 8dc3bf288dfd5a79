"""Predicted against measured: the files of a run's networks, measured whole on the device, all in one interleaved run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from netadapt.export.files import export_onnx, export_tflite
from netadapt.runs.models import RunModels
from netadapt.runs.records import Baseline, LayerLatency, TargetName, Verified
from netadapt.search.types import Step
from netadapt.training.checkpoint import load_weights
from profiler.measure.benchmark import measure_files
from profiler.measure.opening import PATIENCE_S
from profiler.progress import ProgressReporter
from profiler.protocol.settings import Target
from profiler.tables.predictor import Prediction, Predictor
from profiler.tables.table import Table

EXPORTERS = {"onnx": export_onnx, "tflite": export_tflite}


def verify(
    models: RunModels, numbers: Sequence[int] | None, target: Target, table: Table | None, progress: ProgressReporter
) -> list[Verified]:
    """Measure these steps (None: every one kept) beside the run's baselines, and record predicted and measured latencies.

    Each network is exported as it would be shipped; a file that is newer than its weights is used again. Baselines that were found
    for another device or runtime are left out, and `table` has to be one of this device and runtime.
    """
    steps = models.run.steps if numbers is None else [models.step(number) for number in numbers]
    progress.begin("exporting networks", len(steps))
    files: dict[int, Path] = {}
    for step in steps:
        files[step.iteration] = exported(models, step, target.model_format)
        progress.advance(f"step {step.iteration}")
    name = TargetName.of(target)
    baselines = [item for item in models.run.baselines if item.target == name]
    baseline_files = {item.name: exported_baseline(models, item, target.model_format) for item in baselines}
    there = {name: path for name, path in baseline_files.items() if path is not None}
    settings = table.info.settings if table is not None else None
    found = measure_files([*files.values(), *there.values()], target, settings=settings, progress=progress, wait_s=PATIENCE_S)
    measured = {path: item.estimate.latency_ms for path, item in found.items()}
    predictor = None if table is None else Predictor(table)
    predicted = {
        step.iteration: None if predictor is None else predictor.predict(models.graph(step.widths)).latency_ms for step in steps
    }
    records = [Verified(number, name, measured[path], predicted[number]) for number, path in files.items()]
    kept = [
        item
        for item in models.run.measured
        if item.step < len(models.run.steps) and not (item.step in files and item.target == name)
    ]
    models.run.write_verified([*kept, *records])
    models.run.write_baselines(
        replace(item, measured_ms=measured[there[item.name]]) if item.name in there else item for item in models.run.baselines
    )
    if predictor is not None:
        models.run.write_layers(layer_latencies(models, predictor))
    return records


def exported(models: RunModels, step: Step, file_format: str, *, path: Path | None = None) -> Path:
    """The step's file, checked against PyTorch; a file that is newer than the step's weights is used again."""
    path = path or models.run.exports / f"step{step.iteration:03d}.{file_format}"
    record = models.run.finished.get(step.iteration)
    weights = models.run.weights_path(record.weights if record else step.weights)
    if not (path.exists() and weights.exists() and path.stat().st_mtime >= weights.stat().st_mtime):
        export(models.model(step), models, file_format, path)
    return path


def exported_baseline(models: RunModels, item: Baseline, file_format: str) -> Path | None:
    """The baseline's file; None where its weights were not kept and it was never exported in this format."""
    path = models.run.exports / f"{item.name}.{file_format}"
    weights = models.run.weights_path(item.runs[0].weights)
    if weights.exists() and (not path.exists() or path.stat().st_mtime < weights.stat().st_mtime):
        model = models.shaped(item.size.widths)
        load_weights(model, weights)
        export(model.eval(), models, file_format, path)
    return path if path.exists() else None


def export(model: nn.Module, models: RunModels, file_format: str, path: Path) -> float:
    """Write a model file and return the largest difference between its outputs and PyTorch's."""
    return EXPORTERS[file_format](model, models.options.input_shapes, path).max_abs_difference


def layer_latencies(models: RunModels, predictor: Predictor) -> list[LayerLatency]:
    """The original's layers and the last step's, each with its calibrated share of the network."""
    before = _shares(predictor.explain(models.graph(models.step(0).widths)))
    after = _shares(predictor.explain(models.graph(models.step(None).widths)))
    return [LayerLatency(name, before[name], after[name]) for name in before if name in after]


def _shares(prediction: Prediction) -> Mapping[str, float]:
    return {layer.node: layer.latency_ms.value for layer in prediction.layers if layer.latency_ms is not None}
