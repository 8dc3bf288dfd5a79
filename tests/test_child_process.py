"""Modules of the user's own, beside modules of Python, in this process and in those that it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netadapt.child_process import python_command
from netadapt.users_code import attribute_of

SOURCE = """
import graphlib, sys, types
from beside import number

if __name__ == "__main__":
    print(number, types.SimpleNamespace, graphlib.TopologicalSorter, sys.argv[1:])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as users have them: some of its files are named as modules of Python."""
    for name in ("graphlib", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("types", "graphlib", "enum"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is the user\\'s')\n")
    (tmp_path / "beside.py").write_text("number = 7\n")
    (tmp_path / "usersnet.py").write_text(SOURCE)
    return tmp_path


def test_a_file_beside_the_users_is_imported_and_replaces_no_module_of_python(folder: Path) -> None:
    assert attribute_of(f"{folder}/usersnet.py:number", "number") == 7


@pytest.mark.parametrize("at", [0, -1])
def test_a_process_finds_the_modules_of_this_one_and_starts_with_pythons_own(folder: Path, at: int) -> None:
    sys.path.insert(at, str(folder))
    (folder / "graphlib.py").unlink()
    done = subprocess.run(python_command("usersnet", "a", "b c"), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split(" ", 1)[0] == "7", done.stderr
    assert done.stdout.endswith("['a', 'b c']\n")
