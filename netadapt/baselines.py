"""Is the adapted network better than simply a thinner one? A width multiplier of equal measured latency, trained the same way."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from netadapt.errors import NetAdaptError
from netadapt.family import Family
from netadapt.finish import long_term, whole_training_part
from netadapt.loop import Step
from netadapt.records import Baseline
from netadapt.training import Changes, score, train
from netadapt.verify import export
from profiler.graph import Graph
from profiler.measure import measure_files
from profiler.model_file import FORMATS
from profiler.progress import Work
from profiler.settings import Target
from profiler.table import LatencyTable

Widths = Mapping[str, int]

MULTIPLIER_STEP = 0.005
MEASURED = 8
"""How many thinner networks around the predicted latency are measured to find the one that is really as fast."""


def thinner(family: Family, step: Step, target: Target, table: LatencyTable, *, seed: int, progress: Work) -> Baseline:
    """Find the multiplier whose network is measured as fast as the step's, train that network from scratch and record it.

    It is trained as the original was, and then as the step was in its long-term fine-tune if it had one: same pictures, same
    epochs, same learning rates.
    """
    multiplier, widths = as_fast_as(family, step, target, table, progress)
    graph = family.graph(widths)
    model = family.shaped(widths)  # random weights: the family's original was never trained
    _train_like(model, family, step, seed, progress)
    name = f"width-multiplier-{multiplier:.3g}"
    export(model, family, target.model_format, family.run.exports / f"{name}.{target.model_format}")
    said, scores = table.predict(graph), score(model, family.dataset.test)
    baseline = Baseline(
        name=name,
        widths=dict(widths),
        test_accuracy=scores.accuracy,
        macs=graph.macs,
        parameters=graph.parameters,
        predicted_ms=said.latency_ms,
        predicted_ms_low=said.latency_ms_low,
        predicted_ms_high=said.latency_ms_high,
        metrics=scores.metrics,
    )
    others = [item for item in family.run.baselines if item.name != name]
    family.run.write_baselines([*others, baseline])
    return baseline


def _train_like(model: nn.Module, family: Family, step: Step, seed: int, progress: Work) -> None:
    """From scratch as the original, then as the step's long-term fine-tune."""
    settings, finished = family.run.info.settings, family.run.finished.get(step.iteration)
    names = ("learning_rate", "epochs", "batch_size", "augment")
    asked = Changes(**{name: settings.get(name) for name in names})
    stages = [("training", family.dataset.train, asked.of(family.dataset.task.recipe.from_scratch))]
    if finished is not None:
        again = Changes(**{name: getattr(finished, name) for name in names})
        stages.append(("long-term fine-tune of", whole_training_part(family.dataset), long_term(family, again)))
    for what, part, how in stages:
        progress.begin(f"{what} the thinner network", how.steps_for(len(part)))
        train(model, part, how, seed=seed, progress=lambda _done, _all, loss: progress.advance(f"loss {loss:.3f}"))


def as_fast_as(family: Family, step: Step, target: Target, table: LatencyTable, progress: Work) -> tuple[float, Widths]:
    """The multiplier, and its widths, whose latency is measured nearest to the step's.

    All are written the same way and measured in one interleaved run, so that only their shapes differ.
    """
    goal = family.graph(step.widths)
    goal_ms = table.predict(goal).latency_ms
    around = sorted(multipliers(family.run.graph), key=lambda item: abs(table.predict(family.graph(item[1])).latency_ms - goal_ms))[
        :MEASURED
    ]
    if not around:
        raise NetAdaptError(f"{family.run.graph.name} cannot be made thinner: every block is at its narrowest")
    writer = FORMATS[target.model_format]
    with tempfile.TemporaryDirectory(prefix="baselines_") as folder:
        files = {Path(folder, f"{multiplier:.3f}.{writer.name}"): (multiplier, widths) for multiplier, widths in around}
        for path, (_, widths) in files.items():
            path.write_bytes(writer.write(family.graph(widths)))
        adapted = Path(folder, f"adapted.{writer.name}")
        adapted.write_bytes(writer.write(goal))
        found = {
            path: item.estimate.latency_ms for path, item in measure_files([adapted, *files], target, progress=progress).items()
        }
    return files[min(files, key=lambda path: abs(found[path] - found[adapted]))]


def multipliers(graph: Graph) -> list[tuple[float, Widths]]:
    """Every network that a width multiplier below 1 makes of this one, in multiples of eight channels, the widest first."""
    found: dict[tuple[int, ...], float] = {}
    for count in range(1, round(1 / MULTIPLIER_STEP)):
        multiplier = 1 - count * MULTIPLIER_STEP
        widths = tuple(min(full, max(8, round(full * multiplier / 8) * 8)) for full in graph.widths.values())
        if widths != tuple(graph.widths.values()):
            found.setdefault(widths, multiplier)
    return [(multiplier, dict(zip(graph.widths, widths, strict=True))) for widths, multiplier in found.items()]
