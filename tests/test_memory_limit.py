"""What training does with memory, and what a library is refused: looked at in processes of their own, as it is for good."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from netadapt.training.memory_limit import growing_at_most

TRAIN = """
from pathlib import Path
import torch
from netadapt.training.tasks import open_task
from netadapt.training.types import ImagesInMemory
from netadapt.training.trainer import train
from netadapt.training.recipe import TrainSettings
{first}
images, labels = torch.zeros(8, 3, 8, 8, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
part = ImagesInMemory(images, labels, (0.5,) * 3, (0.5,) * 3, False, open_task("classification"))
train(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)), part, TrainSettings(0.01, steps=1), seed=1)

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

before = resident_mib()
large = torch.ones(64, 1024, 1024)
del large
print(resident_mib() - before)
"""


def mib_kept_of_256(first: str = "") -> int:
    """What the process still has of a tensor of 256 MiB that was freed after a training step."""
    code = TRAIN.format(first=first)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back at once")
def test_memory_that_training_has_freed_stays_with_the_process_for_the_next_step() -> None:
    """It is asked how much memory the process has, not how many page faults there were: these depend on the kernel's page sizes."""
    without = "import netadapt.training.trainer; netadapt.training.trainer.keep_freed_memory = lambda: False"
    assert mib_kept_of_256() >= 250
    assert mib_kept_of_256(without) <= 10


def test_a_library_gets_no_more_memory_than_it_may() -> None:
    with growing_at_most(1 << 26):
        assert len(bytearray(1 << 20)) == 1 << 20
        with pytest.raises(MemoryError):
            bytearray(1 << 31)
    assert len(bytearray(1 << 28)) == 1 << 28
