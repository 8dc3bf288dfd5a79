"""A run's networks: the original and every step, rebuilt from the run folder as torch models."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netadapt.errors import NetworkError, RunError
from netadapt.input_shape import InputShape
from netadapt.networks import build_network
from netadapt.networks.own import changed_source, short, users_code
from netadapt.pruning.couplings import as_list
from netadapt.pruning.prune import reshape_like
from netadapt.pruning.tracing import trace
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import Step
from netadapt.training.checkpoint import load_weights
from netadapt.training.datasets import open_dataset
from netadapt.training.types import Dataset
from profiler.layers.graph import Graph


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What a network is built with; stored with a run, so that it can be built again."""

    name: str
    width_multiplier: float = 1.0
    resolution: int = 224
    classes: int = 1000
    """0 for a network without a classifier."""
    small_input: bool = False
    input: InputShape | None = None
    """Of the model, where it was asked for; else three channels and the resolution squared."""

    @property
    def input_shape(self) -> InputShape:
        return self.input or (1, 3, self.resolution, self.resolution)

    @property
    def image_side(self) -> int:
        """In pixels, for datasets, whose images are square."""
        _, _, height, width = self.input_shape
        if height != width:
            raise NetworkError(f"the images of a dataset are square, an input of {height} by {width} pixels is not")
        return height

    @property
    def keywords(self) -> dict[str, Any]:
        """For `build_network`."""
        _, channels, height, _ = self.input_shape
        common = {"width_multiplier": self.width_multiplier, "resolution": height, "in_channels": channels}
        return common | ({"classes": self.classes} if self.classes else {}) | ({"small_input": True} if self.small_input else {})

    def build(self) -> nn.Module:
        return build_network(self.name, **self.keywords)

    def graph(self, *, outputs: tuple[int, ...] | None = None) -> Graph:
        """The network's layers and blocks. `NetworkError` if it does not take its input, gives other outputs, or has no blocks."""
        model, name = self.build().eval(), short(self.name)
        with users_code(f"{name} does not take an input of {'x'.join(map(str, self.input_shape))}"), torch.inference_mode():
            found = [tuple(output.shape) for output in as_list(model(torch.zeros(self.input_shape)))]
            model(torch.zeros(2, *self.input_shape[1:]))  # as in training
        if outputs is not None and found != [outputs]:
            raise NetworkError(
                f"{name} gives {', '.join(map(str, found))} for one image, but the data asks for {outputs}; "
                "let its function take num_classes, or return a network with as many outputs"
            )
        with users_code(f"{name} cannot be traced"):
            graph = trace(model, self.input_shape, name)
        if not graph.widths:
            raise NetworkError(
                f"nothing in {name} can be pruned: it needs convolutions or linear layers that are called once, are not grouped, "
                "and whose outputs only layers read that can follow"
            )
        return graph

    @classmethod
    def of(cls, network: str, settings: Mapping[str, Any]) -> NetworkOptions:
        names = ("width_multiplier", "resolution", "classes", "small_input")
        shape = settings.get("input")  # a list, as it comes out of JSON
        return cls(network, **{name: settings[name] for name in names if name in settings}, input=tuple(shape) if shape else None)


class Family:
    """The models behind the steps of a run."""

    def __init__(self, run: RunFolder, dataset: Dataset | None = None) -> None:
        """`dataset` saves loading it again where it is loaded already."""
        self.run = run
        self._dataset = dataset
        self.options = NetworkOptions.of(run.info.network, run.info.settings)
        if warning := changed_source(self.options.name, run.info.versions):
            print(f"warning: {warning}", file=sys.stderr)
        with torch.random.fork_rng():
            torch.manual_seed(run.info.settings["seed"])
            self._original = self.options.build()

    @property
    def dataset(self) -> Dataset:
        """The data the run was started with, split as it was then."""
        if self._dataset is None:
            settings = self.run.info.settings
            self._dataset = open_dataset(
                settings["data"],
                resolution=self.options.image_side,
                channels=self.options.input_shape[1],
                seed=settings["seed"],
                holdout_fraction=settings["holdout_fraction"],
            )
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
        return self.run.graph.at_widths(widths)

    def shaped(self, widths: Mapping[str, int]) -> nn.Module:
        """A model of these widths; its weights mean nothing yet."""
        return reshape_like(self._original, self.run.graph, widths)

    def model(self, step: Step, *, finished: bool = True) -> nn.Module:
        """A step's model: after its long-term fine-tune where there was one, unless `finished` is false."""
        record = self.run.finished.get(step.iteration) if finished else None
        model = self.shaped(step.widths)
        load_weights(model, self.run.weights_path(record.weights if record else step.weights))
        return model.eval()
