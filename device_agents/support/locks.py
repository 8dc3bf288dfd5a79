"""Locks on files, and whether the process that a file names still lives."""

from __future__ import annotations

import os


def process_lives(pid: int) -> bool:
    """On this machine."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # there is one, of somebody else
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
