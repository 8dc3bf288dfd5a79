"""What training does with memory, and what a library is refused: looked at in processes of their own, as it is for good."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from netadapt.training.memory_limit import growing_at_most

FAULTS = """
import resource, torch
from netadapt.training.tasks import open_task
from netadapt.training.types import Part
from netadapt.training.trainer import train
from netadapt.training.recipe import TrainSettings
{first}
images, labels = torch.zeros(64, 3, 32, 32, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64)
part = Part(images, labels, (0.5,) * 3, (0.5,) * 3, False, open_task("classification"))
model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

train(model, part, TrainSettings(0.01, steps=5), seed=1)
before = faults()
train(model, part, TrainSettings(0.01, steps=20), seed=1)
print((faults() - before) // 20)
"""


def page_faults_a_step(first: str = "") -> int:
    code = FAULTS.format(first=first)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back at once")
def test_a_training_step_fetches_no_memory_anew_that_the_step_before_had() -> None:
    without = page_faults_a_step("import netadapt.training.trainer; netadapt.training.trainer.keep_freed_memory = lambda: False")
    assert page_faults_a_step() < without / 10


def test_a_library_gets_no_more_memory_than_it_may() -> None:
    with growing_at_most(1 << 26):
        assert len(bytearray(1 << 20)) == 1 << 20
        with pytest.raises(MemoryError):
            bytearray(1 << 31)
    assert len(bytearray(1 << 28)) == 1 << 28
