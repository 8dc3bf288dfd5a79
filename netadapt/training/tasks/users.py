"""The user's own task, given by name: a class, or a file, with two functions.

`loss(outputs, targets)` returns the mean loss of a batch, a scalar that can be differentiated. `evaluate(outputs, targets)` returns
scores of a batch: one for each example, (n,), or one for the whole batch; or a mapping of names to these. The first score selects
winners, so higher must be better; its range is free. `lower_is_better`, a tuple of names, says what the others are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from netadapt.training.recipe import Recipe
from netadapt.training.tasks.classification import Classification
from netadapt.training.types import Metric, Part, Task
from netadapt.users_code import UsersError, asked_of, attribute_of, made_here, module_of, short_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FUNCTIONS = ("loss", "evaluate")
_LOSS = "the mean loss of a batch, a tensor of one number that depends on the outputs, from loss(outputs, targets)"
_SCORES = (
    "scores from evaluate(outputs, targets): a number for the batch, a tensor of one for each example, or a mapping of names to "
    "these, whose first selects winners"
)
_SCORE = Metric("score", "score", decimals=4)


@dataclass(frozen=True, slots=True)
class UsersTask:
    """A task whose loss and scores are the user's functions, which are imported when they are called."""

    name: str
    """`file.py:Class`, `module:Class`, or a file or module with the functions; as `absolute_name` writes it."""
    scores: tuple[Metric, ...] = (_SCORE,)
    """What `evaluate` returns, the score that selects winners first. It is known once the function was called."""
    stored_for: Task | None = None
    """The task that a built-in dataset stores its targets for; None for the user's own data."""

    @property
    def accuracy(self) -> Metric:
        return self.scores[0]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return self.scores[1:]

    @property
    def recipe(self) -> Recipe:
        found = getattr(_owner(self.name), "recipe", None)
        return found if isinstance(found, Recipe) else Classification().recipe

    def accepts_targets(self, images: Tensor, targets: Tensor) -> bool:
        return self.stored_for is None or self.stored_for.accepts_targets(images, targets)

    def decode_targets(self, targets: Tensor) -> Tensor:
        return targets if self.stored_for is None else self.stored_for.decode_targets(targets)

    def accepts_outputs(self, outputs: tuple[int, ...], images: tuple[int, ...], classes: int) -> bool:
        return True  # its functions are called on a batch before training starts

    def augment(self, images: Tensor, targets: Tensor, part: Part, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return (images, targets) if self.stored_for is None else self.stored_for.augment(images, targets, part, generator)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The user's loss. `UsersError` if the function fails, or returns something else than a scalar of the outputs."""
        import torch

        function = _function(self.name, "loss")
        with asked_of(self._short("loss"), _LOSS):
            found = function(outputs, targets)
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            raise self._wrong("loss", function, found, _LOSS)
        if torch.is_grad_enabled() and not found.requires_grad:
            raise UsersError(
                f"the tensor that {self._short('loss')} returned does not depend on the outputs, so nothing can be learnt from it; "
                f"it is asked for {_LOSS}, without detach() or item(){made_here(function)}"
            )
        return found.reshape(())

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """The user's scores of each example. `UsersError` if the function fails, or returns something else than it is asked for."""
        found = self._evaluated(outputs, targets)
        if list(found) != [metric.name for metric in self.scores]:
            names = ", ".join(metric.name for metric in self.scores)
            raise UsersError(f"{self._short('evaluate')} returned {', '.join(found)}; it must always return {names}")
        return found

    def known_from(self, outputs: Tensor, targets: Tensor) -> Self:
        """The task with the names of the scores that the user's function returns for this batch."""
        lower = getattr(_owner(self.name), "lower_is_better", ())
        names = list(self._evaluated(outputs, targets))
        if names and names[0] in lower:
            raise UsersError(
                f"the first score of {self._short('evaluate')}, {names[0]}, selects winners, so higher must be better; return its "
                "negative, or another one first"
            )
        return replace(self, scores=tuple(Metric(name, name, decimals=4, lower_is_better=name in lower) for name in names))

    def _evaluated(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        import torch

        from netadapt.training.trees import tensors_in

        function = _function(self.name, "evaluate")
        with asked_of(self._short("evaluate"), _SCORES):
            returned = function(outputs, targets)
        count = next((len(each) for each in tensors_in(targets) if each.ndim), 1)
        found = {}
        for name, value in (returned if isinstance(returned, Mapping) else {_SCORE.name: returned}).items():
            is_number = isinstance(value, int | float) and not isinstance(value, complex)
            if not isinstance(name, str) or not (isinstance(value, torch.Tensor) or is_number):
                raise self._wrong("evaluate", function, value, _SCORES)
            values = torch.as_tensor(value).detach()
            if values.numel() == 1 and values.shape != (count,):
                values = values.reshape(()).expand(count)
            if values.ndim != 1 or values.is_complex():
                raise self._wrong("evaluate", function, value, _SCORES)
            found[name] = values.double() if values.is_floating_point() else values
        if not found:
            raise self._wrong("evaluate", function, returned, _SCORES)
        if len({len(values) for values in found.values()}) > 1:
            raise UsersError(
                f"{self._short('evaluate')} returned scores of several lengths; it is asked for {_SCORES}{made_here(function)}"
            )
        for name, values in found.items():
            if values.is_floating_point() and not bool(values.isfinite().all()):
                raise UsersError(
                    f"{self._short('evaluate')} returned a {name} that is not a finite number; it is asked for {_SCORES}; if the "
                    f"network's outputs are not finite either, lower the learning rate{made_here(function)}"
                )
        return found

    def _short(self, function: str) -> str:
        """The function's name for messages."""
        return short_name(f"{self.name}.{function}" if ":" in self.name else f"{self.name}:{function}")

    def _wrong(self, name: str, function: Callable[..., Any], found: object, asked: str) -> UsersError:
        shape = getattr(found, "shape", None)
        kind = "nothing (None)" if found is None else f"a {type(found).__name__}"
        what = kind if shape is None else f"{kind} of shape {tuple(shape)}"
        return UsersError(f"{self._short(name)} returned {what}; it is asked for {asked}{made_here(function)}")


def has_functions(name: str) -> bool:
    """True if this file or module has the functions of a task. `UsersError` if it has only one of them."""
    there = [function for function in FUNCTIONS if callable(getattr(module_of(name), function, None))]
    if len(there) == 1:
        missing = next(function for function in FUNCTIONS if function not in there)
        raise UsersError(
            f"{short_name(f'{name}:{there[0]}')} is there but {missing} is not; a task needs both, or name one with --task"
        )
    return len(there) == len(FUNCTIONS)


def open_users_task(name: str) -> UsersTask:
    """The task of this name. `UsersError` if it lacks a function or its class cannot be made."""
    for function in FUNCTIONS:
        _function(name, function)
    return UsersTask(name)


@cache
def _owner(name: str) -> object:
    """What has the functions: an object of the class, made once in a process, or the module."""
    if ":" not in name:
        return module_of(name)
    found = attribute_of(name, "class")
    if not inspect.isclass(found):
        return found
    with asked_of(short_name(name), "a task: an object with loss and evaluate, made without arguments"):
        made: object = found()
    return made


def _function(name: str, function: str) -> Callable[..., Any]:
    found = getattr(_owner(name), function, None)
    if not callable(found):
        raise UsersError(
            f"{short_name(name) if ':' in name else name} has no function {function!r}; a task has loss(outputs, targets) and "
            "evaluate(outputs, targets)"
        )
    users: Callable[..., Any] = found
    return users
