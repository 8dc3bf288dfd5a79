"""The tensors that a network returns: alone, or in dictionaries, tuples, lists, named tuples and dataclasses, also nested.

A network may return other tensors in training than in evaluation, and run other layers for them, such as auxiliary heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

# the errors of torch for a network whose layers do not fit together, and those of code that only training runs
MISFITS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ZeroDivisionError)
_SEED = 0
_OF_TORCH = vars(nn.Module()).keys()


def named_outputs(outputs: object) -> dict[str, Tensor]:
    """The tensors by their names: '' for a lone tensor, else keys, fields and places, such as `logits`, `1` or `heads.0`.

    A tensor that is returned twice has its first name only, and everything that is no tensor is left out.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in _leaves("", outputs):
        if all(tensor is not other for other in found.values()):
            found[name] = tensor
    return found


def as_list(outputs: object) -> list[Tensor]:
    """The tensors that a model returns, in their order."""
    return list(named_outputs(outputs).values())


def _leaves(name: str, outputs: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(outputs, Tensor):
        yield name, outputs
        return
    parts: list[tuple[object, object]] = []
    if isinstance(outputs, Mapping):
        parts = list(outputs.items())
    elif isinstance(outputs, tuple | list):
        parts = list(zip(getattr(outputs, "_fields", range(len(outputs))), outputs, strict=True))
    elif is_dataclass(outputs) and not isinstance(outputs, type):
        parts = [(field.name, getattr(outputs, field.name)) for field in fields(outputs)]
    for key, part in parts:
        yield from _leaves(f"{name}.{key}" if name else str(key), part)


@contextmanager
def flat_outputs(model: nn.Module) -> Iterator[None]:
    """The model returns a lone tensor or a tuple of tensors inside the with statement, which every exporter can write."""

    def flatten(_module: nn.Module, _inputs: Any, outputs: object) -> Tensor | tuple[Tensor, ...]:
        tensors = as_list(outputs)
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    hook = model.register_forward_hook(flatten)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def training_branches(model: nn.Module) -> Iterator[None]:
    """The user's code sees training, while dropout and normalisation work as in evaluation: nothing is random or changed by it."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = not isinstance(module, _NormBase | _DropoutNd | nn.RReLU | nn.MultiheadAttention)
    try:
        with torch.random.fork_rng(devices=[]), _WithoutDropout():
            torch.manual_seed(_SEED)
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def outputs_of_all_layers(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """The outputs of evaluation and, if training runs layers that evaluation does not, those of training.

    Where training runs all layers of evaluation and more, it alone is run.
    """
    with torch.no_grad():
        evaluated, trained = _called(model.eval(), inputs), set[nn.Module]()
        try:
            with training_branches(model):
                trained = _called(model, inputs)
        except MISFITS:  # told by the training step of the dry run, and no layers of it can be known
            trained = evaluated
    outputs = [] if evaluated < trained else _with_unused(model, inputs)
    if trained - evaluated:
        with training_branches(model):
            outputs += _with_unused(model, inputs)
    return outputs


def _with_unused(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The outputs of the model and, where gradients are recorded, those of layers that it runs for nothing.

    Such layers read features too, and fail where these are narrowed without them.
    """
    made: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, _ConvNd | nn.Linear)]
    hooks = [layer.register_forward_hook(lambda _module, _inputs, output: made.append(output)) for layer in layers]
    try:
        outputs = as_list(model(*inputs))
    finally:
        for hook in hooks:
            hook.remove()
    reached: set[Any] = set()
    for output in (*outputs, *reversed(made)):
        if output.grad_fn is None or output.grad_fn in reached:
            continue
        if all(output is not known for known in outputs):
            outputs.append(output)
        left: list[Any] = [output.grad_fn]
        while left:
            step = left.pop()
            if step is not None and step not in reached:
                reached.add(step)
                left += [before for before, _ in step.next_functions]
    return outputs


def forget_graph(model: nn.Module) -> None:
    """Cut the tensors that modules have kept as attributes, such as features of the last run, from the graph that made them.

    A model cannot be copied with it.
    """

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach() if value.grad_fn is not None else value
        if type(value) in (list, tuple):
            return type(value)(map(cut, value))
        return {key: cut(item) for key, item in value.items()} if type(value) is dict else value

    for module in model.modules():
        own = vars(module)
        for name in own.keys() - _OF_TORCH:
            own[name] = cut(own[name])


def _called(model: nn.Module, inputs: tuple[Tensor, ...]) -> set[nn.Module]:
    """The modules with weights of their own that the model calls."""
    found: set[nn.Module] = set()
    hooks = [
        module.register_forward_pre_hook(lambda module, _inputs: found.add(module))
        for module in model.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class _WithoutDropout(TorchFunctionMode):
    """Functional dropout, which the user's code calls in training, passes its input on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "").endswith(("dropout", "dropout1d", "dropout2d", "dropout3d")):
            return args[0] if args else kwargs["input"]
        return func(*args, **(kwargs or {}))
