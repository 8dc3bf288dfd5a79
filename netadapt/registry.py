"""Things that are opened by name: networks and datasets are listed as module:function, and loaded when one is asked for."""

from __future__ import annotations

import importlib.util
from typing import Any

from device_agents.support import loading
from device_agents.support.errors import ToolError

INSTALL_HINT = "pip install 'netadapt-profiler[adapt]'"


class MissingPackage(ToolError):
    """An optional package is not installed."""


def load(address: str) -> Any:
    """The function or class at module:name. `MissingPackage` if a package that it needs is not installed."""
    try:
        return loading.load(address)
    except ModuleNotFoundError as exc:
        raise MissingPackage(f"the package {exc.name} is not installed; {INSTALL_HINT}") from exc


def require_torch() -> None:
    """`MissingPackage` where only the profiler was installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingPackage(f"netadapt needs PyTorch, and only the profiler is installed; {INSTALL_HINT}")


def require(package: str, *, extra: str) -> None:
    """`MissingPackage` if this package, which an extra of ours brings, is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingPackage(f"the package {package} is not installed; pip install 'netadapt-profiler[{extra}]'")
