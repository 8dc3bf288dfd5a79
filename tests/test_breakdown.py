"""Where the energy of a network goes, as text, JSON and a chart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import mobilenet_v1
from typer.testing import CliRunner, Result

from profiler.cli.app import app
from profiler.errors import TableError
from profiler.formats.onnx.writer import write_onnx
from profiler.modelled.breakdown import Breakdown, breakdown
from profiler.modelled.hardware import DATA_TYPES, shipped_hardware
from profiler.modelled.model import open_model
from profiler.plotting.breakdown import breakdown_figure, write_breakdown
from profiler.tables.build_modelled import build_modelled
from profiler.tables.plan import Plan

GRAPH = mobilenet_v1(0.25, 64, classes=10)
KEPT = Path(__file__).parent.parent / "tables" / "mobilenet_v1-1.0-224-litert.parquet"


def of(name: str) -> Breakdown:
    return breakdown(open_model(f"model:{name}"), GRAPH.name, [(node.name, node.layer) for node in GRAPH.nodes])


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table and a model file."""
    folder = tmp_path_factory.mktemp("files")
    build_modelled([Plan(GRAPH)], "model:eyeriss", folder / "t.parquet")
    (folder / "net.onnx").write_bytes(write_onnx(GRAPH))
    return folder / "t.parquet", folder / "net.onnx"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", shipped_hardware())
def test_all_parts_add_up_to_the_energy(name: str) -> None:
    found = of(name)
    moved = sum(found.data_mj[level][kind] for level in found.levels for kind in DATA_TYPES)
    assert found.energy_mj == pytest.approx(moved + found.compute_mj + found.overhead_mj)


def test_json_has_every_layer_by_level_and_data_type(paths: tuple[Path, Path]) -> None:
    printed = json.loads(run("predict", *paths, "--breakdown", "--json").stdout)
    parts = printed["breakdown"]
    assert parts["energy_mj"] == pytest.approx(printed["energy_mj"])
    assert len(parts["layers"]) == len(GRAPH.nodes)
    assert set(parts["layers"][0]["data_mj"]) == {"dram", "buffer", "array", "unit"}
    assert set(parts["layers"][0]["data_mj"]["dram"]) == set(DATA_TYPES)
    assert all(layer["bound"] for layer in parts["layers"])


def test_text_says_what_bounds_a_layer_and_that_nothing_was_measured(paths: tuple[Path, Path]) -> None:
    printed = run("predict", *paths, "--breakdown").stdout
    assert "bound by" in printed
    assert "array shape" in printed
    assert "modelled, not measured" in printed


def test_a_depthwise_layer_is_bound_by_the_shape_of_a_systolic_array() -> None:
    depthwise = next(part for part in of("tpu_like").layers if part.layer.op == "depthwise_conv2d")
    assert depthwise.cost.bound == "array shape"
    assert depthwise.cost.active_units == 9


def test_without_breakdown_json_has_none(paths: tuple[Path, Path]) -> None:
    assert "breakdown" not in json.loads(run("predict", *paths, "--json").stdout)


def test_a_measured_table_does_not_tell_where_energy_goes(paths: tuple[Path, Path]) -> None:
    result = run("predict", KEPT, paths[1], "--breakdown")
    assert result.exit_code == 1


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_chart_is_written(paths: tuple[Path, Path], tmp_path: Path, ending: str) -> None:
    assert run("predict", *paths, "--chart", tmp_path / f"b.{ending}").exit_code == 0
    assert (tmp_path / f"b.{ending}").stat().st_size > 5000


def test_the_bars_of_the_chart_are_as_high_as_the_energies() -> None:
    found = of("pim_reram")
    bars = breakdown_figure(found).axes[0].patches
    tops: dict[int, float] = {}
    for bar in bars:
        place = round(bar.get_x() + bar.get_width() / 2)  # type: ignore[attr-defined]
        tops[place] = max(tops.get(place, 0.0), bar.get_y() + bar.get_height())  # type: ignore[attr-defined]
    assert [tops[place] for place in range(len(found.layers))] == pytest.approx([part.cost.energy_mj for part in found.layers])


def test_a_chart_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"\.png or \.svg"):
        write_breakdown(of("eyeriss"), tmp_path / "b.pdf")
