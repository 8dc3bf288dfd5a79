"""What `netadapt networks` tells of a network, counted on torch's meta device, where tensors have shapes and no values."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn, zeros

from netadapt.input_shape import InputShape
from netadapt.pruning.couplings import WEIGHTED, Couplings


def count_macs(model: nn.Module, input_shape: InputShape) -> int:
    """Multiply-accumulates of convolutions and linear layers for one inference."""
    counted: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # a transposed convolution spreads every input over its kernels; (in, out, k, k), all others are (out, in, k, k)
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        counted.append(pixels.numel() * module.get_parameter("weight")[0].numel())

    hooks: list[Any] = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, WEIGHTED)]
    model(zeros(input_shape))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def count_blocks(model: nn.Module, input_shape: InputShape) -> int:
    """Coupling groups that can be pruned; nothing that a runtime cannot resize must be among the network's layers."""
    return len(Couplings(model, input_shape).blocks())
