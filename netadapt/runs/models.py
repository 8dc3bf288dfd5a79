"""A run's networks: the original and every step, rebuilt from the run folder as torch models."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import nn

from netadapt.errors import RunError
from netadapt.networks.options import NetworkOptions
from netadapt.networks.user_network import changed_source
from netadapt.outputs import named_outputs
from netadapt.pruning.prune import reshape_like
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import Step
from netadapt.settings import DataSettings
from netadapt.training.checkpoint import load_weights
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.tasks.one_output import of_one_output
from netadapt.training.types import Dataset
from profiler.layers.graph import Graph


def dataset_of(network: NetworkOptions, data: DataSettings, seed: int) -> Dataset:
    """The images that a run learns from, in the shape that its network takes. `DataError` if they cannot be had."""
    return open_dataset(
        data.source,
        resolution=network.image_side,
        channels=network.input_shape[1],
        seed=seed,
        holdout_fraction=data.holdout_fraction,
    )


class RunModels:
    """The models behind the steps of a run."""

    def __init__(self, run: RunFolder, dataset: Dataset | None = None) -> None:
        """`dataset` saves loading it again where it is loaded already."""
        self.run = run
        self._dataset = dataset
        self.options = run.info.settings.network
        if warning := changed_source(self.options.name, run.info.versions):
            print(f"warning: {warning}", file=sys.stderr)
        with torch.random.fork_rng():
            torch.manual_seed(run.info.settings.seed)
            self._original = self.options.build()

    @property
    def dataset(self) -> Dataset:
        """The data the run was started with, split as it was then."""
        if self._dataset is None:
            settings = self.run.info.settings
            data = dataset_of(settings.network, settings.data, settings.seed)
            self._dataset = of_one_output(data, settings.network.output, settings.network.training_output)
        return self._dataset

    def step(self, number: int | None) -> Step:
        """A step by number, the last for None. `RunError` naming those there are."""
        steps = self.run.steps
        if not steps:
            raise RunError(f"{self.run.path} has no step yet; go on with `netadapt run --resume`")
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
            names = list(named_outputs(model(torch.zeros(self.options.input_shape))))
        return names.index(self.options.output)

    def model(self, step: Step, *, finished: bool = True) -> nn.Module:
        """A step's model: after its long-term fine-tune where there was one, unless `finished` is false."""
        record = self.run.finished.get(step.iteration) if finished else None
        model = self.shaped(step.widths)
        load_weights(model, self.run.weights_path(record.weights if record else step.weights))
        return model.eval()
