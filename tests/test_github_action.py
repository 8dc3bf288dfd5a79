"""The action for GitHub: its last step is run here as GitHub's runner would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_profile_cli import model, table_file

__all__ = ["model", "table_file"]  # fixtures
ROOT = Path(__file__).parent.parent
ACTION: Any = yaml.safe_load((ROOT / "action.yml").read_text())
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
"""What `shell: bash` stands for."""


def predict(folder: Path, **inputs: object) -> subprocess.CompletedProcess[str]:
    """The step with these inputs; its summary is written to summary.md."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    program = bin_folder / "profile"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -c "from profiler.cli.app import app; app()" "$@"\n')
    program.chmod(0o755)
    step = ACTION["runs"]["steps"][-1]
    values = {name: str(inputs[re.sub(r"\W", "_", text.split(".")[1].strip(" }"))]) for name, text in step["env"].items()}
    surroundings = os.environ | values | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": "summary.md"}
    return subprocess.run([*BASH, step["run"]], cwd=folder, env=surroundings, capture_output=True, text=True, check=False)


def test_a_network_within_the_limit_passes_and_its_prediction_is_in_the_summary(
    tmp_path: Path, table_file: Path, model: Path
) -> None:
    done = predict(tmp_path, table=table_file, models=model.name, max_latency_ms=1e6)
    assert done.returncode == 0, done.stderr
    assert "network.tflite: " in done.stdout
    assert "network.tflite: " in (tmp_path / "summary.md").read_text()


def test_a_network_above_the_limit_fails_and_the_summary_says_why(tmp_path: Path, table_file: Path, model: Path) -> None:
    done = predict(tmp_path, table=table_file, models=model.name, max_latency_ms=1e-6)
    assert done.returncode == 1
    assert "is predicted to take" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("pattern", ["*.tflite", "network.tflite\nsecond.tflite"])
def test_several_files_are_each_held_to_the_limit(tmp_path: Path, table_file: Path, model: Path, pattern: str) -> None:
    (tmp_path / "second.tflite").write_bytes(model.read_bytes())
    done = predict(tmp_path, table=table_file, models=pattern, max_latency_ms=1e6)
    assert "network.tflite: " in done.stdout and "second.tflite: " in done.stdout


def test_what_a_user_gives_is_never_text_of_a_script() -> None:
    assert not any("${{" in step.get("run", "") for step in ACTION["runs"]["steps"])
