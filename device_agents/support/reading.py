"""Files of the user's, any of which may be gone or locked by the time that it is read."""

from __future__ import annotations

from pathlib import Path

from device_agents.support.errors import ToolError


def read_bytes(path: Path, error: type[ToolError]) -> bytes:
    """What the file holds. `error` if it cannot be read, as when it has been deleted meanwhile."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise error(f"{path} cannot be read: {exc.strerror or exc}") from exc
