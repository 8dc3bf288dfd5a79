"""The caller's own functions that score and train networks, in place of a run's data and task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from netadapt.errors import RunError
from netadapt.users_code import UsersError, asked_of, attribute_of, short_name

Evaluator = Callable[[nn.Module], float | Mapping[str, float]]
"""The caller's function that scores a network, which is in evaluation and may be put onto a device: a number, higher is better, or
a mapping whose first number is the score and whose others are reported beside it. It must not use the test set."""
FineTune = Callable[[nn.Module, int], object]
"""The caller's function that trains a network, which is in training, in place for so many steps."""
_SCORE = "a score from evaluate(model): a finite number, higher is better, or a mapping of names to numbers, the score first"
_TRAINED = "training the network in place for so many steps, from fine_tune(model, steps)"


@dataclass(frozen=True, slots=True)
class Functions:
    """Both functions. Whatever they raise is a `UsersError`."""

    evaluate: Evaluator
    fine_tune: FineTune

    @classmethod
    def named(cls, evaluate: Evaluator | str, fine_tune: FineTune | str) -> Self:
        """The functions, those given as `file.py:function` or `module:function` imported. Errors as for `attribute_of`."""
        return cls(_function(evaluate), _function(fine_tune))

    def train(self, model: nn.Module, steps: int, seed: int) -> None:
        """Train the network in place; torch's random numbers begin with the seed. `RunError` if its layers have changed."""
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        with torch.random.fork_rng(), asked_of("fine_tune", _TRAINED):
            torch.manual_seed(seed)  # the same for every candidate, and in every process
            self.fine_tune(model.train(), steps)  # trainers such as Lightning's leave the mode of a network as they get it
        if {name: tensor.shape for name, tensor in model.state_dict().items()} != shapes:
            raise RunError(f"fine_tune has changed the layers of the network; it is asked for {_TRAINED}")
        model.cpu().eval()

    def score(self, model: nn.Module) -> tuple[float, Mapping[str, float]]:
        """The score of a network, and the other figures by name. `RunError` for no score."""
        with asked_of("evaluate", _SCORE), torch.no_grad():
            found = self.evaluate(model.eval())
        try:
            figures = (
                {name: float(value) for name, value in found.items()} if isinstance(found, Mapping) else {"score": float(found)}
            )
        except (TypeError, ValueError) as exc:
            raise RunError(f"evaluate returned {str(found)[:80]}; it is asked for {_SCORE}") from exc
        if not figures or not all(map(math.isfinite, figures.values())):
            raise RunError(f"evaluate returned {str(found)[:80]}; it is asked for {_SCORE}")
        first, *others = figures.items()
        return first[1], dict(others)


def _function(function: Callable[..., Any] | str) -> Callable[..., Any]:
    found = attribute_of(function, "function") if isinstance(function, str) else function
    if not callable(found):
        raise UsersError(f"{short_name(str(function))} is a {type(found).__name__}; name a function")
    return found
