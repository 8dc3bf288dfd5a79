"""A user's module made a plain network: unwrapped, in float32, with the weights that its layers compute with.

Wrappers that only run a network in another way are taken off, and weights that are computed from others at every call, such as
those of weight normalisation, are computed once: pruning cuts weights, and exported files have them in that form anyway.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from netadapt.errors import NetworkError
from netadapt.input_shapes import InputShapes, WholeNumbers, shapes_text
from netadapt.outputs import as_list, forget_graph
from netadapt.training.trees import zeros_of

_WRAPPERS: tuple[tuple[type[nn.Module], str, str], ...] = (
    (OptimizedModule, "_orig_mod", "torch.compile"),
    (nn.DataParallel, "module", "DataParallel"),
    (nn.parallel.DistributedDataParallel, "module", "DistributedDataParallel"),
    (torch.optim.swa_utils.AveragedModel, "module", "AveragedModel"),
)
"""The class of each wrapper, the attribute that holds what it wraps, and its name for people."""
_NORMS = {"WeightNorm": "weight_norm", "SpectralNorm": "spectral_norm"}


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """A network that can be pruned, trained and exported, and what was done to make it that."""

    model: nn.Module
    remarks: tuple[str, ...]
    """Whole sentences."""


def plain_network(model: nn.Module, input_shapes: InputShapes, name: str) -> Plain:
    """The network, changed in place where it has to be. It is run for inputs of these shapes, in evaluation.

    `NetworkError` if it is a TorchScript program, its weights have no values, it needs further inputs, or it cannot be
    trained because it records no gradients. Whatever the network itself raises passes through.
    """
    remarks = []
    model, wrappers = _unwrapped(model)
    if wrappers:
        remarks.append(f"{name} is taken out of {' and '.join(wrappers)}, which training and the exported files do without")
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"{path} of {name}" if path else name
            raise NetworkError(
                f"{where} is a TorchScript program, whose layers cannot be cut; return the module that it was made of, before "
                "torch.jit.script or torch.jit.trace"
            )
        if isinstance(module, torch.fx.GraphModule) and "train" in vars(module):  # replaced by torch.export
            raise NetworkError(
                f"{f'{path} of {name}' if path else name} is a program of torch.export, which is fixed to one batch and cannot be "
                "trained; return the module that it was made of"
            )
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.device.type == "meta" for tensor in tensors):
        raise NetworkError(f"the weights of {name} are on the device meta and have no values; build it without that device")
    required = [
        parameter.name
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > len(input_shapes):
        raise NetworkError(
            f"{name} takes {len(required)} inputs, {' and '.join(required)}; give the shape of each with --input, such as "
            f"--input {','.join(['1x3x224x224'] * len(required))}, or give the others defaults"
        )
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.is_floating_point()} - {"float32"}
    if kinds:
        remarks.append(f"the weights of {name} in {' and '.join(sorted(kinds))} are converted to float32")
    _returns_itself(type(model))
    model.cpu().float().eval()
    inputs = zeros_of(input_shapes)
    with torch.no_grad(), _integers_told(name, input_shapes):
        if any(is_lazy(tensor) for tensor in tensors):
            model(*inputs)
            remarks.append(f"the lazy layers of {name} have the shapes that an input of {shapes_text(input_shapes)} gives them")
    with torch.enable_grad():  # without it, torch makes constants of weights that were computed from two others
        folded = Counter(_folded(model))
    for kind, count in folded.items():
        remarks.append(f"{kind} of {count} {'tensors' if count > 1 else 'tensor'} in {name} is folded into the weights")
    with torch.no_grad(), _integers_told(name, input_shapes):
        own = {key: tensor.shape for key, tensor in model.named_buffers()}
        for size in (1, 2):
            batch = zeros_of(input_shapes, size)  # training needs batches of any size
            model(*batch)
            if any(each._version for each in batch):
                raise NetworkError(
                    f"{name} changes its input in place, which is still needed then; let it make a new tensor, such as "
                    "x = x.sub(mean) in place of x.sub_(mean)"
                )
        for path, module in model.named_modules():
            for key, tensor in module.named_buffers(recurse=False):
                if own.get(f"{path}.{key}" if path else key) != tensor.shape:
                    # made anew from the size of the input, and no part of what has been learnt
                    module._non_persistent_buffers_set.add(key)
    with torch.enable_grad():
        outputs = as_list(model(*inputs))
    learns = any(weight.requires_grad for weight in model.parameters())
    if outputs and learns and not any(output.requires_grad for output in outputs):
        raise NetworkError(f"{name} computes its outputs without gradients, so it cannot be trained; take torch.no_grad out of it")
    forget_graph(model)
    return Plain(model, tuple(remarks))


_RETURN_THE_NETWORK: set[object] = {nn.Module.train}
"""The functions `train` that are known to; a class is met again for each network that is built of it."""


def _returns_itself(kind: type[nn.Module]) -> None:
    """Have `train` of this class return the network, as that of torch does, where a user's own returns nothing.

    A network with a part that stays frozen often has one. What training libraries chain behind it would fail.
    """
    theirs = kind.train
    if theirs in _RETURN_THE_NETWORK:
        return

    @functools.wraps(theirs)
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        theirs(self, mode)
        return self

    kind.train = train  # type: ignore[method-assign, assignment]
    _RETURN_THE_NETWORK.add(train)


@contextmanager
def _integers_told(name: str, input_shapes: InputShapes) -> Iterator[None]:
    """Say of a network that looks rows up by its inputs what it would need, instead of what torch says."""
    try:
        yield
    except RuntimeError as exc:
        if "scalar types: Long" not in str(exc):
            raise
        raise NetworkError(
            f"{name} looks rows up by whole numbers, such as token ids; say which input has them with --input, such as "
            f"--input {shapes_text(tuple(WholeNumbers(shape) for shape in input_shapes))}"
        ) from exc


def _unwrapped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The network without wrappers, be they around it or around a part of it, and the names of those that it had."""
    found: dict[str, None] = {}

    def inner(module: nn.Module) -> nn.Module:
        for kind, attribute, name in _WRAPPERS:
            if isinstance(module, kind):
                found[name] = None
                return inner(module.get_submodule(attribute))
        return module

    model = inner(model)
    for module in model.modules():
        for name, child in module.named_children():
            module._modules[name] = inner(child)
        if module._compiled_call_impl is not None:  # of module.compile()
            module._compiled_call_impl = None
            found["torch.compile"] = None
    return model, list(found)


def _folded(model: nn.Module) -> Iterator[str]:
    """Replace computed weights by their values, in place. Yields the name of what computed each of them."""
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
                yield "weight_norm"
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
                yield "spectral_norm"
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
                yield "the mask"
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for tensor, chain in list(module.parametrizations.items()):
                assert isinstance(chain, nn.Module)
                kinds = [type(step).__name__.removeprefix("_") for step in chain.children()]
                names = [_NORMS.get(kind, kind) for kind in kinds]
                parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
                yield " and ".join(names)
