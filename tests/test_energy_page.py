"""The 25 columns of energyestimation.mit.edu, written from tables and read for predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from profiler.cli.app import app
from profiler.errors import LayerError, ModelError
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected
from profiler.modelled.energy_page import page_layer, read_page, write_page
from profiler.modelled.model import open_model
from profiler.modelled.work import Assumptions
from profiler.tables.build_modelled import build_modelled
from profiler.tables.plan import Plan

GRAPH = mobilenet_v1(0.25, 64, classes=10)
ALEXNET = """1,227,227,3,4,62,16,11,11,3,96,0,16,55,55,96,4,449513,16,4,4,0,0,0,0
2,27,27,96,4,108335,16,5,5,48,256,0,16,27,27,256,4,541210,16,1,1,2,2,2,2
"""
"""The first two convolutions for a batch of four, with the zeros of their inputs and outputs."""


KEPT = Path(__file__).parent.parent / "tables" / "mobilenet_v1-1.0-224-litert.parquet"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "eyeriss.parquet"
    build_modelled([Plan(GRAPH)], "model:eyeriss@input_density=0.5", path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_line_is_a_layer_with_batch_bits_and_zeros() -> None:
    first, second = read_page(ALEXNET, "alexnet.txt")
    assert first.layer() == LayerSpec("conv2d", ((1, 227, 227, 3),), (1, 55, 55, 96), (11, 11), (4, 4))
    assert second.layer().groups == 2
    assert second.layer().padding == (2, 2, 2, 2)
    assert second.assumptions().batch == 4
    assert second.assumptions().input_density == pytest.approx(1 - 108335 / (27 * 27 * 96 * 4))


def test_what_is_written_is_read_back() -> None:
    assert write_page(read_page(ALEXNET, "alexnet.txt")) == ALEXNET


def test_blanks_separate_as_commas_do() -> None:
    assert read_page(ALEXNET.replace(",", " "), "a.txt") == read_page(ALEXNET, "a.txt")


sizes = st.integers(1, 12)


@given(sizes, sizes, sizes, st.sampled_from([1, 3]), st.integers(1, 2), st.floats(0, 1), st.sampled_from([1, 4]))
def test_any_convolution_comes_back(
    size: int, channels: int, filters: int, kernel: int, stride: int, density: float, batch: int
) -> None:
    layer = conv2d((1, size, size, channels), filters, kernel, stride=stride)
    line = page_layer(layer, Assumptions(batch, 8, density))
    assert line is not None
    (back,) = read_page(write_page([line]), "a.txt")
    assert back == line
    assert back.layer() == layer or channels > 1 == layer.groups
    assert back.assumptions().input_density == pytest.approx(density, abs=0.51 / (size * size * channels * batch))


@pytest.mark.parametrize("layer", [depthwise_conv2d((1, 8, 8, 16), 3), conv2d((1, 8, 8, 16), 32, 3, groups=4)])
def test_groups_come_back(layer: LayerSpec) -> None:
    line = page_layer(layer, Assumptions())
    assert line is not None
    assert line.layer() == layer


def test_a_matrix_product_is_a_convolution_of_one_pixel() -> None:
    line = page_layer(fully_connected((1, 64), 10), Assumptions())
    assert line is not None
    model = open_model("model:eyeriss")
    assert model.cost(line.layer()).energy_mj == pytest.approx(model.cost(fully_connected((1, 64), 10)).energy_mj)


@pytest.mark.parametrize(
    "layer",
    [
        conv2d((1, 8, 8, 4), 4, 3, dilation=2),
        LayerSpec("max_pool2d", ((1, 8, 8, 16),), (1, 4, 4, 16), kernel=(2, 2), stride=(2, 2)),
        fully_connected((1, 5, 8), 4),
    ],
)
def test_what_the_page_has_no_form_for_is_left_out(layer: LayerSpec) -> None:
    assert page_layer(layer, Assumptions()) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("55,55,96", "54,55,96", "line 1: conv2d"),
        ("2,27,27,96,4", "2,27,27,96,2", "line 2: 2 images at a time, and 4 before"),
        ("11,11,3,96", "11,11,3,95", "line 1: 95 filters do not make 96 channels"),
        ("5,5,48", "5,5,47", "line 2: filters of 47 channels do not divide inputs of 96"),
        ("227,227,3,4,62", "227,227,3,4,9999999", "line 1: sizes and bits are at least 1"),
        ("1,227", "one,227", "line 1: 25 whole numbers"),
        (",2,2,2,2", ",2,2,2", "line 2: 25 whole numbers"),
    ],
)
def test_a_mistake_is_told_with_its_line(before: str, after: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read_page(ALEXNET.replace(before, after), "alexnet.txt")


def test_an_empty_file_is_told() -> None:
    with pytest.raises(ModelError, match="0 layers"):
        read_page("\n", "empty.txt")


def test_a_contradiction_is_a_layer_error() -> None:
    with pytest.raises(ModelError) as caught:
        read_page(ALEXNET.replace("5,5,48", "5,5,47"), "alexnet.txt")
    assert isinstance(caught.value.__cause__, LayerError)


def test_a_table_is_exported_with_the_zeros_it_assumes(path: Path, tmp_path: Path) -> None:
    assert run("export", path, "--format", "energy-page", "--out", tmp_path / "net.txt").exit_code == 0
    first, *_ = read_page((tmp_path / "net.txt").read_text(), "net.txt")
    assert first.batch == 4
    assert first.assumptions().input_density == pytest.approx(0.5)


def test_a_file_is_predicted_by_an_accelerator_with_its_own_batch_and_zeros(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "alexnet.txt"
    file.write_text(ALEXNET)
    printed = json.loads(run("predict", path, file, "--breakdown", "--json").stdout)
    first, second = printed["breakdown"]["layers"]
    assert first["energy_mj"] + second["energy_mj"] == pytest.approx(printed["energy_mj"])
    line = read_page(ALEXNET, "a")[1]
    assert second["energy_mj"] == open_model("model:eyeriss").assuming(line.assumptions()).cost(line.layer()).energy_mj
    assert "4 images at a time" in run("predict", path, file, "--breakdown").stdout


def test_a_file_of_more_bits_than_the_hardware_has_is_told(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "alexnet.txt"
    file.write_text(ALEXNET.replace(",16,", ",32,"))
    assert run("predict", path, file).exit_code == 1


def test_a_measured_table_takes_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "alexnet.txt").write_text(ALEXNET)
    result = run("predict", KEPT, tmp_path / "alexnet.txt")
    assert result.exit_code == 1
    assert "is no table of a modelled accelerator" in result.stderr


def test_a_written_table_costs_what_its_layers_cost(path: Path, tmp_path: Path) -> None:
    written = run("export", path, "--format", "energy-page", "--out", tmp_path / "net.txt")
    assert written.exit_code == 0, written.output
    printed = json.loads(run("predict", path, tmp_path / "net.txt", "--breakdown", "--json").stdout)
    model = open_model("model:eyeriss@input_density=0.5")
    wanted = {layer: model.cost(layer).energy_mj for layer in GRAPH.layers if page_layer(layer, Assumptions()) is not None}
    assert printed["energy_mj"] == pytest.approx(sum(wanted.values()), rel=1e-3)
