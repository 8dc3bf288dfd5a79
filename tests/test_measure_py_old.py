"""The Python runner on the oldest interpreter it promises to work with, or the oldest that is here: a board's may be that old."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packed_runner import packed_runner
from runner_conformance import RunnerConformance

pytestmark = pytest.mark.slow  # all of RunnerConformance again
OLD = ("3.8", "3.9", "3.10")


@pytest.fixture(scope="module")
def old_python() -> str:
    for python in candidates():
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    pytest.skip(
        f"there is no Python {' or '.join(OLD)} here; install one (apt, pyenv, uv) to try the runner on a board's interpreter"
    )


class TestMeasurePyOnAnOldInterpreter(RunnerConformance):
    @pytest.fixture
    def command(self, old_python: str) -> list[str]:
        return [old_python, packed_runner()]


def candidates() -> Iterator[str]:
    """On PATH, and where pyenv keeps those that are not the chosen ones."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in OLD:
        yield from filter(None, [shutil.which(f"python{version}")])
        yield from map(str, sorted(kept.glob(f"{version}.*/bin/python")))
