"""One batch of the user's data through the user's task, before a run starts: whatever would end the training is told at once."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from netadapt.input_shapes import InputShapes, shapes_text
from netadapt.training.datasets.users import check_examples
from netadapt.training.streaming import StreamedPart
from netadapt.training.tasks import TaskError
from netadapt.training.tasks.users import UsersTask
from netadapt.training.trainer import outputs_of
from netadapt.training.trees import tensors_in
from netadapt.training.types import Dataset
from netadapt.users_code import users_code

_EXAMPLES = 4


def tried(dataset: Dataset, model: nn.Module, input_shapes: InputShapes, name: str) -> Dataset:
    """The dataset, whose task knows the names of its scores from now on. `model`, which is changed, is called `name` in errors.

    `UsersError` if an example, the loss or the scores are not as they should be; `TaskError` if the inputs are not the network's.
    """
    if dataset.users:
        assert isinstance(dataset.train, StreamedPart)
        found = shapes_text(tuple(type(shape)((1, *shape)) for shape in dataset.train.shapes))
        if found != shapes_text(input_shapes):
            raise TaskError(
                f"the inputs of {dataset.name} are {found}, those of {name} are {shapes_text(input_shapes)}; "
                f"choose the same with --input {found}, or let the data give the other"
            )
        check_examples(dataset.train.stream)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise TaskError(f"no weight of {name} requires gradients, so nothing can be trained; take requires_grad_(False) out of it")
    task = dataset.task
    inputs, targets = dataset.train.batch(torch.arange(min(_EXAMPLES, len(dataset.train))))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with users_code(f"{name} does not accept a batch of {dataset.name}"):
            outputs = outputs_of(model.train(), inputs)
        try:
            loss = task.loss(outputs, targets)
            torch.autograd.backward(loss)
        except (RuntimeError, ValueError, TypeError, LookupError) as exc:  # of a built-in loss
            said = " ".join(str(exc).split())[:200]
            raise TaskError(
                f"{name} cannot learn {task.name} from {dataset.name}: {said}; choose another --task or --data"
            ) from exc
        finite = all(bool(each.isfinite().all()) for each in tensors_in(outputs))
        if finite and not bool(loss.isfinite()):
            raise TaskError(
                f"the loss of {task.name} is {loss.item()} for a first batch of {dataset.name}, of which the network's outputs are "
                "finite; it must be a finite number, so mend the loss or the targets"
            )
        if isinstance(task, UsersTask):
            with torch.inference_mode():
                task = task.known_from(outputs_of(model.eval(), inputs), targets)
    return replace(
        dataset, train=dataset.train.of_task(task), holdout=dataset.holdout.of_task(task), test=dataset.test.of_task(task)
    )
