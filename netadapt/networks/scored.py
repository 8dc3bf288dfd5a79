"""The output of a network that is scored, and the one that is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from device_agents.support.text import did_you_mean
from netadapt.errors import NetworkError
from netadapt.input_shapes import InputShapes, shapes_text
from netadapt.outputs import MISFITS, named_outputs, training_branches
from netadapt.training.trees import random_inputs
from netadapt.users_code import users_code

_SEED = 0


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a network by their names, which are '' for a lone tensor, for one image."""

    shapes: dict[str, tuple[int, ...]]
    """The shapes of the outputs in evaluation."""
    in_training: tuple[str, ...]
    scored: str | None
    """None if no output fits."""
    trained: str
    """The output of training that is trained: the scored one or, if it has another name there, the one with the same values."""

    @property
    def names(self) -> tuple[str | None, str | None]:
        """The scored and the trained output, as `NetworkOptions` stores them; both are None where there is a lone tensor."""
        return (None, None) if self.scored == self.trained == "" else (self.scored, self.trained)

    def lines(self) -> Iterator[str]:
        """What people should know: nothing of a network that returns a lone tensor."""
        if len(self.shapes) > 1 or self.scored:
            others = [f"{name} ({_text(shape)})" for name, shape in self.shapes.items() if name != self.scored]
            besides = f"; {', '.join(others)} {'is' if len(others) == 1 else 'are'} exported beside it" if others else ""
            besides += ", without a loss" if others and len(self.in_training) > 1 else ""
            yield f"its output {self.scored} ({_text(self.shapes[self.scored or ''])}) is scored{besides}"
        if len(self.in_training) > len(self.shapes) or self.trained != self.scored:
            found = " and ".join(output or "a lone tensor" for output in self.in_training)
            yield f"in training it returns {found}" + (f", of which {self.trained} is trained" if len(self.in_training) > 1 else "")


def outputs_of(
    model: nn.Module, input_shapes: InputShapes, name: str, asked: str | None, fits: Callable[[tuple[int, ...]], bool]
) -> Outputs:
    """The outputs of the model in evaluation, and which is scored: the one that is asked for, or the first that fits.

    `name` is that of the network, for errors. `NetworkError` if it fails, returns no tensor, has no output of the name that is
    asked for, or returns none of this shape in training.
    """
    inputs = random_inputs(input_shapes, generator=torch.Generator().manual_seed(_SEED))
    with torch.no_grad():
        with users_code(f"{name} does not accept an input of {shapes_text(input_shapes)}"):
            found = named_outputs(model.eval()(*inputs))
        if not found:
            raise NetworkError(f"{name} returns no tensor; let it return one, or several in a dictionary, tuple, list or dataclass")
        if asked is not None and asked not in found:
            known = [output for output in found if output]
            known_text = did_you_mean(asked, known) if known else "it returns a lone tensor, so leave --output out"
            raise NetworkError(f"{name} has no output {asked!r}; {known_text}")
        shapes = {output: tuple(tensor.shape) for output, tensor in found.items()}
        fitting = [output for output, tensor in found.items() if tensor.is_floating_point() and fits(shapes[output])]
        main = [output for output in fitting if "aux" not in output.lower()]  # auxiliary outputs may come first
        scored = asked if asked is not None else next(iter(main or fitting), None)
        if scored is None or scored not in fitting:
            return Outputs(shapes, tuple(found), None, "")
        try:
            with training_branches(model):
                trained = named_outputs(model(*inputs))
        except MISFITS:  # told by the training step of the dry run
            trained = found
    model.eval()
    alike = [output for output, tensor in trained.items() if tensor.shape == found[scored].shape]
    equal = [output for output in alike if _equal(trained[output], found[scored])]
    if not alike:
        raise NetworkError(
            f"{name} returns {', '.join(trained) or 'no tensor'} in training, of which none has the shape of its output"
        )
    best = [output for output in (scored,) if output in (equal or alike)] or equal or alike
    return Outputs(shapes, tuple(trained), scored, best[0])


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
