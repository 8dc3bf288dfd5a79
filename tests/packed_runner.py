"""The Python runner as the host packs it, in a file: what a test starts as a process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from device_agents.python_runner import NAME, packed


@cache
def packed_runner() -> str:
    """The path of the file, which is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="packed-runner-"))
    atexit.register(shutil.rmtree, folder)
    (folder / NAME).write_bytes(packed())
    return str(folder / NAME)
