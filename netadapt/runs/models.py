"""A run's networks: the original and every step, rebuilt from the run folder as torch models."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import nn

from netadapt.errors import RunError
from netadapt.networks.options import NetworkOptions
from netadapt.networks.user_network import GIVEN, changed_source
from netadapt.outputs import named_outputs
from netadapt.pruning.prune import reshape_like
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import Step
from netadapt.settings import DataSettings
from netadapt.training.checkpoint import load_weights
from netadapt.training.datasets import is_users
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.tasks.one_output import of_one_output
from netadapt.training.trees import zeros_of
from netadapt.training.types import Dataset, Task
from netadapt.users_code import changed_sources
from profiler.layers.graph import Graph


def dataset_of(network: NetworkOptions, data: DataSettings, seed: int, task: Task | None) -> Dataset:
    """The images that a run learns from, in the shape that its network takes; None stands for the data's own task.

    `DataError` or `UsersError` if they cannot be had, `RunError` if they have changed since the run began.
    """
    dataset = open_dataset(
        data.source,
        resolution=network.resolution if is_users(data.source) else network.image_side,
        channels=3 if is_users(data.source) else network.image_shape[0],
        seed=seed,
        holdout_fraction=data.holdout_fraction,
        task=task,
        workers=data.workers,
        known=data.known,
        mean=data.mean,
        std=data.std,
    )
    if data.known is not None and dataset.known is not None and dataset.known.digest != data.known.digest:
        raise RunError(
            f"the images of {data.source} are no longer those that the run began with, or are in other parts; restore them, or "
            "begin another run"
        )
    return dataset


class RunModels:
    """The models behind the steps of a run."""

    def __init__(self, run: RunFolder, dataset: Dataset | None = None, original: nn.Module | None = None) -> None:
        """`dataset` saves loading it again where it is loaded already; `original` is a network that was given as an object."""
        self.run = run
        self._dataset = dataset
        self.options = run.info.settings.network
        settings = run.info.settings
        for warning in (
            changed_source(self.options.name, run.info.versions),
            *changed_sources(
                filter(
                    None, (settings.data.source, settings.training.task, settings.training.evaluate, settings.training.fine_tune)
                ),
                run.info.versions,
            ),
        ):
            if warning:
                print(f"warning: {warning}", file=sys.stderr)
        with torch.random.fork_rng():
            torch.manual_seed(run.info.settings.seed)
            self._original = original or self.options.build()

    @property
    def dataset(self) -> Dataset:
        """The data the run was started with, split as it was then."""
        if self._dataset is None:
            settings = self.run.info.settings
            if settings.data.source == GIVEN:
                raise RunError(
                    f"the data of {self.run.path} is known to the functions that were given to netadapt.adapt only; call it again "
                    "with resume=True, which yields all steps, to export or to train them further"
                )
            data = dataset_of(settings.network, settings.data, settings.seed, settings.task)
            self._dataset = of_one_output(data, settings.network.output, settings.network.training_output)
        return self._dataset

    def step(self, number: int | None) -> Step:
        """A step by number, the last for None. `RunError` naming those there are."""
        steps = self.run.steps
        if not steps:
            raise RunError(f"{self.run.path} has no step yet; go on with `netadapt resume {self.run.path}`")
        if number is not None and not 0 <= number < len(steps):
            raise RunError(f"{self.run.path} has no step {number}; it has 0 to {len(steps) - 1}")
        return steps[-1 if number is None else number]

    def graph(self, widths: Mapping[str, int]) -> Graph:
        """The graph of the original at these widths."""
        return self.run.graph.at_widths(widths)

    def shaped(self, widths: Mapping[str, int]) -> nn.Module:
        """A model of these widths; its weights are still to be loaded."""
        return reshape_like(self._original, self.run.graph, widths)

    def output_place(self, model: nn.Module) -> int:
        """The place of the output that is scored among all outputs of a step's model, which is that in its exported files."""
        if self.options.output is None:
            return 0
        with torch.no_grad():
            names = list(named_outputs(model(*zeros_of(self.options.input_shapes))))
        return names.index(self.options.output)

    def teacher(self) -> nn.Module:
        """The original network that others may be distilled from, as it was before its long-term fine-tune."""
        return self.model(self.step(0), finished=False)

    def model(self, step: Step, *, finished: bool = True) -> nn.Module:
        """A step's model: after its long-term fine-tune where there was one, unless `finished` is false."""
        record = self.run.finished.get(step.iteration) if finished else None
        model = self.shaped(step.widths)
        load_weights(model, self.run.weights_path(record.weights if record else step.weights))
        return model.eval()


def randomly_initialised(models: RunModels, widths: Mapping[str, int], seed: int) -> nn.Module:
    """The run's network with these widths and random weights, which are different for each seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        original = models.options.build()
    return reshape_like(original, models.run.graph, widths)
