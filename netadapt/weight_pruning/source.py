"""A trained network with its images: one by name, or a step of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from netadapt.errors import SettingsError
from netadapt.networks.options import NetworkOptions
from netadapt.pruning import tracing
from netadapt.runs.models import RunModels, dataset_of
from netadapt.runs.opening import fitted
from netadapt.runs.run_folder import RunFolder, is_run
from netadapt.settings import DataSettings
from netadapt.training.checkpoint import load_weights
from netadapt.training.recipe import Recipe
from netadapt.training.tasks.one_output import of_one_output
from netadapt.training.types import Dataset
from netadapt.users_code import short_name
from profiler.layers.graph import Graph


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """A network by name with its data, or a run."""

    network: NetworkOptions | None
    """None for a run."""
    run: Path | None = None
    step: int | None = None
    """The step of the run; None for the last."""
    data: str | None = None
    """A dataset as `--data` names it; None for that of the run."""
    task: str | None = None
    weights: Path | None = None
    """A file with trained weights; None for random ones of a network by name, or those of the step."""
    holdout_fraction: float = 0.15
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A network in evaluation, and all that is needed to train, score and export it."""

    name: str
    """For people: the network, and the step of the run."""
    options: NetworkOptions
    model: nn.Module
    graph: Graph
    dataset: Dataset
    recipe: Recipe
    trained: bool
    """False if the weights are random."""
    remarks: tuple[str, ...] = field(default=())


def source_request(
    network: str,
    step: int | None,
    data: str | None,
    width_multiplier: float,
    resolution: int,
    small_input: bool,
    input_shapes: str | None,
    output: str | None,
    weights: Path | None,
    task: str | None,
    *,
    holdout_fraction: float = 0.15,
    seed: int,
) -> SourceRequest:
    """The request of a command's arguments. `SettingsError` for a file of weights that is not there."""
    if weights is not None and not weights.is_file():
        raise SettingsError(f"there is no file of weights {weights}; name another with --weights")
    if is_run(Path(network)):
        return SourceRequest(None, Path(network), step, data, None, weights, holdout_fraction, seed)
    chosen = NetworkOptions.chosen(network, width_multiplier, resolution, small_input, input_shapes, output=output)
    return SourceRequest(chosen, None, None, data, task, weights, holdout_fraction, seed)


def open_source(request: SourceRequest) -> Source:
    """Load or build the network. `SettingsError` if data are missing, and the errors of `netadapt run` for all else."""
    if request.run is not None:
        with RunFolder.open(request.run) as folder:
            models = RunModels(folder)
            step, settings = models.step(request.step), folder.info.settings
            options, name = models.options, f"step {step.iteration} of {request.run}"
            model, graph, recipe = models.model(step), models.graph(step.widths), settings.training.recipe
            dataset = models.dataset
        remarks = load_weights(model, request.weights).remarks if request.weights is not None else ()
        if request.data is None:
            return Source(name, options, model, graph, dataset, recipe, True, remarks)
        images = DataSettings(request.data, request.holdout_fraction)
        other = dataset_of(options, images, request.seed, settings.task)
        dataset = of_one_output(other, options.output, options.training_output)
        return Source(name, options, model, graph, dataset, recipe, True, remarks)
    if request.network is None or request.data is None:
        raise SettingsError("images are missing; give them with --data, or the folder of a run in place of the network")
    images = DataSettings(request.data, request.holdout_fraction)
    options, _, dataset, _ = fitted(request.network, images, request.seed, request.task)
    name = short_name(options.name)
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        model = options.build().eval()
    graph = tracing.trace(model, options.input_shapes, name)
    remarks = load_weights(model, request.weights).remarks if request.weights is not None else ()
    return Source(name, options, model, graph, dataset, dataset.task.recipe, request.weights is not None, remarks)
