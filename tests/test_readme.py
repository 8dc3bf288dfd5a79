"""The README's commands print what stands below them: the same words, with other numbers."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from graphs import mobilenet_v1

from netadapt.networks import network_graph
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph

README = Path(__file__).parent.parent / "README.md"
PROGRAMS = {"profile": "profiler.cli.app", "netadapt": "netadapt.cli.app"}
LONGEST_LINES = 150


def examples(heading: str) -> list[tuple[str, str]]:
    """The commands of a section, each with the output that stands below it."""
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    text = "".join(re.findall(r"```console\n(.*?)```", section, re.DOTALL))
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in text.replace("\\\n", " ").split("$ ")[1:]]


def shape(text: str) -> str:
    """The text without what differs from machine to machine: numbers, names of pruned blocks, and whether it was quiet."""
    text = re.sub(r"unverified: (the device was disturbed while \S+ % of the layers were measured; )?", "", text)
    text = re.sub(r"; the limit is \S+ %", "", text)
    text = re.sub(r"[\w.]+ → \d+", "BLOCK → #", text)
    text = re.sub(r"[-+]?\d[\d.,]*", "#", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def has_shape(printed: str, expected: str) -> bool:
    """True if the lines agree in shape; a line of three dots stands for any number of lines."""
    lines = (r"(.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shape(expected).splitlines())
    return re.fullmatch("".join(lines), shape(printed) + "\n") is not None


def run(folder: Path, command: str) -> str:
    """What a command prints on standard output; a few rounds and layers print the same words as many."""
    program, *arguments = shlex.split(command, comments=True)
    if arguments[0] == "benchmark":
        arguments += ["--rounds", "3"]
    if arguments[0] == "build":
        arguments += ["--rounds", "3", "--max-layers", "20", "--target-error", "50%"]
    if arguments[0] == "run":  # a table of few layers may be unverified, and a busy machine must not change what is asked for
        arguments += ["--allow-unverified", "--no-measure"]
    done = subprocess.run(
        [sys.executable, "-c", f"from {PROGRAMS[program]} import app; app()", *arguments],
        cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(README.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_model(folder: Path, graph: Graph) -> None:
    (folder / "model.onnx").write_bytes(FORMATS["onnx"].write(graph))


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_LINES


def test_the_first_screen_has_the_two_commands_that_set_everything_up() -> None:
    first_screen = "\n".join(README.read_text().splitlines()[:40])
    assert "make demo" in first_screen and "make test" in first_screen


def test_lines_of_another_shape_are_found_out() -> None:
    assert has_shape("a 1.5 ms\nb\nc\n", "a 20 ms\n...\nc")
    assert not has_shape("a 1.5 s\nb\nc\n", "a 20 ms\n...\nc")


def test_a_model_is_benchmarked_as_the_readme_shows(tmp_path: Path) -> None:
    write_model(tmp_path, mobilenet_v1(0.25, 32, classes=10))
    for command, expected in examples("Thirty seconds"):
        assert has_shape(printed := run(tmp_path, command), expected), printed


@pytest.mark.slow
@pytest.mark.timeout(1500)  # a build and a run, on a machine that may be busy
def test_a_table_is_built_and_a_network_adapted_as_the_readme_shows(tmp_path: Path) -> None:
    write_model(tmp_path, network_graph("mobilenet_v1", width_multiplier=0.25, resolution=32, classes=10))
    for heading in ("A table, and what it predicts", "A network within a budget"):
        for command, expected in examples(heading):
            assert has_shape(printed := run(tmp_path, command), expected), printed
