"""Which device, runtime and table are meant when a run's networks are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import FACTS, GRAPH, INFO
from test_table import table as made_up_table

from device_agents.support.errors import ToolError
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.targets import choose_target
from profiler.protocol.settings import Target
from profiler.tables.table import Table

PIXEL, JETSON = Target("adb:pixel", "litert", 2, python="/data/python"), Target("jetson", "onnxruntime")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """Of a network that has to suit two devices."""
    info = replace(INFO, budgets=("pixel=60%", "jetson=40ms"), tables={"pixel": FACTS, "jetson": FACTS})
    with RunFolder.create(tmp_path / "run", info, GRAPH) as folder:
        for name, target in (("pixel", PIXEL), ("jetson", JETSON)):
            made = made_up_table()
            Table(made.rows, replace(made.info, target=target)).save(folder.table_path(name))
        yield folder


def test_the_first_table_s_device_is_meant_unless_something_is_named(run: RunFolder) -> None:
    assert choose_target(run) == (PIXEL, run.table_path("pixel"))


@pytest.mark.parametrize("device", ["jetson", None])
def test_a_device_or_a_runtime_is_enough_to_find_the_table(run: RunFolder, device: str | None) -> None:
    assert choose_target(run, device, "onnxruntime") == (JETSON, run.table_path("jetson"))


def test_a_device_may_be_named_as_its_table_is(run: RunFolder) -> None:
    assert choose_target(run, "pixel") == choose_target(run, "adb:pixel") == (PIXEL, run.table_path("pixel"))


def test_another_runtime_on_a_table_s_device_has_no_prediction(run: RunFolder) -> None:
    assert choose_target(run, "pixel", "onnxruntime") == (replace(PIXEL, runtime="onnxruntime"), None)


def test_another_device_is_measured_as_the_first_is_with_an_interpreter_of_its_own(run: RunFolder) -> None:
    assert choose_target(run, "ssh:desk") == (Target("ssh:desk", "litert", 2), None)


def test_an_interpreter_that_is_named_is_taken(run: RunFolder) -> None:
    assert choose_target(run, python="/opt/python")[0] == replace(PIXEL, python="/opt/python")


def test_without_tables_this_machine_is_meant(tmp_path: Path) -> None:
    info = replace(INFO, budgets=("macs=60%",), tables={})
    with RunFolder.create(tmp_path / "run", info, GRAPH) as folder:
        assert choose_target(folder) == (Target(), None)


def test_a_device_that_nobody_knows_is_told_before_anything_is_done(run: RunFolder) -> None:
    with pytest.raises(ToolError, match="no device called 'nowhere'"):
        choose_target(run, "nowhere")
