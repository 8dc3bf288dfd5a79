"""Things that are opened by name: networks and datasets are listed as module:function, and loaded when one is asked for."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

from device_agents.support.errors import ToolError

INSTALL_HINT = "pip install 'netadapt-profiler[adapt]'"


class MissingPackage(ToolError):
    """An optional package is not installed."""


def load(address: str) -> Callable[..., Any]:
    """The function at module:function. `MissingPackage` if a package that it needs is not installed."""
    module, function = address.split(":")
    try:
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as exc:
        raise MissingPackage(f"the package {exc.name} is not installed; {INSTALL_HINT}") from exc
    return loaded


def require_torch() -> None:
    """`MissingPackage` where only the profiler was installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingPackage(f"netadapt needs PyTorch, and only the profiler is installed; {INSTALL_HINT}")


def require(package: str, *, extra: str) -> None:
    """`MissingPackage` if this package, which an extra of ours brings, is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingPackage(f"the package {package} is not installed; pip install 'netadapt-profiler[{extra}]'")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one or, failing that, all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}" if names else "there are none"
