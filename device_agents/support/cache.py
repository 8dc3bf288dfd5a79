"""The user's cache folder, where locks of devices and programs that were built are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Our folder below XDG_CACHE_HOME; below ~/.cache where that is unset, or relative, which its specification says to ignore."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "netadapt-profiler"
