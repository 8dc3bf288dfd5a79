"""A super-network from a network and its images to the trained folder, and the narrower networks that are sliced out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from netadapt.errors import NetworkError, RunError
from netadapt.networks.options import NetworkOptions
from netadapt.pruning.batch_norm import reestimate
from netadapt.pruning.importance import IMPORTANCES
from netadapt.pruning.prune import prune_in_order
from netadapt.pruning.pruner import sample
from netadapt.pruning.settings import PruningSettings
from netadapt.runs.models import dataset_of
from netadapt.runs.opening import Opened, absolute_source, opened, versions_of
from netadapt.runs.training_schedule import advancing
from netadapt.search.descent import possible_choices
from netadapt.search.types import AdaptSettings
from netadapt.settings import DataSettings, RunSettings, TrainingSettings
from netadapt.supernet.bypass import with_branches
from netadapt.supernet.dropout import OrderedDropout, blocks_to_drop, branches_to_drop, order_of
from netadapt.supernet.folder import (
    RECALIBRATION_BATCHES,
    SuperNetwork,
    SuperNetworkFolder,
    TrainedNetwork,
    is_supernet,
    refuse_unless_free,
)  # fmt: skip
from netadapt.supernet.training import WARM_UP, train_supernet
from netadapt.training.checkpoint import load_weights, save_weights
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.tasks.one_output import of_one_output
from netadapt.training.tasks.users import UsersTask
from netadapt.training.trainer import score
from netadapt.training.types import Dataset
from netadapt.users_code import short_name
from profiler.layers.graph import Graph
from profiler.progress import ProgressReporter


@dataclass(frozen=True, slots=True)
class SuperNetworkRequest:
    """The arguments of `netadapt supernet`."""

    network: NetworkOptions
    """Its number of classes is replaced by that of the data."""
    data: DataSettings
    out: Path
    training: RecipeOverrides = field(default_factory=RecipeOverrides)
    """Replacements of the numbers of the task's training from random weights."""
    width_step: int = 8
    min_width: int = 8
    pruning: PruningSettings = field(default_factory=lambda: PruningSettings(bn_recalibration_batches=RECALIBRATION_BATCHES))
    seed: int = 1
    weights: Path | None = None
    """A file with trained weights to start from, whose channels are then sorted by importance; None for random weights."""
    task: str | None = None
    """A task as `--task` names it; None for the data's own."""
    bypass: bool = False
    """True to let the branches that have a shortcut around them be removed."""

    def settings(self, found: Opened) -> RunSettings:
        """The settings to store with the super-network."""
        task, change = found.dataset.task, self.training
        if found.dataset.users:  # its own transforms are all that changes it at random, unless the task's are asked for
            change = replace(change, augment=bool(change.augment))
        training = TrainingSettings(
            task.name,
            task.recipe.changed(change, RecipeOverrides()),
            self.weights.name if self.weights else None,
            threads_original=torch.get_num_threads(),
            scores=(task.accuracy, *task.metrics) if isinstance(task, UsersTask) else (),
        )
        data = replace(self.data, source=absolute_source(self.data.source), known=found.dataset.known)
        search = AdaptSettings(width_step=self.width_step, min_width=self.min_width)
        return RunSettings(found.network, data, training, search, self.pruning, seed=self.seed)


