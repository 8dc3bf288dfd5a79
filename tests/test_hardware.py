"""Descriptions of accelerators, and the published figures in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profiler.cli.app import app
from profiler.errors import HardwareError
from profiler.modelled.checks import Check, checks, work_of
from profiler.modelled.engines import ENGINES, engine_of, version_of
from profiler.modelled.hardware import Hardware, open_hardware, read_hardware, shipped_hardware
from profiler.modelled.work import Assumptions, Geometry, Work, total_of

SHIPPED = {name: file.hardware for name, file in shipped_hardware().items()}
FIGURES = [(name, check) for name, hardware in SHIPPED.items() for check in checks(hardware)]
SMALLEST = """
name = "mine"
about = "a test"
source = "none"
engine = "row_stationary"
clock_mhz = 100
word_bits = 16
[array]
rows = 4
cols = 4
[memory]
buffer_bytes = 4096
unit_words = 64
[energy]
unit_pj = 1
"""


@pytest.mark.parametrize(
    "check", [check for _, check in FIGURES], ids=[f"{name} {found.figure.what} {found.figure.layer}" for name, found in FIGURES]
)
def test_the_model_agrees_with_a_published_figure(check: Check) -> None:
    assert check.figure.low <= check.modelled <= check.figure.high


@pytest.mark.parametrize("hardware", SHIPPED.values(), ids=SHIPPED)
def test_a_published_figure_lies_within_its_own_limits(hardware: Hardware) -> None:
    assert all(figure.low <= figure.value <= figure.high for figure in hardware.published)


def test_the_search_finds_a_mapping_of_no_more_energy_than_the_chip_ran() -> None:
    hardware = SHIPPED["eyeriss"]
    for workload in hardware.workload:
        ran, searched = (
            total_of(hardware, engine_of(hardware)(work_of(layer, hardware), hardware)).energy_pj[0]
            for layer in (workload, replace(workload, mapping=None))
        )
        assert searched <= ran


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_has_a_version(engine: str) -> None:
    assert version_of(replace(SHIPPED["eyeriss"], engine=engine)) >= 1


def energies(work: Work, hardware: Hardware) -> list[float]:
    return [float(pj) for pj in total_of(hardware, engine_of(hardware)(work, hardware)).energy_pj]


def convolution(inputs: list[int], outputs: list[int], assumptions: Assumptions, size: int = 14, kernel: int = 3) -> Work:
    geometry = Geometry(assumptions.batch, size, size, size, size, kernel, kernel)
    return Work(geometry, np.ones(len(inputs)), np.array(inputs, dtype=float), np.array(outputs, dtype=float), assumptions)


densities = st.floats(0.0, 1.0)
EVERY = SHIPPED | {"output_stationary": replace(SHIPPED["eyeriss_256"], engine="output_stationary")}
"""One accelerator for each engine at least."""
one_of_every = st.sampled_from(sorted(EVERY))
few = settings(max_examples=40, deadline=None)


@few
@given(one_of_every, densities, densities, st.sampled_from(["input_density", "weight_density", "output_density"]))
def test_energy_never_falls_when_a_density_rises(name: str, one: float, other: float, kind: str) -> None:
    few_values, many = (
        energies(convolution([64], [96], replace(Assumptions(1, 8), **{kind: density})), EVERY[name])[0]
        for density in sorted((one, other))
    )
    assert few_values <= many * (1 + 1e-9)


@few
@given(one_of_every, st.integers(1, 16), st.integers(1, 16))
def test_energy_never_falls_when_bits_rise(name: str, one: int, other: int) -> None:
    most = EVERY[name].word_bits
    short, long = (
        energies(convolution([64], [96], Assumptions(1, bits, 0.5, 0.5, 0.5)), EVERY[name])[0]
        for bits in sorted((min(one, most), min(other, most)))
    )
    assert short <= long * (1 + 1e-9)


@few
@given(one_of_every, st.integers(1, 200), st.integers(1, 200), st.integers(1, 200))
def test_energy_never_falls_when_channels_are_added(name: str, channels: int, more: int, others: int) -> None:
    narrow, wide = energies(convolution([channels, channels + more], [others, others], Assumptions(1, 8)), EVERY[name])
    assert narrow <= wide * (1 + 1e-9)
    narrow, wide = energies(convolution([others, others], [channels, channels + more], Assumptions(1, 8)), EVERY[name])
    assert narrow <= wide * (1 + 1e-9)


@few
@given(one_of_every, st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=5))
def test_channel_counts_at_once_cost_what_each_costs_alone(name: str, channels: list[tuple[int, int]]) -> None:
    together = energies(convolution([one for one, _ in channels], [two for _, two in channels], Assumptions(1, 8)), EVERY[name])
    alone = [energies(convolution([one], [two], Assumptions(1, 8)), EVERY[name])[0] for one, two in channels]
    assert together == pytest.approx(alone, rel=1e-9)


def test_a_kernel_taller_than_the_array_is_folded(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALLEST)
    assert energies(convolution([3], [8], Assumptions(), size=20, kernel=7), read_hardware(path).hardware)[0] > 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("rows = 4", "rowz = 4", "line 9: array has no setting 'rowz'; did you mean 'rows'?"),
        ("rows = 4", "rows = 0", "line 9: array: rows must be a whole number"),
        ("rows = 4", "rows = 1000000000000000", "line 9: array: rows has to be at most 65,536"),
        ("unit_pj = 1", "", "energy lacks unit_pj"),
        ("unit_pj = 1", "unit_pj = 0", "unit_pj has to be more than 0"),
        ("clock_mhz = 100", "clock_mhz = 0", "clock_mhz has to be more than 0"),
        ("clock_mhz = 100", "clock_mhz = true", "line 6"),
        ("[energy]", "[sparsity]\ngates = ['inputs']\n[energy]", "there is no gates 'inputs'; did you mean 'input'?"),
        ("[energy]", "[power]\ncontrol_share = 1.0\n[energy]", "has to be below 1"),
        (
            "[energy]",
            '[[published]]\nwhat = "a"\nvalue = 1\nlow = 1\nhigh = 1\nsource = "b"\nlayer = "c"\n[energy]',
            "no workload 'c'",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_was_meant(tmp_path: Path, before: str, after: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALLEST.replace(before, after))
    with pytest.raises(HardwareError) as caught:
        read_hardware(path)
    assert said in str(caught.value)


def test_an_unknown_name_is_told_with_what_was_meant() -> None:
    with pytest.raises(HardwareError, match="did you mean 'eyeriss'"):
        open_hardware("eyerris")


def test_an_unknown_engine_is_told_with_what_was_meant() -> None:
    with pytest.raises(HardwareError, match="did you mean 'row_stationary'"):
        engine_of(replace(SHIPPED["eyeriss"], engine="row_stationery"))


def test_the_command_lists_every_description_of_the_package() -> None:
    listed = json.loads(CliRunner().invoke(app, ["hardware", "--json"]).stdout)
    assert set(listed) == set(SHIPPED)


def test_the_command_prints_published_figures_beside_those_of_the_model() -> None:
    printed = json.loads(CliRunner().invoke(app, ["hardware", "eyeriss", "--json"]).stdout)
    assert all(figure["agrees"] for figure in printed["published"])
    assert "chip_energy" in CliRunner().invoke(app, ["hardware", "eyeriss"]).stdout


def test_the_command_reads_a_description_of_a_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALLEST)
    assert "nothing vouches" in CliRunner().invoke(app, ["hardware", str(path)]).stdout


def test_a_systolic_array_computes_a_tile_in_a_cycle_per_pixel() -> None:
    hardware = SHIPPED["tpu_like"]
    costs = engine_of(hardware)(convolution([256], [256], Assumptions(1, 8), size=32, kernel=1), hardware)
    assert costs.cycles[0] == 32 * 32 + 512


def test_every_engine_is_used_by_some_accelerator() -> None:
    by_address_only = {"zigzag"}
    assert {hardware.engine for hardware in EVERY.values()} == set(ENGINES) - by_address_only


def test_an_output_stationary_array_computes_a_tile_in_a_cycle_per_input_of_a_filter() -> None:
    costs = engine_of(EVERY["output_stationary"])(convolution([8], [16], Assumptions(), size=4), EVERY["output_stationary"])
    assert costs.cycles[0] == 8 * 9
    assert costs.active_units[0] == 256


def test_the_row_stationary_dataflow_takes_less_energy_than_others_on_the_same_array() -> None:
    """As Chen, Emer, Sze (ISCA 2016) find for the convolutions of AlexNet, at equal area, which is not made equal here."""

    def energy_pj(engine: str) -> float:
        hardware = replace(SHIPPED["eyeriss_256"], engine=engine)
        layers = [layer for layer in hardware.workload if layer.name.startswith("conv")]
        return sum(
            float(total_of(hardware, engine_of(hardware)(work_of(layer, hardware), hardware)).energy_pj[0]) for layer in layers
        )

    others = ("weight_stationary", "output_stationary", "no_local_reuse")
    assert all(energy_pj("row_stationary") < energy_pj(engine) for engine in others)


def test_skipped_zeros_save_cycles_and_gated_ones_do_not() -> None:
    sparse, dense = Assumptions(1, 8, input_density=0.5), Assumptions(1, 8)
    cycles = {
        name: [
            engine_of(SHIPPED[name])(convolution([64], [64], assumptions), SHIPPED[name]).cycles[0]
            for assumptions in (sparse, dense)
        ]
        for name in ("eyeriss", "eyeriss_v2", "eie")
    }
    assert cycles["eyeriss"][0] == cycles["eyeriss"][1]
    assert cycles["eyeriss_v2"][0] < cycles["eyeriss_v2"][1]
    assert cycles["eie"][0] < cycles["eie"][1]


def test_weights_that_fit_into_the_units_of_a_sparse_engine_are_not_read_from_outside() -> None:
    hardware = SHIPPED["eie"]
    few, many = Assumptions(1, 16, weight_density=0.1), Assumptions(1, 16)
    moved = [
        engine_of(hardware)(convolution([4096], [4096], one, size=1, kernel=1), hardware).dram_bytes.sum() for one in (few, many)
    ]
    assert moved[0] == 0 < moved[1]
