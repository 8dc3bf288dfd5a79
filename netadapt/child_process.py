"""The command that runs a module of ours in a process of its own, which finds the same modules as this one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_RUN = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs this module with these arguments.

    The path is given to a Python that has started already. `$PYTHONPATH` would be searched before that, and Python would start
    with the `types.py` of a user's folder.
    """
    path = [entry or str(Path.cwd()) for entry in sys.path]
    return [sys.executable, "-P", "-c", _RUN, json.dumps(path), module, *arguments]
