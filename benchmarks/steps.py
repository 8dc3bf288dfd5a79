"""Short-term training steps per second against a bare PyTorch loop, on the same network, batches and threads.

    python benchmarks/steps.py
    python benchmarks/steps.py --network mobilenet_v2 --resolution 64 --threads 2

The bare loop is forward, loss, backward and update on images that are normalised floats already, in the layout that is faster. Ours
picks, normalises and shifts the images of each batch as well, and checks every loss. Both take turns, so that a machine that
becomes slower slows both; the median of the ratios is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from netadapt.networks.options import NetworkOptions
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.memory_limit import keep_freed_memory
from netadapt.training.recipe import TrainSettings
from netadapt.training.trainer import train
from netadapt.training.types import Part


def bare(model: nn.Module, part: Part, settings: TrainSettings) -> float:
    """Seconds of the bare loop."""
    batches = [part.batch(torch.arange(start, start + settings.batch_size)) for start in (0, settings.batch_size)]
    ready = [(images.contiguous(memory_format=torch.channels_last), labels) for images, labels in batches]  # type: ignore[union-attr]
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate, momentum=0.9, nesterov=True)
    began = time.perf_counter()
    for step in range(settings.steps or 0):
        images, labels = ready[step % len(ready)]
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - began


def ours(model: nn.Module, part: Part, settings: TrainSettings) -> float:
    """Seconds of a short-term fine-tune."""
    began = time.perf_counter()
    train(model, part, settings, seed=1, device="cpu")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="mobilenet_v1")
    parser.add_argument("--multiplier", type=float, default=0.5)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()  # which both loops gain from
    part = open_dataset("digits", resolution=asked.resolution, seed=1).train
    network = NetworkOptions(
        asked.network, asked.multiplier, asked.resolution, 10, small_input=asked.network == "mobilenet_v1"
    ).build()
    settings = replace(part.task.recipe.short_term, steps=asked.steps, batch_size=asked.batch_size)
    ratios = []
    for number in range(-1, asked.rounds):
        seconds = [loop(deepcopy(network), part, settings) for loop in (bare, ours)]
        if number >= 0:  # the first round warms up
            ratios.append(seconds[0] / seconds[1])
            print(
                f"bare {asked.steps / seconds[0]:6.2f}, ours {asked.steps / seconds[1]:6.2f} steps/s: {ratios[-1]:.3f}", flush=True
            )
    print(f"{median(ratios):.3f} of the bare loop's steps per second (goal: 0.95)")


if __name__ == "__main__":
    main()
