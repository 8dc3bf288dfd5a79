"""The size and the blocks of a network, as `netadapt networks` lists them.

Under torch's meta device, where tensors have shapes and no values, both take no time worth mentioning.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from netadapt.input_shapes import InputShapes
from netadapt.pruning.couplings import WEIGHTED, Couplings
from netadapt.training.trees import zeros_of


def count_macs(model: nn.Module, input_shapes: InputShapes) -> int:
    """The multiply-accumulate operations (MACs) of all convolutions and linear layers for inputs of these shapes."""
    macs: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # a transposed convolution applies its kernels, (in, out, k, k), to every input value; all others, (out, in, k, k),
        # compute every output value with them
        pixels = inputs[0] if isinstance(module, _ConvTransposeNd) else output
        macs.append(pixels.numel() * module.get_parameter("weight")[0].numel())

    def count_attention(module: nn.MultiheadAttention, inputs: tuple[Tensor, ...], named: dict[str, Any], _output: object) -> None:
        # its layers are no modules that are called: (channels, channels) for each token that is asked for, twice, and for each key
        # and value
        given = dict(zip(("query", "key", "value"), inputs, strict=False)) | named
        macs.append(sum(given[name].numel() * module.embed_dim for name in ("query", "query", "key", "value")))

    hooks: list[Any] = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, WEIGHTED)]
    hooks += [
        module.register_forward_hook(count_attention, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
    ]
    model(*zeros_of(input_shapes))
    for hook in hooks:
        hook.remove()
    return sum(macs)


def count_blocks(model: nn.Module, input_shapes: InputShapes) -> int:
    """The number of coupling groups that can be pruned, if a runtime can resize all of the network's layers."""
    return len(Couplings(model, input_shapes).blocks())
