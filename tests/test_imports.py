"""The shape of the house: imports run one way, and torch stays in netadapt."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("device_agents", "profiler", "netadapt")
MODULES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))


FLOORS = (
    "device_agents.support", "device_agents", "device_agents.adb", "device_agents.ssh", "device_agents.discovery",
    "profiler", "profiler.layers", "profiler.formats", "profiler.protocol", "profiler.devices", "profiler.runners",
    "profiler.measure", "profiler.latency", "profiler.modelled", "profiler.tables", "profiler.exchange", "profiler.plotting",
    "profiler.schedule", "profiler.interface", "profiler.serve", "profiler.cli",
    "netadapt", "netadapt.resources", "netadapt.search", "netadapt.training", "netadapt.export", "netadapt.pruning",
    "netadapt.networks", "netadapt.settings", "netadapt.runs", "netadapt.weight_pruning", "netadapt.executors",
    "netadapt.supernet", "netadapt.adaptation", "netadapt.interface", "netadapt.baselines",
    "netadapt.reporting", "netadapt.actions", "netadapt.demo", "netadapt.cli",
)  # fmt: skip
"""Folders from the lowest up: a module imports from its own folder and from those before it. A folder within one of these is part
of it."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def floor_of(module: str) -> int:
    """The place in FLOORS of the innermost listed folder that holds the module."""
    return max((len(name), place) for place, name in enumerate(FLOORS) if f"{module}.".startswith(f"{name}."))[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    own = ORDER.index(path.relative_to(ROOT).parts[0])
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & set(ORDER[own + 1 :])


@pytest.mark.parametrize(
    "path", [path for path in MODULES if "netadapt" not in path.relative_to(ROOT).parts], ids=lambda path: path.name
)
def test_torch_is_used_in_netadapt_only(path: Path) -> None:
    assert "torch" not in {name.split(".")[0] for name in imports(path)}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FRONT_DOORS = [ROOT / package / "__init__.py" for package in ORDER]
"""They hand out the Python interface, which is above everything else in its package, when it is first used."""
HOST = [path for path in MODULES if "on_device" not in path.parts and path not in FRONT_DOORS]


@pytest.mark.parametrize("path", HOST, ids=module_of)
def test_folders_only_look_down(path: Path) -> None:
    """Imports within functions count too: one of those would hide a cycle."""
    own = floor_of(module_of(path))
    ours = [name for name in imports(path) if name.split(".")[0] in ORDER]
    assert not [name for name in ours if floor_of(name) > own]


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {module_of(path): path for path in MODULES}
    left = {name: {found for found in imports(path) if found in known and found != name} for name, path in known.items()}
    while free := {name for name, found in left.items() if not found & left.keys()}:
        left = {name: found for name, found in left.items() if name not in free}
    assert not left


@pytest.mark.parametrize("path", HOST, ids=module_of)
def test_nobody_imports_what_runs_on_the_device(path: Path) -> None:
    assert not [name for name in imports(path) if "on_device" in name]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_hides_one_of_the_standard_library(path: Path) -> None:
    top_level = path.parent.parent == ROOT
    assert not (top_level and path.stem in sys.stdlib_module_names)


def test_no_python_lies_under_tables() -> None:
    assert not list((ROOT / "tables").rglob("*.py"))


def test_the_runner_needs_nothing_but_the_standard_library_and_a_runtime() -> None:
    allowed = {"numpy", "onnxruntime", "device_agents.on_device.runner"}
    names = {name for path in (ROOT / "device_agents" / "on_device" / "runner").rglob("*.py") for name in imports(path)}
    assert not [name for name in names if name.split(".")[0] not in sys.stdlib_module_names and not is_within(name, allowed)]


def is_within(module: str, packages: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
