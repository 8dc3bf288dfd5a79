"""Loading by name: registries list networks, datasets and others as `module:name`, which is imported when it is used."""

from __future__ import annotations

import importlib.util
from typing import Any

from device_agents.support import loading
from device_agents.support.errors import ToolError

INSTALL_HINT = "install it with pip install 'netadapt-profiler[adapt]'"


class MissingPackage(ToolError):
    """An optional package is not installed."""


def load(address: str) -> Any:
    """The function or class at the address `module:name`. `MissingPackage` if a package that it needs is not installed."""
    try:
        return loading.load(address)
    except ModuleNotFoundError as exc:
        raise MissingPackage(f"the package {exc.name} is not installed; {INSTALL_HINT}") from exc


def require_torch() -> None:
    """`MissingPackage` if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingPackage(f"netadapt needs PyTorch, which is not installed; {INSTALL_HINT}")


def require(package: str, *, extra: str) -> None:
    """`MissingPackage` if this package, which belongs to an extra of this project, is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingPackage(f"the package {package} is not installed; install it with pip install 'netadapt-profiler[{extra}]'")
