"""Images per second of a streamed folder of JPEGs against a bare DataLoader on the same files, and the memory of the process.

    python benchmarks/streaming.py --images 50000 --folder /tmp/jpegs

Both decode with Pillow in as many workers, scale to the same resolution, and hand over batches of bytes, which are then normalised.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from netadapt.training.datasets import images as stored_images
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.types import normalised

CLASSES = 10
BATCH = 64


def make(folder: Path, count: int, side: int) -> None:
    """Write the folder, with a subfolder per class; images that are there are kept."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % CLASSES}" / f"{number:06d}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


class Bare(Dataset[Tensor]):
    """The files as anybody would read them."""

    def __init__(self, files: list[Path], resolution: int) -> None:
        self.files, self.resolution = files, resolution

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            pixels = np.asarray(image.convert("RGB").resize((self.resolution, self.resolution), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def rate(batches: Callable[[], Iterable[Tensor]], count: int) -> float:
    """Images per second of one pass."""
    began, seen = time.perf_counter(), 0
    for batch in batches():
        seen += len(batch)
        if seen >= count:
            break
    return seen / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--side", type=int, default=96, help="side of the JPEGs in pixels")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/streaming-jpegs"))
    options = parser.parse_args()
    make(options.folder, options.images, options.side)
    stored_images.SMALL_BYTES = 0  # so that a small folder is streamed too
    before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.perf_counter()
    found = open_dataset(f"folder:{options.folder}", resolution=options.resolution, seed=1, workers=options.workers)
    print(f"opened {options.images} images, each read once, in {time.perf_counter() - began:.1f} s")
    part = found.train
    files = sorted(options.folder.rglob("*.jpg"))[: len(part)]
    mean, std = part.mean, part.std

    def ours() -> Iterable[Tensor]:
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
        for inputs, _ in part.batches(torch.split(order, BATCH), seed=0):
            assert isinstance(inputs, Tensor)
            yield inputs

    loader = DataLoader(Bare(files, options.resolution), BATCH, shuffle=True, num_workers=options.workers, persistent_workers=True)
    rates = []
    for number in range(options.passes):  # in turns, as other programs may load the machine
        bare = rate(lambda: (normalised(batch, mean, std) for batch in loader), len(part))
        rates.append((rate(ours, len(part)), bare))
        print(f"pass {number + 1}: {rates[-1][0]:.0f} images/s, {bare:.0f} of the bare loader, {rates[-1][0] / bare:.2f} of it")
    grown_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before_bytes
    workers = [Path(f"/proc/{child.pid}/statm") for child in multiprocessing.active_children()]
    own_bytes = [int(file.read_text().split()[1]) * resource.getpagesize() for file in workers if file.exists()]
    print(f"median share: {sorted(mine / bare for mine, bare in rates)[len(rates) // 2]:.2f}")
    print(f"memory of the process beyond its start: {grown_bytes / 2**20:.0f} MiB")
    print(f"memory of the largest worker, with the pages that it shares: {max(own_bytes, default=0) / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
