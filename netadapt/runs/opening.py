"""A network and the images that it learns from, opened and tried as far as that takes no training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version

from torch import nn

from netadapt.errors import NetworkError
from netadapt.networks.options import NetworkOptions
from netadapt.networks.plain import Plain
from netadapt.networks.scored import Outputs, outputs_of
from netadapt.networks.user_network import source_facts
from netadapt.runs.models import dataset_of
from netadapt.settings import DataSettings, RunSettings
from netadapt.training.datasets import absolute, is_users
from netadapt.training.tasks import TaskError, chosen_task
from netadapt.training.tasks.one_output import of_one_output
from netadapt.training.tasks.users import UsersTask
from netadapt.training.trying import tried
from netadapt.training.types import Dataset
from netadapt.users_code import absolute_name, short_name, sources
from profiler.layers.graph import Graph

PACKAGES = ("netadapt-profiler", "torch", "torch-pruning", "onnxruntime", "ai-edge-litert")
"""Packages whose versions are recorded with a run, as its results depend on them."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A network with random weights and its images."""

    network: NetworkOptions
    """With the number of the data's classes, and with the outputs that are scored and trained."""
    model: nn.Module
    graph: Graph
    dataset: Dataset
    remarks: tuple[str, ...]
    """What was done to the network, and which of its outputs is scored and trained: whole sentences."""


def opened(network: NetworkOptions, data: DataSettings, seed: int, task: str | None) -> Opened:
    """Open both, to prune the network. Errors as for `fitted`, and `NetworkError` if nothing in it can be pruned."""
    network, plain, dataset, remarks = fitted(network, data, seed, task)
    return Opened(network, plain.model, network.traced(plain.model).graph, dataset, remarks)


def fitted(
    network: NetworkOptions, data: DataSettings, seed: int, task: str | None
) -> tuple[NetworkOptions, Plain, Dataset, tuple[str, ...]]:
    """The options, the network with random weights, its images, and the remarks of `Opened`.

    `task` is as --task names it; None for the data's own. `ToolError` in one sentence if network and images do not fit together.
    """
    dataset = dataset_of(network, data, seed, chosen_task(task) if task else None)
    network = replace(network, classes=len(dataset.classes))
    plain = network.plain()
    remarks = list(plain.remarks)
    if not isinstance(dataset.task, UsersTask):  # which is given all that the network returns
        outputs = _outputs(plain.model, network, dataset)
        scored, trained = outputs.names
        network, dataset = replace(network, output=scored, training_output=trained), of_one_output(dataset, scored, trained)
        remarks += outputs.lines()
    if isinstance(dataset.task, UsersTask) or dataset.users:
        dataset = tried(dataset, network.build(), network.input_shapes, short_name(network.name))
    if dataset.known is not None and dataset.known.mean:
        remarks.append(
            f"images are {dataset.known.normalisation}, {'as asked for' if data.mean else 'that of the training images'}"
        )
    return network, plain, dataset, tuple(remarks)


def _outputs(model: nn.Module, options: NetworkOptions, dataset: Dataset) -> Outputs:
    """The outputs of the network, one of which has a shape that the dataset's task can train.

    `NetworkError` if none of a classifier has, else `TaskError`.
    """
    name, task = short_name(options.name), dataset.task
    found = outputs_of(
        model, options.input_shapes, name, options.output,
        lambda shape: task.accepts_outputs(shape, options.input_shapes[0], options.classes),
    )  # fmt: skip
    if found.scored is not None:
        return found
    if options.classes and (options.output or "") in found.shapes:
        shapes = found.shapes.values() if options.output is None else [found.shapes[options.output]]
        raise NetworkError(
            f"{name} gives outputs of shape {', '.join(map(str, shapes))} for one image, but the data needs "
            f"{(1, options.classes)}; let its function take num_classes, or return a network with as many outputs"
        )
    raise TaskError(
        f"{name} cannot learn {task.name} from {dataset.name}: its outputs are "
        f"{' and '.join('x'.join(map(str, shape)) for shape in found.shapes.values())}; choose another network or other data"
    )


def absolute_source(source: str) -> str:
    """The dataset with an absolute path in place of that of its file or folder, so that a run can be continued from elsewhere."""
    return absolute_name(source) if is_users(source) else absolute(source)


def versions_of(settings: RunSettings) -> dict[str, str]:
    """The versions of PACKAGES, and what tells whether the user's own code behind these settings has changed."""
    own = source_facts(settings.network.name) | sources((settings.data.source, settings.training.task))
    return {name: version(name) for name in PACKAGES} | own
