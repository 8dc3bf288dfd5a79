"""What Torch-Pruning's own pruner narrows of one network, for families.py, which replaces some of its functions as it imports ours.

    python benchmarks/torch_pruning_alone.py "a family of tests/all_families.py" OUTPUT...

The outputs are the layers that keep their widths. It prints the channels of the layers that were narrowed to a half, and whether
the network runs afterwards, or the kind of the error.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Collection
from copy import deepcopy
from pathlib import Path

import torch
import torch_pruning
from torch import nn
from torch.nn.modules.conv import _ConvNd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from all_families import EVERY, shape_of

WEIGHTED = (_ConvNd, nn.Linear)


def channels(model: nn.Module, names: Collection[str]) -> int:
    """The output channels of these layers with weights, without depthwise ones."""
    total = 0
    for name, layer in model.named_modules():
        if (
            name in names
            and isinstance(layer, WEIGHTED)
            and not 1 < getattr(layer, "groups", 1) == getattr(layer, "in_channels", 0)
        ):
            total += layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return total


def narrowed_channels(model: nn.Module, shape: tuple[int, ...], outputs: Collection[str]) -> tuple[int, str]:
    """The channels of the layers that Torch-Pruning narrows to a half, and whether the network runs afterwards."""
    narrow, images = deepcopy(model), torch.randn(shape)
    names = {module: name for name, module in narrow.named_modules()}
    try:
        pruner = torch_pruning.pruner.MetaPruner(
            narrow, images, importance=torch_pruning.importance.RandomImportance(), pruning_ratio=0.5,
            ignored_layers=[narrow.get_submodule(name) for name in outputs],
        )  # fmt: skip
        pruner.step()
        narrowed = {
            name for layer, name in names.items()
            if isinstance(layer, WEIGHTED) and channels(narrow, [name]) < channels(model, [name])
        }  # fmt: skip
    except Exception as exc:  # whatever a network of another kind makes Torch-Pruning raise is its answer here
        return 0, type(exc).__name__[:11]
    try:
        narrow(images)
    except (RuntimeError, ValueError):
        return channels(model, narrowed), "fails"
    return channels(model, narrowed), "yes"


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    print(json.dumps(narrowed_channels(EVERY[sys.argv[1]]().eval(), shape_of(sys.argv[1]), sys.argv[2:])))
