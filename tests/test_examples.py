"""The examples run as they are written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.slow


def done(folder: Path, name: str, *options: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), *filter(None, sys.path)])}
    command = [sys.executable, str(EXAMPLES / name), *options]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_plain_loop_adapts_its_network_and_goes_on_where_it_was(tmp_path: Path) -> None:
    said = done(tmp_path, "plain_pytorch.py")
    assert "adapted:" in said and (tmp_path / "plain_pytorch_run" / "adapted.onnx").is_file()
    assert said == done(tmp_path, "plain_pytorch.py")


def test_lightnings_trainer_trains_the_candidates(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    assert "adapted:" in done(tmp_path, "lightning_trainer.py")


def test_the_notebook_runs_and_shows_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), *filter(None, sys.path)]))
    notebook = nbformat.read(EXAMPLES / "adapt.ipynb", as_version=4)
    nbformat.validate(notebook)
    client.NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any("the original" in data.get("text/html", "") for data in shown)
    assert any("image/png" in data for data in shown)
    assert (tmp_path / "adapted.onnx").is_file()
