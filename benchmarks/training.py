"""What each ingredient of the long-term fine-tune is worth alone, on CIFAR-10.

    python benchmarks/training.py cifar10.npz
    python benchmarks/training.py cifar10.npz --images 50000 --epochs 30 --seeds 1 2 3

MobileNetV1 at half width and 32 pixels is trained, pruned to half of the channels of each block, fine-tuned for a short term, and
then fine-tuned to convergence with one ingredient at a time, once for each seed and always from the same weights. A line says how
many points of top-1 on the test images the ingredient is worth against the fine-tune without it: mean and standard deviation over
the seeds, whose batches are the same for every ingredient. The defaults take less than ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from device_agents.support.errors import ToolError
from netadapt.networks.options import NetworkOptions
from netadapt.pruning.prune import prune
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.trainer import score, train

INGREDIENTS: Mapping[str, Mapping[str, object]] = {
    "one-cycle instead of cosine": {"schedule": "one_cycle"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "averaged weights, 0.995": {"ema": 0.995},
    "distillation 0.5": {"distill": 0.5},
    "distillation 0.9": {"distill": 0.9},
    "bfloat16": {"precision": "bfloat16"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="CIFAR-10, as --data of netadapt run names it")
    parser.add_argument("--images", type=int, default=8000, help="training images that are used")
    parser.add_argument("--epochs", type=float, default=4, help="epochs of the long-term fine-tune; the original has twice as many")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--multiplier", type=float, default=0.5)
    asked = parser.parse_args()
    try:
        dataset = open_dataset(asked.data, resolution=32, seed=0)
    except ToolError as exc:
        sys.exit(f"error: {exc}")
    options = NetworkOptions("mobilenet_v1", asked.multiplier, 32, len(dataset.classes), small_input=True)
    chosen = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0))[: asked.images]
    part, recipe = dataset.train.subset(chosen), dataset.task.recipe
    began = time.perf_counter()

    torch.manual_seed(0)
    original = options.build()
    train(original, part, replace(recipe.from_scratch, epochs=2 * asked.epochs), seed=0)
    graph = options.traced(original).graph
    pruned = prune(original, graph, {block: max(8, width // 16 * 8) for block, width in graph.widths.items()})
    train(pruned, part, replace(recipe.short_term, steps=200), seed=0)
    print(f"original {score(original, dataset.test).accuracy:.1%}, pruned {score(pruned, dataset.test).accuracy:.1%}", flush=True)

    plain: dict[int, float] = {}
    for name, ingredient in {"plain": {}, **INGREDIENTS}.items():
        settings = replace(recipe.long_term, epochs=asked.epochs, **ingredient)  # type: ignore[arg-type]
        found, seconds = {}, time.perf_counter()
        for seed in asked.seeds:
            model = deepcopy(pruned)
            train(model, part, settings, seed=seed, teacher=original)
            found[seed] = score(model, dataset.test).accuracy
        seconds = (time.perf_counter() - seconds) / len(asked.seeds)
        plain = plain or found
        worth = [100 * (accuracy - plain[seed]) for seed, accuracy in found.items()]
        spread = f" ± {stdev(worth):.1f}" if len(worth) > 1 else ""
        print(f"{name:28} {mean(found.values()):6.1%}  worth {mean(worth):+.1f}{spread} points  {seconds:.0f} s", flush=True)
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
