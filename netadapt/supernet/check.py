"""Random shapes judged in a super-network, and trained by themselves.

Shapes are drawn from the widths that the super-network was trained at, evenly for each block. Each is judged as a candidate of a
search is, and then trained from random weights, which owe nothing to the super-network, and judged on the same holdout images.
"""

from __future__ import annotations

import random
import time

import torch

from netadapt.errors import RunError, SettingsError
from netadapt.pruning.prune import reshape_like
from netadapt.runs.training_schedule import Stage, train_through
from netadapt.supernet.folder import SuperNetworkFolder, TrainedShape
from netadapt.supernet.making import sliced, trained_model
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.trainer import score
from profiler.progress import ProgressReporter


def check_supernet(
    folder: SuperNetworkFolder, shapes: int, asked: RecipeOverrides, progress: ProgressReporter
) -> tuple[TrainedShape, ...]:
    """Train so many random shapes by themselves, those that are recorded already excepted, and record each with both scores.

    `asked` replaces numbers of the super-network's own training. `SettingsError` for fewer than two shapes, `RunError` if shapes
    are recorded that were trained otherwise.
    """
    if shapes < 2:
        raise SettingsError(f"a rank correlation needs at least two --shapes, got {shapes}")
    (model, dataset), settings = trained_model(folder), folder.about.settings
    stage = Stage("training", asked.applied_to(settings.training.recipe.from_scratch))
    before, steps = folder.shapes, stage.settings.steps_for(len(dataset.train))
    if before and before[0].training != stage.text:
        raise RunError(
            f"the shapes in {folder.path} had another training ({before[0].training}, not {stage.text}); use the same options, or "
            f"remove {folder.path / 'shapes.jsonl'}"
        )
    for number in range(len(before), shapes):
        chance = random.Random(f"{settings.seed} {number}")
        widths = {block: chance.choice(choices) for block, choices in folder.about.widths.items()}
        start = time.monotonic()
        judged = score(sliced(folder, model, widths, dataset), dataset.holdout).accuracy
        seconds = time.monotonic() - start
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed + number)
            own = reshape_like(settings.network.build(), folder.graph, widths)
        train_through(
            own,
            dataset,
            (stage,),
            seed=settings.seed + number,
            name=f"shape {number + 1} of {shapes}",
            progress=progress,
            teacher=lambda: model,
        )
        trained = score(own, dataset.holdout).accuracy
        macs = folder.graph.at_widths(widths).macs
        folder.add_shape(TrainedShape(number, widths, macs, seconds, judged, trained, steps, stage.text))
    return folder.shapes[:shapes]