def make_supernet(request: SuperNetworkRequest, *, resume: bool, progress: ProgressReporter) -> TrainedNetwork:
    """Train a super-network or, with `resume`, go on with one; one that is trained already is left as it is.

    `ToolError` in one sentence for everything that can be wrong, before training starts wherever that is possible.
    """
    if request.weights is not None and not request.weights.is_file():
        raise RunError(f"there is no file of weights {request.weights}; name another with --weights, or leave it out")
    refuse_unless_free(request.out, resume=resume)
    data = request.data
    if resume and is_supernet(request.out):
        with SuperNetworkFolder.open(request.out) as folder:
            data = replace(data, known=folder.about.settings.data.known)  # so that not all images have to be read again
    found = opened(request.network, data, request.seed, request.task)
    for remark in (*found.remarks, *(f"warning: {request.data.source}: {remark}" for remark in found.dataset.remarks)):
        progress.say(remark)
    settings = request.settings(found)
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        model = found.network.build()
    if request.weights is not None:
        load_weights(model, request.weights)
    about, graph = _described(request, found, model, settings, progress)
    with SuperNetworkFolder.create(request.out, about, graph, resume=resume) as folder:
        if (trained := folder.trained) is not None:
            return trained
        training = settings.training.recipe.from_scratch
        dropout = OrderedDropout(model, folder.graph, folder.about.widths, folder.about.order)
        steps = training.steps_for(len(found.dataset.train))
        progress.begin("training the super-network", steps)
        advance = advancing(progress)
        seconds = train_supernet(
            model, dropout, found.dataset.train, training, folder.checkpoint, seed=request.seed,
            progress=lambda done, _all, loss: advance(done, loss),
            warm_up=WARM_UP if request.weights is None else 0.0,
        )  # fmt: skip
        reestimate(model, found.dataset.train, settings.pruning.bn_recalibration_batches, request.seed)
        save_weights(model, folder.weights)
        least = {block: widths[0] for block, widths in folder.about.widths.items()}
        narrowest = sliced(folder, model, least, found.dataset)
        trained = TrainedNetwork(steps, seconds, score(model, found.dataset.holdout), score(narrowest, found.dataset.holdout))
        folder.write_trained(trained)
        folder.checkpoint.unlink(missing_ok=True)
        return trained


def _described(
    request: SuperNetworkRequest, found: Opened, model: nn.Module, settings: RunSettings, progress: ProgressReporter
) -> tuple[SuperNetwork, Graph]:
    """The description of a new super-network of this model, and its graph with the branches that can be removed.

    Its channels are sorted if its weights are trained ones.
    """
    blocks, name = blocks_to_drop(model, found.graph), short_name(found.network.name)
    if not blocks:
        raise NetworkError(
            f"no block of {name} can be narrower image by image, as its channels meet in normalisations or products; "
            "`netadapt run` without a super-network narrows it"
        )
    graph = found.graph
    if request.bypass:
        graph = with_branches(model, graph)
        branches = tuple(branch for branch in branches_to_drop(model, graph) if branch.blocks[0] in blocks)
        if not branches:
            raise NetworkError(
                f"nothing in {name} can be removed: --bypass needs residual branches, which have a shortcut around them and a "
                "block of their own; leave it out"
            )
        graph = replace(graph, branches=branches)
        progress.say(f"can be removed: {', '.join(branch.name for branch in branches)}")
    choices = possible_choices(graph, request.width_step, request.min_width)
    widths = {block: choices[block] for block in blocks}
    if fixed := [block for block in found.graph.widths if len(widths.get(block, ())) < 2]:
        progress.say(f"at full width in the super-network: {', '.join(fixed)}")
    order = {}
    if request.weights is not None:
        needs_images = IMPORTANCES[request.pruning.importance].needs_images
        inputs = sample(found.dataset.train, request.pruning.images, request.seed) if needs_images else None
        order = order_of(model, found.graph, widths, request.pruning.importance, inputs)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return SuperNetwork(settings, now, widths, order, versions_of(settings), request.bypass), graph


def trained_model(folder: SuperNetworkFolder) -> tuple[nn.Module, Dataset]:
    """A trained super-network at full width, in evaluation, and the images that it learnt from, split as they were then."""
    folder.require_trained()
    settings = folder.about.settings
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = settings.network.build()
    load_weights(model, folder.weights)
    data = dataset_of(settings.network, settings.data, settings.seed, settings.task)
    return model.eval(), of_one_output(data, settings.network.output, settings.network.training_output)


def sliced(folder: SuperNetworkFolder, model: nn.Module, widths: Mapping[str, int], dataset: Dataset) -> nn.Module:
    """The network of these widths out of a super-network's model, with batch normalisation's statistics of its own."""
    settings = folder.about.settings
    narrow = prune_in_order(model, folder.graph, widths, folder.about.order)
    reestimate(narrow, dataset.train, settings.pruning.bn_recalibration_batches, settings.seed)
    return narrow
